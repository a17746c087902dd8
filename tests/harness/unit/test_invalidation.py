"""Each invalidation drops what it must and nothing else (VT-d 6.5.1, 6.5.2).

Tables are used, then changed: both answers are permitted until an invalidation covers the old one.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from decoders.events import Outcome, Translation
from decoders.fields import build
from decoders.vtd import registers as vtd
from decoders.vtd.registers import IotlbRegister, Iva
from decoders.vtd.tables import ContextEntry
from tests.harness.unit.conftest import MakePlatform
from tests.writers.invalidations import (
    BY_DOMAIN,
    GLOBAL,
    SELECTIVE,
    WAYS,
    contexts,
    iotlb,
    pages,
    pasid_entries,
    pasid_iotlb,
)
from tests.writers.platform import AW, DEVICE, DOMAIN, Platform, Space, page, quadword

OTHER = 0x0020
OTHER_DOMAIN = 9
OLD, NEW = 0x10_0000, 0x20_0000
PAGES = tuple(0x1000 * number for number in range(12))
MEBI = 1 << 20


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def remap(
    platform: Platform, space: Space, sid: int, pasid: int | None, iovas: Iterable[int] = PAGES
) -> None:
    """Map pages, use them, and map them elsewhere without telling the unit."""
    for iova in iovas:
        space.map(iova, OLD + iova)
        assert platform.read(iova, sid=sid, pasid=pasid) == page(OLD + iova)
        space.map(iova, NEW + iova)


def stale(
    platform: Platform, sid: int = DEVICE, pasid: int | None = None, iovas: Iterable[int] = PAGES
) -> list[int]:
    """Return the pages whose old translation is still permitted; the new one always is."""
    found = []
    for iova in iovas:
        permitted = platform.permitted(iova, sid=sid, pasid=pasid)
        assert page(NEW + iova) in permitted
        if permitted - {page(NEW + iova)}:
            assert permitted == {page(NEW + iova), page(OLD + iova)}
            found.append(iova)
    return found


@pytest.fixture
def two_domains(platform: Platform) -> Platform:
    """Two devices in a domain each, every page remapped in both."""
    remap(platform, platform.legacy(DEVICE, domain=DOMAIN), DEVICE, None)
    remap(platform, platform.legacy(OTHER, domain=OTHER_DOMAIN), OTHER, None)
    return platform


# -- IOTLB, second stage -------------------------------------------------------------------------


def test_without_invalidation_both_are_permitted(two_domains: Platform) -> None:
    assert stale(two_domains) == list(PAGES)
    assert stale(two_domains, OTHER) == list(PAGES)


def test_iotlb_global(two_domains: Platform, way: str) -> None:
    iotlb(two_domains, way, GLOBAL)
    assert stale(two_domains) == stale(two_domains, OTHER) == []


def test_iotlb_of_a_domain(two_domains: Platform, way: str) -> None:
    iotlb(two_domains, way, BY_DOMAIN, domain=DOMAIN)
    assert stale(two_domains) == []
    assert stale(two_domains, OTHER) == list(PAGES)


def test_iotlb_of_a_domain_nobody_is_in(two_domains: Platform, way: str) -> None:
    iotlb(two_domains, way, BY_DOMAIN, domain=DOMAIN + 1)
    assert stale(two_domains) == stale(two_domains, OTHER) == list(PAGES)


@pytest.mark.parametrize(
    ("address", "am", "covered"),
    [
        (0x0000, 0, range(1)),
        (0x5000, 0, range(5, 6)),
        (0x4000, 1, range(4, 6)),
        (0x4000, 2, range(4, 8)),
        (0x0000, 3, range(8)),
        (0x0000, 4, range(12)),
        (0x8000, 2, range(8, 12)),
        (0x100000, 8, range(0)),
        # Address bits below the size are ignored.
        (0x6000, 2, range(4, 8)),
        (0x5000, 18, range(12)),
    ],
)
def test_iotlb_of_pages(
    two_domains: Platform, way: str, address: int, am: int, covered: range
) -> None:
    iotlb(two_domains, way, SELECTIVE, domain=DOMAIN, address=address, am=am)
    assert stale(two_domains) == [iova for iova in PAGES if iova >> 12 not in covered]
    assert stale(two_domains, OTHER) == list(PAGES)


def test_an_address_mask_beyond_the_limit_invalidates_nothing(make_platform: MakePlatform) -> None:
    platform = make_platform(mamv=3)
    remap(platform, platform.legacy(), DEVICE, None)
    platform.program(vtd.IVA, quadword(Iva, am=4))
    platform.program(vtd.IOTLB, quadword(IotlbRegister, ivt=1, iirg=SELECTIVE, did=DOMAIN))
    assert platform.field(vtd.IOTLB, "ivt") == 0
    assert platform.field(vtd.IOTLB, "iaig") == 0
    assert stale(platform) == list(PAGES)
    pages(platform, 0, am=3)
    assert platform.field(vtd.IOTLB, "iaig") == SELECTIVE
    assert stale(platform) == [0x8000, 0x9000, 0xA000, 0xB000]


@pytest.mark.parametrize("level", [2, 3])
def test_a_page_inside_of_a_large_page_drops_the_whole(platform: Platform, level: int) -> None:
    size = 1 << 12 + 9 * (level - 1)
    space = platform.legacy()
    space.map(0, size, level)
    inside = size - 0x1000
    old, new = Translation(size, size - 1), Translation(2 * size, size - 1)
    assert platform.read(0) == old
    space.map(0, 2 * size, level)
    pages(platform, size)
    assert platform.permitted(inside) == {old, new}
    pages(platform, inside)
    assert platform.permitted(0) == {new}


def test_translations_belong_to_the_domain_not_to_the_device(platform: Platform, way: str) -> None:
    space = platform.legacy(DEVICE)
    platform.context(OTHER, ssptptr=space.root >> 12)
    remap(platform, space, DEVICE, None)
    assert stale(platform, OTHER) == list(PAGES)
    iotlb(platform, way, BY_DOMAIN)
    assert stale(platform, OTHER) == []


# -- paging-structure caches ---------------------------------------------------------------------


def relinked(platform: Platform, space: Space, level: int, pasid: int | None = None) -> None:
    """Map a page, use it, and hang another table with another mapping in at a level."""
    space.map(0x1000, OLD)
    assert platform.read(0x1000, pasid=pasid) == page(OLD)
    at = space.entry(0x1000, level)
    fresh = Space(platform, space.stage, platform.page(), level - 1)
    fresh.map(0x1000, NEW)
    platform.store(at, space.value(fresh.root))


@pytest.mark.parametrize("level", [2, 3, 4])
def test_table_entries_survive_an_invalidation_with_the_leaf_hint(
    platform: Platform, way: str, level: int
) -> None:
    relinked(platform, platform.legacy(), level)
    assert platform.permitted(0x1000) == {page(OLD), page(NEW)}
    iotlb(platform, way, SELECTIVE, address=0x1000, ih=1)
    assert platform.permitted(0x1000) == {page(OLD), page(NEW)}
    iotlb(platform, way, SELECTIVE, address=0x1000, ih=0)
    assert platform.permitted(0x1000) == {page(NEW)}


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_page_without_the_hint_drops_the_table_entries_above_it(
    platform: Platform, way: str, level: int
) -> None:
    relinked(platform, platform.legacy(), level)
    region = 1 << 12 + 9 * (level - 1)
    iotlb(platform, way, SELECTIVE, address=0x1000, ih=1)
    for address in (region, *([region - 0x1000] if level > 2 else [])):
        # What level 2 says about the page itself is not covered from outside of its 2 MiB.
        iotlb(platform, way, SELECTIVE, address=address)
        assert platform.permitted(0x1000) == {page(OLD), page(NEW)}
    iotlb(platform, way, SELECTIVE, address=2 * MEBI - 0x1000)
    assert platform.permitted(0x1000) == {page(NEW)}


@pytest.mark.parametrize("g", [GLOBAL, BY_DOMAIN])
def test_coarser_invalidations_drop_table_entries(platform: Platform, way: str, g: int) -> None:
    relinked(platform, platform.legacy(), 3)
    iotlb(platform, way, g)
    assert platform.permitted(0x1000) == {page(NEW)}


# -- context cache -------------------------------------------------------------------------------


def moved(platform: Platform, sid: int, domain: int, new_domain: int) -> tuple[Outcome, Outcome]:
    """Use a device in one domain, then put it into another; return both answers."""
    before, after = 0x10_0000 + sid * 0x1000, 0x20_0000 + sid * 0x1000
    platform.legacy(sid, domain=domain).map(0x1000, before)
    assert platform.read(0x1000, sid=sid) == page(before)
    platform.legacy(sid, domain=new_domain).map(0x1000, after)
    assert platform.permitted(0x1000, sid=sid) == {page(before), page(after)}
    return page(before), page(after)


def old_context_permitted(platform: Platform, sid: int) -> bool:
    return len(platform.permitted(0x1000, sid=sid)) == 2


def test_contexts_global(platform: Platform, way: str) -> None:
    for number, sid in enumerate((DEVICE, OTHER, 0x1200)):
        moved(platform, sid, 10 + number, 20 + number)
    contexts(platform, way, GLOBAL)
    assert not any(old_context_permitted(platform, sid) for sid in (DEVICE, OTHER, 0x1200))


def test_contexts_of_a_domain_are_those_that_were_cached_in_it(
    platform: Platform, way: str
) -> None:
    moved(platform, DEVICE, 10, 20)
    moved(platform, OTHER, 11, 21)
    contexts(platform, way, BY_DOMAIN, domain=20)
    assert old_context_permitted(platform, DEVICE)
    contexts(platform, way, BY_DOMAIN, domain=10)
    assert not old_context_permitted(platform, DEVICE)
    assert old_context_permitted(platform, OTHER)


@pytest.mark.parametrize(
    ("fm", "selected"),
    [
        (0, {0x1A}),
        (1, {0x1A, 0x1E}),
        (2, {0x18, 0x1A, 0x1C, 0x1E}),
        (3, {0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F}),
    ],
)
def test_contexts_of_a_device_by_function_mask(
    make_platform: MakePlatform, way: str, fm: int, selected: set[int]
) -> None:
    # QEMU takes no notice of the domain, so one invalidation reaches contexts of many.
    platform = make_platform(dialect="qemu")
    sids = [*range(0x18, 0x20), 0x12, 0x11A]
    for sid in sids:
        moved(platform, sid, 0x100 + sid, 0x200 + sid)
    contexts(platform, way, SELECTIVE, domain=0x11A, sid=0x1A, fm=fm)
    dropped = {sid for sid in sids if not old_context_permitted(platform, sid)}
    assert dropped == selected


def test_contexts_of_a_device_are_those_that_were_cached_in_the_domain(
    platform: Platform, way: str
) -> None:
    moved(platform, DEVICE, 10, 20)
    for domain, left in ((20, True), (0, True), (10, False)):
        contexts(platform, way, SELECTIVE, domain=domain)
        assert old_context_permitted(platform, DEVICE) == left


def test_a_context_needs_both_invalidations_within_a_domain(platform: Platform, way: str) -> None:
    moved(platform, DEVICE, DOMAIN, DOMAIN)
    contexts(platform, way, SELECTIVE)
    assert old_context_permitted(platform, DEVICE)
    iotlb(platform, way, BY_DOMAIN)
    assert not old_context_permitted(platform, DEVICE)


def test_the_order_matters_when_the_device_keeps_working(platform: Platform, way: str) -> None:
    moved(platform, DEVICE, DOMAIN, DOMAIN)
    iotlb(platform, way, BY_DOMAIN)
    assert old_context_permitted(platform, DEVICE)
    contexts(platform, way, SELECTIVE)
    assert not old_context_permitted(platform, DEVICE)


@pytest.mark.parametrize("g", [BY_DOMAIN, SELECTIVE])
def test_scalable_contexts_go_with_any_domain(platform: Platform, g: int) -> None:
    space = platform.first_stage()
    space.map(0x1000, OLD)
    assert platform.read(0x1000) == page(OLD)
    at = platform.scalable_context(p=0)
    assert len(platform.permitted(0x1000)) == 2
    contexts(platform, "queue", g, domain=DOMAIN + 1)
    assert len(platform.permitted(0x1000)) == 1
    assert platform.load(at) & 1 == 0


# -- PASID cache ---------------------------------------------------------------------------------


def repointed(platform: Platform, pasid: int, domain: int) -> None:
    """Use a PASID, then give it other tables in another domain."""
    platform.first_stage(pasid, domain=domain).map(0x1000, OLD)
    assert platform.read(0x1000, pasid=pasid) == page(OLD)
    platform.first_stage(pasid, domain=domain + 0x100).map(0x1000, NEW)
    assert platform.permitted(0x1000, pasid=pasid) == {page(OLD), page(NEW)}


def old_pasids(platform: Platform, pasids: Iterable[int]) -> list[int]:
    return [pasid for pasid in pasids if len(platform.permitted(0x1000, pasid=pasid)) == 2]


@pytest.fixture
def four_pasids(platform: Platform) -> Platform:
    """PASIDs 1 and 2 in domain 10, 3 and 4 in domain 11, all given new tables."""
    for pasid, domain in ((1, 10), (2, 10), (3, 11), (4, 11)):
        repointed(platform, pasid, domain)
    return platform


@pytest.mark.parametrize(
    ("g", "domain", "pasid", "left"),
    [
        (0, 10, 0, [3, 4]),
        (0, 11, 0, [1, 2]),
        (0, 12, 0, [1, 2, 3, 4]),
        (1, 10, 1, [2, 3, 4]),
        (1, 11, 1, [1, 2, 3, 4]),
        (1, 11, 4, [1, 2, 3]),
        (3, 0, 0, []),
    ],
)
def test_pasid_cache(
    four_pasids: Platform, g: int, domain: int, pasid: int, left: list[int]
) -> None:
    pasid_entries(four_pasids, g, domain=domain, pasid=pasid)
    assert old_pasids(four_pasids, (1, 2, 3, 4)) == left


def test_a_pasid_entry_needs_both_invalidations_within_a_domain(platform: Platform) -> None:
    platform.first_stage(1).map(0x1000, OLD)
    assert platform.read(0x1000, pasid=1) == page(OLD)
    platform.first_stage(1).map(0x1000, NEW)
    pasid_entries(platform, 1, pasid=1)
    assert platform.permitted(0x1000, pasid=1) == {page(OLD), page(NEW)}
    pasid_iotlb(platform, 2, pasid=1)
    assert platform.permitted(0x1000, pasid=1) == {page(NEW)}


# -- PASID-based IOTLB ---------------------------------------------------------------------------


@pytest.fixture
def first_stages(platform: Platform) -> Platform:
    """PASIDs 1 and 2 of one domain, every page remapped in both."""
    for pasid in (1, 2):
        remap(platform, platform.first_stage(pasid), DEVICE, pasid)
    return platform


def test_all_of_a_pasid(first_stages: Platform) -> None:
    pasid_iotlb(first_stages, 2, pasid=1)
    assert stale(first_stages, pasid=1) == []
    assert stale(first_stages, pasid=2) == list(PAGES)


def test_all_of_a_pasid_in_another_domain(first_stages: Platform) -> None:
    pasid_iotlb(first_stages, 2, domain=DOMAIN + 1, pasid=1)
    assert stale(first_stages, pasid=1) == list(PAGES)


@pytest.mark.parametrize(
    ("address", "am", "covered"),
    [(0x5000, 0, range(5, 6)), (0x4000, 2, range(4, 8)), (0x0000, 4, range(12))],
)
def test_pages_of_a_pasid(first_stages: Platform, address: int, am: int, covered: range) -> None:
    pasid_iotlb(first_stages, 3, pasid=1, address=address, am=am)
    assert stale(first_stages, pasid=1) == [i for i in PAGES if i >> 12 not in covered]
    assert stale(first_stages, pasid=2) == list(PAGES)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_the_leaf_hint_of_a_pasid(platform: Platform, level: int) -> None:
    relinked(platform, platform.first_stage(1), level, pasid=1)
    pasid_iotlb(platform, 3, pasid=1, address=0x1000, ih=1)
    assert platform.permitted(0x1000, pasid=1) == {page(OLD), page(NEW)}
    pasid_iotlb(platform, 3, pasid=1, address=0x1000)
    assert platform.permitted(0x1000, pasid=1) == {page(NEW)}


def test_all_of_a_pasid_drops_table_entries(platform: Platform) -> None:
    relinked(platform, platform.first_stage(1), 3, pasid=1)
    pasid_iotlb(platform, 2, pasid=1)
    assert platform.permitted(0x1000, pasid=1) == {page(NEW)}


def test_a_domain_includes_its_first_stages(first_stages: Platform) -> None:
    iotlb(first_stages, "queue", BY_DOMAIN)
    assert stale(first_stages, pasid=1) == stale(first_stages, pasid=2) == []


def test_second_stage_pages_include_every_first_stage_of_the_domain(
    first_stages: Platform,
) -> None:
    """VT-d 6.5.2: a page-selective invalidation spares no entry that a first stage gave."""
    remap(first_stages, first_stages.first_stage(3, domain=DOMAIN + 1), DEVICE, 3)
    iotlb(first_stages, "queue", SELECTIVE, address=0x8000_0000, ih=1)
    assert stale(first_stages, pasid=1) == stale(first_stages, pasid=2) == []
    assert stale(first_stages, pasid=3) == list(PAGES)


def test_a_pasid_does_not_include_second_stages(platform: Platform) -> None:
    remap(platform, platform.second_stage(1), DEVICE, 1)
    pasid_iotlb(platform, 2, pasid=1)
    assert stale(platform, pasid=1) == list(PAGES)
    iotlb(platform, "queue", BY_DOMAIN)
    assert stale(platform, pasid=1) == []


# -- what else forgets ---------------------------------------------------------------------------


@pytest.mark.parametrize(("implied", "left"), [(1, []), (0, list(PAGES))])
def test_setting_the_root_table_invalidates_with_the_capability(
    make_platform: MakePlatform, implied: int, left: list[int]
) -> None:
    platform = make_platform(esrtps=implied)
    remap(platform, platform.legacy(), DEVICE, None)
    platform.set_root(platform.root, 0)
    assert stale(platform) == left


def test_a_reset_forgets(two_domains: Platform) -> None:
    two_domains.unit.reset()
    two_domains.levels_of_command = 0
    two_domains.set_root(two_domains.root, 0)
    two_domains.command(te=1)
    assert stale(two_domains) == []


def test_disabling_translation_does_not_forget(two_domains: Platform) -> None:
    two_domains.command(te=0)
    two_domains.command(te=1)
    assert stale(two_domains) == list(PAGES)


def test_a_context_entry_of_the_other_mode_means_nothing(platform: Platform) -> None:
    platform.legacy().map(0x1000, OLD)
    assert platform.read(0x1000) == page(OLD)
    legacy = build(ContextEntry, p=1, aw=AW[4], did=DOMAIN)
    assert platform.load(platform.context_of()) & 1 == legacy.p
    platform.set_root(platform.page(), 1)
    assert len(platform.permitted(0x1000)) == 1


# -- registers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("g", [GLOBAL, BY_DOMAIN, SELECTIVE])
def test_the_registers_answer_with_what_was_done(platform: Platform, g: int) -> None:
    contexts(platform, "register", g)
    iotlb(platform, "register", g)
    assert (platform.field(vtd.CCMD, "icc"), platform.field(vtd.CCMD, "caig")) == (0, g)
    assert (platform.field(vtd.IOTLB, "ivt"), platform.field(vtd.IOTLB, "iaig")) == (0, g)


def test_the_reserved_granularity_does_nothing(two_domains: Platform) -> None:
    contexts(two_domains, "register", 0)
    iotlb(two_domains, "register", 0)
    assert (two_domains.field(vtd.CCMD, "icc"), two_domains.field(vtd.CCMD, "caig")) == (0, 0)
    assert (two_domains.field(vtd.IOTLB, "ivt"), two_domains.field(vtd.IOTLB, "iaig")) == (0, 0)
    assert stale(two_domains) == list(PAGES)


def test_the_registers_do_nothing_while_the_queue_is_enabled(two_domains: Platform) -> None:
    two_domains.start_queue()
    contexts(two_domains, "register", GLOBAL)
    iotlb(two_domains, "register", GLOBAL)
    assert (two_domains.field(vtd.CCMD, "icc"), two_domains.field(vtd.CCMD, "caig")) == (1, 0)
    assert (two_domains.field(vtd.IOTLB, "ivt"), two_domains.field(vtd.IOTLB, "iaig")) == (1, 0)
    assert stale(two_domains) == list(PAGES)


@pytest.mark.parametrize("upper_first", [False, True])
def test_a_command_starts_with_its_upper_half(two_domains: Platform, upper_first: bool) -> None:
    offset = two_domains.place(vtd.IOTLB)
    value = quadword(IotlbRegister, ivt=1, iirg=BY_DOMAIN, did=DOMAIN)
    halves = [(offset, value & 0xFFFFFFFF), (offset + 4, value >> 32)]
    first, second = reversed(halves) if upper_first else halves
    two_domains.unit.write_register(first[0], 4, first[1])
    assert stale(two_domains) == ([] if upper_first else list(PAGES))
    two_domains.unit.write_register(second[0], 4, second[1])
    assert stale(two_domains) == []
