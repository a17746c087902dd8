"""What each invalidation drops of nested translation, and what it leaves (VT-d 6.2, 6.5.2).

Each change below makes kept entries stale in one way. An invalidation that suffices leaves the new
answer alone; one that does not is found by a unit that still gives the old answer.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.vtd.faults import Reason
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.writers.invalidations import (
    BY_DOMAIN,
    GLOBAL,
    SELECTIVE,
    contexts,
    iotlb,
    pasid_entries,
    pasid_iotlb,
)
from tests.writers.nested import GUEST, Nested, nested
from tests.writers.platform import DOMAIN, Platform, Space, fault, page

IOVA, OLD, NEW = 0x1000, 0x20_0000, 0x30_0000
PASID = 1
Change = Callable[[Nested], None]
Invalidate = Callable[[Platform, Nested], None]


# -- changes -------------------------------------------------------------------------------------


def first_leaf(space: Nested) -> None:
    """Map the page to another guest address."""
    space.second.map(GUEST, NEW)
    space.first.map(IOVA, GUEST)


def first_table(space: Nested) -> None:
    """Hang in another last table of the first stage."""
    platform = space.first.platform
    table = Space(platform, space.first.stage, platform.page(), 1)
    table.map(IOVA, GUEST)
    space.second.map(GUEST, NEW)
    space.second.map(table.root, table.root)
    platform.store(space.first.entry(IOVA, 2), space.first.value(table.root))


def second_leaf(space: Nested) -> None:
    """Map the guest page to another page."""
    space.second.map(GUEST + IOVA, NEW)


def second_table(space: Nested) -> None:
    """Hang in another last table of the second stage above the guest page."""
    platform = space.first.platform
    table = Space(platform, space.second.stage, platform.page(), 1)
    table.map(GUEST + IOVA, NEW)
    platform.store(space.second.entry(GUEST + IOVA, 2), space.second.value(table.root))


def second_leaf_of_a_table(space: Nested) -> None:
    """Map the guest page of the last first-stage table to another page."""
    platform = space.first.platform
    table = Space(platform, space.first.stage, platform.page(), 1)
    table.map(IOVA, GUEST)
    space.second.map(GUEST, NEW)
    space.second.map(space.tables(IOVA)[-1], table.root)


CHANGES: dict[str, Change] = {
    made.__name__: made
    for made in (first_leaf, first_table, second_leaf, second_table, second_leaf_of_a_table)
}
OF_FIRST = {"first_leaf", "first_table"}
OF_SECOND = {"second_leaf", "second_table", "second_leaf_of_a_table"}
ALL = OF_FIRST | OF_SECOND


# -- invalidations, and the changes each suffices for --------------------------------------------


def changed_page(space: Nested, change: str) -> int:
    """Return the guest page whose second-stage entry a change is about."""
    return space.tables(IOVA)[-1] if change == "second_leaf_of_a_table" else GUEST + IOVA


CASES: dict[str, tuple[Callable[[Platform, Nested, str], None], set[str]]] = {
    "all translations": (lambda p, s, c: iotlb(p, "queue", GLOBAL), ALL),
    "a domain": (lambda p, s, c: iotlb(p, "queue", BY_DOMAIN), ALL),
    "another domain": (lambda p, s, c: iotlb(p, "queue", BY_DOMAIN, domain=DOMAIN + 1), set()),
    "second-stage page": (
        lambda p, s, c: iotlb(p, "queue", SELECTIVE, address=changed_page(s, c)),
        ALL,
    ),
    # Of the second stage itself only leaves go with the hint: a table entry above stays.
    "second-stage page, hint": (
        lambda p, s, c: iotlb(p, "queue", SELECTIVE, address=changed_page(s, c), ih=1),
        ALL - {"second_table"},
    ),
    # Every first-stage and nested entry goes; what the second stage said of its pages stays.
    "another second-stage page": (
        lambda p, s, c: iotlb(p, "queue", SELECTIVE, address=1 << 40),
        OF_FIRST,
    ),
    "second-stage page of another domain": (
        lambda p, s, c: iotlb(p, "queue", SELECTIVE, domain=DOMAIN + 1, address=changed_page(s, c)),
        set(),
    ),
    "all of a PASID": (lambda p, s, c: pasid_iotlb(p, 2, pasid=PASID), OF_FIRST),
    "all of another PASID": (lambda p, s, c: pasid_iotlb(p, 2, pasid=PASID + 1), set()),
    "all of a PASID in another domain": (
        lambda p, s, c: pasid_iotlb(p, 2, pasid=PASID, domain=DOMAIN + 1),
        set(),
    ),
    "page of a PASID": (lambda p, s, c: pasid_iotlb(p, 3, pasid=PASID, address=IOVA), OF_FIRST),
    "page of a PASID, hint": (
        lambda p, s, c: pasid_iotlb(p, 3, pasid=PASID, address=IOVA, ih=1),
        {"first_leaf"},
    ),
    "another page of a PASID": (
        lambda p, s, c: pasid_iotlb(p, 3, pasid=PASID, address=1 << 30),
        set(),
    ),
    "pages of a PASID": (
        lambda p, s, c: pasid_iotlb(p, 3, pasid=PASID, address=0, am=9),
        OF_FIRST,
    ),
    "PASID entries": (lambda p, s, c: pasid_entries(p, 3), set()),
    "context entries": (lambda p, s, c: contexts(p, "queue", GLOBAL), set()),
}
"""How to invalidate, and the changes after which that is enough."""


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    made = make_platform(nest=1)
    made.start_queue(wide=True)
    return made


@pytest.fixture
def space(platform: Platform) -> Nested:
    """PASID 1 with a page that has been used."""
    made = nested(platform, PASID)
    made.map(IOVA, OLD)
    assert platform.read(IOVA, pasid=PASID) == page(OLD)
    return made


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_leaves_the_old_answer_permitted(
    platform: Platform, space: Nested, change: str
) -> None:
    CHANGES[change](space)
    assert platform.permitted(IOVA, pasid=PASID) == {page(OLD), page(NEW)}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", CASES)
def test_invalidation(platform: Platform, space: Nested, case: str, change: str) -> None:
    invalidate, sufficient = CASES[case]
    CHANGES[change](space)
    invalidate(platform, space, change)
    found = platform.judge(IOVA, page(OLD), pasid=PASID)
    if change in sufficient:
        assert FindingKind.STALE_USE not in {one.kind for one in found}
        assert platform.permitted(IOVA, pasid=PASID) == {page(NEW)}
    else:
        assert [one.kind for one in found] == [FindingKind.STALE_USE]
        assert platform.permitted(IOVA, pasid=PASID) == {page(OLD), page(NEW)}


Sequence = tuple[Callable[[Platform], None], ...]
INSUFFICIENT: dict[str, Sequence] = {
    "nothing": (),
    "the entry": (lambda p: pasid_entries(p, 1, pasid=PASID),),
    "its translations": (lambda p: pasid_iotlb(p, 2, pasid=PASID),),
    "the entry of another PASID": (
        lambda p: pasid_entries(p, 1, pasid=PASID + 1),
        lambda p: pasid_iotlb(p, 2, pasid=PASID),
    ),
    "the entry in another domain": (
        lambda p: pasid_entries(p, 1, pasid=PASID, domain=DOMAIN + 1),
        lambda p: pasid_iotlb(p, 2, pasid=PASID),
    ),
    "the entry, and another PASID's translations": (
        lambda p: pasid_entries(p, 1, pasid=PASID),
        lambda p: pasid_iotlb(p, 2, pasid=PASID + 1),
    ),
    "context entries and translations": (
        lambda p: contexts(p, "queue", GLOBAL),
        lambda p: iotlb(p, "queue", GLOBAL),
    ),
}
SUFFICIENT: dict[str, Sequence] = {
    "the entry, then its translations": (
        lambda p: pasid_entries(p, 1, pasid=PASID),
        lambda p: pasid_iotlb(p, 2, pasid=PASID),
    ),
    "the entries of the domain, then its translations": (
        lambda p: pasid_entries(p, 0),
        lambda p: iotlb(p, "queue", BY_DOMAIN),
    ),
    "all entries, then all translations": (
        lambda p: pasid_entries(p, 3),
        lambda p: iotlb(p, "queue", GLOBAL),
    ),
    "the entry, then any second-stage page": (
        lambda p: pasid_entries(p, 1, pasid=PASID),
        lambda p: iotlb(p, "queue", SELECTIVE, address=1 << 40),
    ),
}
"""Both are invalidations after a PASID entry has been given another first stage."""


@pytest.mark.parametrize("case", INSUFFICIENT | SUFFICIENT)
def test_another_first_stage(platform: Platform, space: Nested, case: str) -> None:
    other = nested(platform, PASID, ssptptr=space.second.root >> 12)
    moved = Nested(other.first, space.second)
    moved.first.map(IOVA, GUEST)
    space.second.map(GUEST, NEW)
    for table in moved.tables(IOVA):
        space.second.map(table, table)
    for invalidate in (INSUFFICIENT | SUFFICIENT)[case]:
        invalidate(platform)
    found = platform.judge(IOVA, page(OLD), pasid=PASID)
    expected = {page(NEW)} | ({page(OLD)} if case in INSUFFICIENT else set())
    assert (FindingKind.STALE_USE in {one.kind for one in found}) == (case in INSUFFICIENT)
    assert platform.permitted(IOVA, pasid=PASID) == expected


def sibling(platform: Platform, space: Nested) -> Nested:
    """Give PASID 2 a first stage of its own in the same domain, with the same page."""
    other = nested(platform, PASID + 1, ssptptr=space.second.root >> 12)
    made = Nested(other.first, space.second)
    made.map(IOVA, OLD)
    assert platform.read(IOVA, pasid=PASID + 1) == page(OLD)
    return made


def test_the_first_stage_of_a_pasid_is_its_own(platform: Platform, space: Nested) -> None:
    sibling(platform, space)
    first_leaf(space)
    assert platform.permitted(IOVA, pasid=PASID + 1) == {page(OLD)}
    pasid_iotlb(platform, 2, pasid=PASID + 1)
    assert platform.permitted(IOVA, pasid=PASID) == {page(OLD), page(NEW)}


def test_the_second_stage_is_the_domains(platform: Platform, space: Nested) -> None:
    """What one PASID's walk kept of it may answer the other."""
    sibling(platform, space)
    second_leaf(space)
    pasid_iotlb(platform, 2, pasid=PASID + 1)
    assert platform.permitted(IOVA, pasid=PASID + 1) == {page(OLD), page(NEW)}
    iotlb(platform, "queue", SELECTIVE, address=GUEST + IOVA)
    assert platform.permitted(IOVA, pasid=PASID) == {page(NEW)}
    assert platform.permitted(IOVA, pasid=PASID + 1) == {page(NEW)}


def test_caching_mode_keeps_what_the_second_stage_lacks(make_platform: MakePlatform) -> None:
    platform = make_platform(nest=1, cm=1)
    space = nested(platform, PASID)
    space.map(IOVA, OLD)
    space.second.unmap(GUEST + IOVA)
    absent = fault(Reason.SM_SS_NOT_PRESENT)
    assert platform.read(IOVA, pasid=PASID) == absent
    space.second.map(GUEST + IOVA, OLD)
    assert platform.permitted(IOVA, pasid=PASID) == {page(OLD), absent}
    pasid_iotlb(platform, 2, pasid=PASID)
    assert platform.permitted(IOVA, pasid=PASID) == {page(OLD), absent}
    iotlb(platform, "queue", SELECTIVE, address=GUEST + IOVA)
    assert platform.permitted(IOVA, pasid=PASID) == {page(OLD)}
