"""Findings about caches: stale use, luck, answers after an invalidation, reuse of a table page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import Fault, Outcome, Role, Translation
from decoders.vtd.faults import Reason
from harness.findings import Finding, FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.writers.invalidations import BY_DOMAIN, SELECTIVE, contexts, iotlb, pages
from tests.writers.platform import (
    DEVICE,
    DOMAIN,
    EXECUTE,
    PAGE,
    READ,
    WRITE,
    Platform,
    Space,
    fault,
    page,
)

OLD, NEW = page(0x10_0000), page(0x20_0000)
MEBI = 1 << 20


def kinds(findings: list[Finding]) -> list[FindingKind]:
    return [finding.kind for finding in findings]


def remapped(platform: Platform) -> Space:
    """Map a page, use it and map it elsewhere; return the tables."""
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.read(0x1000)
    space.map(0x1000, NEW.address)
    return space


# -- one access ----------------------------------------------------------------------------------


def test_the_fresh_answer_is_no_finding(platform: Platform) -> None:
    platform.legacy().map(0x1000, NEW.address)
    assert platform.judge(0x1000, NEW) == []
    assert platform.judge(0x1000, NEW) == []


def test_the_old_answer_is_stale_use(platform: Platform) -> None:
    remapped(platform)
    assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_USE]


def test_the_new_answer_is_luck(platform: Platform) -> None:
    remapped(platform)
    assert kinds(platform.judge(0x1000, NEW)) == [FindingKind.UNFLUSHED]


def test_the_old_answer_after_its_invalidation(platform: Platform) -> None:
    remapped(platform)
    pages(platform, 0x1000)
    assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_AFTER_INVALIDATION]
    assert platform.judge(0x1000, NEW) == []


def test_any_other_answer_diverges(platform: Platform) -> None:
    remapped(platform)
    assert kinds(platform.judge(0x1000, page(0x30_0000))) == [FindingKind.DIVERGENCE]
    assert kinds(platform.judge(0x1000, fault(Reason.NO_READ))) == [FindingKind.DIVERGENCE]


def test_a_finding_names_its_events(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    filled = platform.next_event() + 1
    platform.read(0x1000)
    changed = platform.next_event() + 1
    at = space.map(0x1000, NEW.address)
    (found,) = platform.judge(0x1000, OLD)
    assert found.event == platform.unit.event
    assert (found.cache, found.domain) == ("iotlb", DOMAIN)
    assert (found.filled_by, found.changed_by, found.covered_by) == (filled, changed, -1)
    assert found.subject == "access"
    assert found.observed == OLD
    assert found.permitted == (NEW, OLD)
    assert (int(Role.SECOND_STAGE), 1, at, platform.load(at)) == found.steps[-1]
    assert [step[0] for step in found.steps] == [0, 0, 1, 1, 5, 5, 5, 5]


def test_a_finding_names_the_invalidation(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    filled = platform.next_event() + 1
    platform.read(0x1000)
    space.map(0x1000, NEW.address)
    pages(platform, 0x1000)
    covered = platform.unit.event
    (found,) = platform.judge(0x1000, OLD)
    assert (found.filled_by, found.changed_by, found.covered_by) == (filled, -1, covered)
    assert found.permitted == (NEW,)


def test_one_mistake_is_reported_until_it_is_repaired(platform: Platform) -> None:
    remapped(platform)
    for _ in range(3):
        assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_USE]
    pages(platform, 0x1000)
    assert platform.judge(0x1000, NEW) == []


def test_unmapping_without_invalidation(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.read(0x1000)
    space.unmap(0x1000)
    assert platform.permitted(0x1000) == {fault(Reason.NO_READ), OLD}
    assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_USE]
    assert kinds(platform.judge(0x1000, fault(Reason.NO_READ))) == [FindingKind.UNFLUSHED]


def test_mapping_again_as_before_leaves_nothing_stale(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.read(0x1000)
    space.unmap(0x1000)
    space.map(0x1000, OLD.address)
    assert platform.judge(0x1000, OLD) == []


def test_what_was_never_used_is_not_stale(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    space.map(0x1000, NEW.address)
    assert platform.judge(0x1000, NEW) == []


def test_a_fault_is_not_kept_without_caching_mode(platform: Platform) -> None:
    space = platform.legacy()
    assert platform.read(0x1000) == fault(Reason.NO_READ)
    space.map(0x1000, NEW.address)
    assert platform.judge(0x1000, NEW) == []


# -- rights --------------------------------------------------------------------------------------


def test_a_right_taken_away_may_still_be_used(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.write_to(0x1000)
    space.change(0x1000, w=0)
    assert platform.permitted(0x1000, WRITE) == {fault(Reason.NO_WRITE), OLD}
    assert platform.permitted(0x1000, READ) == {OLD}
    assert kinds(platform.judge(0x1000, OLD, WRITE)) == [FindingKind.STALE_USE]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_right_given_needs_no_invalidation(platform: Platform, level: int) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    space.change(0x1000, level, w=0)
    platform.read(0x1000)
    space.change(0x1000, level, w=1)
    assert platform.permitted(0x1000, WRITE) == {OLD}
    assert platform.judge(0x1000, OLD, WRITE) == []


def test_the_right_to_execute_is_kept_with_the_translation(platform: Platform) -> None:
    space = platform.second_stage(pasid=1, ere=1, ssee=1)
    space.map(0x1000, OLD.address)
    for level in (2, 3, 4):
        space.change(0x1000, level, x=1)
    for x, expected in ((0, {NEW}), (1, {OLD, NEW})):
        iotlb(platform, "queue", BY_DOMAIN)
        space.map(0x1000, OLD.address, x=x)
        assert platform.read(0x1000, pasid=1) == OLD
        space.map(0x1000, NEW.address, x=1)
        assert platform.permitted(0x1000, EXECUTE, pasid=1) == expected


# -- page sizes ----------------------------------------------------------------------------------


def test_a_fraction_of_a_large_page_agrees(platform: Platform) -> None:
    platform.legacy().map(0, 4 * MEBI, level=2)
    assert platform.judge(0x3000, page(4 * MEBI + 0x3000)) == []
    assert platform.judge(0x3000, Translation(4 * MEBI, 2 * MEBI - 1)) == []


def test_more_than_the_page_does_not(platform: Platform) -> None:
    platform.legacy().map(0, 4 * MEBI)
    widened = Translation(4 * MEBI, 2 * MEBI - 1)
    assert kinds(platform.judge(0, widened)) == [FindingKind.DIVERGENCE]


def test_splitting_a_large_page_to_the_same_places_is_no_luck(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0, 4 * MEBI, level=2)
    platform.read(0x3000)
    table = Space(platform, space.stage, platform.page(), 1)
    table.map(0x3000, 4 * MEBI + 0x3000)
    platform.store(space.entry(0, 2), space.value(table.root))
    assert platform.judge(0x3000, page(4 * MEBI + 0x3000)) == []


# -- contexts and PASID entries ------------------------------------------------------------------


def test_stale_use_of_a_context_entry(platform: Platform) -> None:
    platform.legacy(domain=1).map(0x1000, OLD.address)
    platform.read(0x1000)
    changed = platform.next_event() + 1  # the first quadword that differs, the table pointer
    space = platform.legacy(domain=2)
    space.map(0x1000, NEW.address)
    (found,) = platform.judge(0x1000, OLD)
    assert (found.kind, found.cache, found.domain) == (FindingKind.STALE_USE, "context", 1)
    assert found.changed_by == changed
    contexts(platform, "register", SELECTIVE, domain=1)
    assert platform.judge(0x1000, NEW) == []


def test_stale_use_of_a_pasid_entry(platform: Platform) -> None:
    platform.first_stage(3, domain=1).map(0x1000, OLD.address)
    platform.read(0x1000, pasid=3)
    platform.first_stage(3, domain=2).map(0x1000, NEW.address)
    (found,) = platform.judge(0x1000, OLD, pasid=3)
    assert (found.kind, found.cache, found.domain) == (FindingKind.STALE_USE, "pasid", 1)
    assert kinds(platform.judge(0x1000, NEW, pasid=3)) == [FindingKind.UNFLUSHED]


def test_stale_use_of_a_table_entry(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.read(0x1000)
    table = Space(platform, space.stage, platform.page(), 1)
    table.map(0x1000, NEW.address)
    platform.store(space.entry(0x1000, 2), space.value(table.root))
    changed = platform.unit.event
    pages(platform, 0x1000)
    assert platform.judge(0x1000, NEW) == []
    platform.store(space.entry(0x1000, 2), 0)
    iotlb(platform, "register", SELECTIVE, address=0x1000, ih=1)
    (found,) = platform.judge(0x1000, NEW)
    assert (found.kind, found.cache) == (FindingKind.STALE_USE, "paging-structure")
    assert found.changed_by > changed


# -- caching mode --------------------------------------------------------------------------------


def absent_then_mapped(platform: Platform, request: Callable[[int], Outcome]) -> Space:
    space = platform.legacy()
    assert isinstance(request(0x1000), Fault)
    space.map(0x1000, NEW.address)
    return space


def test_caching_mode_keeps_what_is_not_present(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=1)
    absent_then_mapped(platform, platform.read)
    assert platform.permitted(0x1000) == {NEW, fault(Reason.NO_READ)}
    assert platform.permitted(0x1000, WRITE) == {NEW, fault(Reason.NO_WRITE)}
    assert kinds(platform.judge(0x1000, fault(Reason.NO_READ))) == [FindingKind.STALE_USE]
    assert kinds(platform.judge(0x1000, NEW)) == [FindingKind.UNFLUSHED]
    pages(platform, 0x1000)
    assert platform.permitted(0x1000) == {NEW}


def test_caching_mode_keeps_whatever_level_is_not_present(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=1)
    space = platform.legacy()
    space.map(0x40_0000, OLD.address)
    platform.read(0x1000)
    space.map(0x1000, NEW.address)
    assert platform.permitted(0x1000) == {NEW, fault(Reason.NO_READ)}
    iotlb(platform, "register", BY_DOMAIN)
    assert platform.permitted(0x1000) == {NEW}


def test_caching_mode_keeps_no_other_fault(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=1)
    space = platform.legacy()
    space.map(0x1000, NEW.address, w=0)
    assert platform.write_to(0x1000) == fault(Reason.NO_WRITE)
    space.change(0x1000, w=1)
    assert platform.permitted(0x1000, WRITE) == {NEW}


def test_caching_mode_is_about_second_stages(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=1)
    space = platform.first_stage()
    assert platform.read(0x1000) == fault(Reason.FS_NOT_PRESENT)
    space.map(0x1000, NEW.address)
    assert platform.permitted(0x1000) == {NEW}


# -- reuse of a table page -----------------------------------------------------------------------


@pytest.fixture(params=[Role.SECOND_STAGE, Role.FIRST_STAGE])
def space(request: pytest.FixtureRequest, platform: Platform) -> Space:
    """Make tables of either stage, with one page mapped and used."""
    first = request.param == Role.FIRST_STAGE
    made = platform.first_stage() if first else platform.legacy()
    made.map(0x1000, OLD.address)
    assert platform.read(0x1000) == OLD
    return made


def reuse(platform: Platform, table: int) -> list[Finding]:
    platform.store(table + 0x800, 0x1234)
    return platform.unit.findings()


def test_a_table_page_reused_before_its_invalidation(space: Space) -> None:
    platform = space.platform
    table = space.entry(0x1000) & -PAGE
    link = space.unmap(0x1000, level=2)
    unlinked = platform.unit.event
    (found,) = reuse(platform, table)
    assert found.kind == FindingKind.PAGE_REUSE
    assert found.event == platform.unit.event
    assert (found.subject, found.observed) == ("table-page", table + 0x800)
    assert (found.cache, found.domain) == ("paging-structure", DOMAIN)
    assert found.changed_by == unlinked
    assert [step[:3] for step in found.steps] == [(int(space.stage), 2, link)]


def test_a_table_page_reused_as_a_whole(space: Space) -> None:
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    space.platform.next_event()
    space.platform.unit.snapshot(table, b"\1" * PAGE)
    assert kinds(space.platform.unit.findings()) == [FindingKind.PAGE_REUSE]


def test_reuse_is_reported_once(space: Space) -> None:
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    assert len(reuse(space.platform, table)) == 1
    assert reuse(space.platform, table) == []


def test_clearing_a_table_page_is_no_reuse(space: Space) -> None:
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    space.platform.store(table + 0x800, 0)
    space.platform.unit.snapshot(table, b"")
    assert space.platform.unit.findings() == []


def test_a_table_page_still_linked_is_not_reused(space: Space) -> None:
    space.map(0x2000, NEW.address)
    assert space.platform.unit.findings() == []


def test_a_table_page_linked_elsewhere_is_reused_where_it_was(space: Space) -> None:
    """A cache may still lead from the old region to a page that now serves another."""
    platform = space.platform
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    platform.store(space.entry(0x4000_0000, 2), space.value(table))
    assert kinds(reuse(platform, table)) == [FindingKind.PAGE_REUSE]


def test_a_table_page_is_unlinked_by_its_present_bits_alone(space: Space) -> None:
    table = space.entry(0x1000) & -PAGE
    space.change(0x1000, level=2, **dict.fromkeys(space.rights, 0))
    assert kinds(reuse(space.platform, table)) == [FindingKind.PAGE_REUSE]


def test_a_table_page_is_unlinked_by_another_in_its_place(space: Space) -> None:
    platform = space.platform
    table = space.entry(0x1000) & -PAGE
    platform.store(space.entry(0x1000, 2), space.value(platform.page()))
    assert kinds(reuse(platform, table)) == [FindingKind.PAGE_REUSE]


def test_a_table_page_of_two_regions_is_held_by_each(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    table = space.entry(0x1000) & -PAGE
    platform.store(space.entry(0x4000_0000, 2), space.value(table))
    assert platform.read(0x1000) == platform.read(0x4000_1000) == OLD
    space.unmap(0x1000, level=2)
    space.unmap(0x4000_0000, level=2)
    pages(platform, 0x1000)
    assert kinds(reuse(platform, table)) == [FindingKind.PAGE_REUSE]
    pages(platform, 0x4000_1000)
    assert reuse(platform, table) == []


@pytest.mark.parametrize(("ih", "expected"), [(1, 1), (0, 0)])
def test_reuse_after_a_page_selective_invalidation(
    platform: Platform, ih: int, expected: int
) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    platform.read(0x1000)
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    iotlb(platform, "register", SELECTIVE, address=0x1000, ih=ih)
    assert len(reuse(platform, table)) == expected


def test_reuse_after_a_table_was_never_used(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address)
    table = space.entry(0x1000) & -PAGE
    space.unmap(0x1000, level=2)
    assert reuse(platform, table) == []


# -- limits --------------------------------------------------------------------------------------


def test_the_oldest_of_many_old_answers_is_forgotten(platform: Platform) -> None:
    """Four different entries are kept under one key (harness.model.caches.WAYS)."""
    space = platform.legacy()
    places = [page(0x10_0000 * number) for number in range(1, 7)]
    for place in places:
        space.map(0x1000, place.address)
        platform.read(0x1000)
    assert platform.permitted(0x1000) == set(places[2:])


def test_a_table_page_is_forgotten_with_the_oldest_entry(platform: Platform) -> None:
    space = platform.legacy()
    tables = [Space(platform, space.stage, platform.page(), 1) for _ in range(5)]
    for table in tables:
        table.map(0x1000, OLD.address)
        platform.store(space.entry(0x1000, 2), space.value(table.root))
        assert platform.read(0x1000) == OLD
    assert reuse(platform, tables[0].root) == []
    assert kinds(reuse(platform, tables[1].root)) == [FindingKind.PAGE_REUSE]
    assert reuse(platform, tables[4].root) == []


def test_answers_of_one_device_do_not_depend_on_another(platform: Platform) -> None:
    remapped(platform)
    platform.legacy(sid=DEVICE + 8, domain=DOMAIN + 1).map(0x1000, NEW.address)
    assert platform.judge(0x1000, NEW, sid=DEVICE + 8) == []
