"""What is kept of a unit's caches is bounded, and both engines forget the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from time import perf_counter

import pytest

from decoders.events import Outcome
from decoders.vtd.descriptors import PasidCacheInvalidation
from harness.findings import FindingKind
from harness.model import caches, unit
from harness.model.unit import VtdUnit
from tests.writers.interrupts import Interrupts, sent
from tests.writers.invalidations import GLOBAL, SELECTIVE, iotlb
from tests.writers.platform import DEVICE, READ, Platform, descriptor, page

OTHER, OTHER_DOMAIN, PASID = 0x0020, 9, 1
IOVA = 0x1000
CHANGED = 500
"""Entry of a table."""


def kinds(platform: Platform, outcome: Outcome) -> list[FindingKind]:
    return [finding.kind for finding in platform.judge(IOVA, outcome)]


# -- dropped entries ------------------------------------------------------------------------------


def test_every_way_of_a_dropped_page_is_remembered(platform: Platform) -> None:
    space = platform.legacy()
    targets = [0x10000 * number for number in range(1, caches.WAYS + 2)]
    for target in targets:
        space.map(IOVA, target)
        platform.read(IOVA)
    space.map(IOVA, 0x90000)
    iotlb(platform, "register", GLOBAL)
    number = platform.unit.event
    for target in targets[1:]:
        (finding,) = platform.judge(IOVA, page(target))
        assert finding.kind == FindingKind.STALE_AFTER_INVALIDATION
        assert finding.covered_by == number
    # The oldest had to go before.
    assert kinds(platform, page(targets[0])) == [FindingKind.DIVERGENCE]


# -- several entries of one key -------------------------------------------------------------------


def test_the_oldest_of_too_many_context_entries_is_forgotten(platform: Platform) -> None:
    for domain in range(1, caches.WAYS + 2):
        platform.legacy(domain=domain).map(IOVA, domain << 16)
        platform.read(IOVA)
    kept = range(2, caches.WAYS + 2)
    assert platform.permitted(IOVA) == {page(domain << 16) for domain in kept}


def test_the_oldest_of_too_many_pasid_entries_is_forgotten(platform: Platform) -> None:
    for domain in range(1, caches.WAYS + 2):
        platform.first_stage(domain=domain).map(IOVA, domain << 16)
        platform.read(IOVA)
    kept = range(2, caches.WAYS + 2)
    assert platform.permitted(IOVA) == {page(domain << 16) for domain in kept}


def test_the_oldest_of_too_many_interrupt_entries_is_forgotten(platform: Platform) -> None:
    interrupts = Interrupts(platform)
    vectors = range(0x41, 0x41 + caches.WAYS + 1)
    for vector in vectors:
        interrupts.entry(vector=vector)
        interrupts.send()
    assert interrupts.permitted() == {sent(vector) for vector in vectors[1:]}


# -- table pages ----------------------------------------------------------------------------------


def aliased(platform: Platform, regions: int) -> int:
    """Let many regions share one page of leaves, use and unlink them all; return the page."""
    space = platform.legacy()
    leaves = space.entry(0) & -0x1000
    space.map(IOVA, 0x10000)
    for region in range(regions):
        at = space.entry(region << 21, 2)
        platform.store(at, space.value(leaves))
        platform.read((region << 21) + IOVA)
        platform.store(at, 0)
    return leaves


@pytest.mark.parametrize("regions", [1, caches.TABLE_USERS])
def test_a_page_of_a_few_regions_is_watched(platform: Platform, regions: int) -> None:
    leaves = aliased(platform, regions)
    platform.unit.findings()
    platform.store(leaves, 0x1234)
    assert [f.kind for f in platform.unit.findings()] == [FindingKind.PAGE_REUSE]


def test_a_page_of_too_many_regions_is_not_watched(platform: Platform) -> None:
    leaves = aliased(platform, caches.TABLE_USERS + 1)
    platform.unit.findings()
    platform.store(leaves, 0x1234)
    assert platform.unit.findings() == []
    # With one of them forgotten it is.
    iotlb(platform, "register", SELECTIVE, address=0)
    platform.store(leaves, 0x1234)
    assert [f.kind for f in platform.unit.findings()] == [FindingKind.PAGE_REUSE]


def looped(platform: Platform) -> int:
    """Give the device one table whose every entry leads to the table; return the table."""
    table = platform.page()
    platform.unit.snapshot(table, (table | 3).to_bytes(8, "little") * 512)
    platform.legacy(root=table)
    return table


def test_stores_to_a_page_everything_leads_to_are_cheap(platform: Platform) -> None:
    count = 800 if isinstance(platform.unit, VtdUnit) else 8000
    table = looped(platform)
    for number in range(count):
        platform.read(number << 21)
    start = perf_counter()
    for _ in range(count):
        platform.store(table + 0xFF8, table | 3)
    assert perf_counter() - start < 1


# -- entries --------------------------------------------------------------------------------------


@pytest.fixture
def entries(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many entries a cache keeps; the model is given a smaller number, to be quick."""
    if isinstance(platform.unit, VtdUnit):
        monkeypatch.setattr(caches, "ENTRIES", 3000)
    return caches.ENTRIES


def regions(count: int) -> Iterator[int]:
    """Give different 2 MiB regions above 4 GiB that entry CHANGED of a table is no part of."""
    numbers = (n for n in itertools.count(2048) if n & 511 != CHANGED and n >> 9 & 511 != CHANGED)
    return (number << 21 for number in itertools.islice(numbers, count))


def test_one_translation_too_many_empties_the_iotlb(platform: Platform, entries: int) -> None:
    table = looped(platform)
    iova = CHANGED << 12
    old = platform.read(iova)
    platform.store(table + 8 * CHANGED, 0x10003)
    both = {page(0x10000), old}
    assert platform.permitted(iova) == both
    others = regions(entries - 1)
    for region in itertools.islice(others, entries - 2):
        platform.unit.access(DEVICE, None, region, READ)
    assert platform.permitted(iova) == both
    platform.unit.access(DEVICE, None, next(others), READ)
    assert platform.permitted(iova) == {page(0x10000)}


def test_one_table_entry_too_many_empties_their_cache(platform: Platform, entries: int) -> None:
    looped(platform)
    space = platform.legacy(OTHER, domain=OTHER_DOMAIN)
    space.map(IOVA, 0x10000)
    leaves = space.entry(0) & -0x1000
    platform.read(IOVA, sid=OTHER)
    above = space.entry(0, 2)
    # Three entries lead to that translation, and as many to one of each region, mostly shared.
    kept = {(shift, 0) for shift in (21, 30, 39)}
    last = 0
    for region in regions(entries):
        new = {(shift, region >> shift | 1 << 48) for shift in (21, 30, 39)}
        if len(kept) + len(new - kept) > entries:
            break
        kept |= new
        platform.unit.access(DEVICE, None, region, READ)
        last = region
    platform.store(above, 0)
    platform.store(leaves, 0x1234)
    assert [found.kind for found in platform.unit.findings()] == [FindingKind.PAGE_REUSE]
    platform.store(above, leaves | 3)
    platform.store(leaves, 0x1234)
    platform.store(above, 0)
    platform.unit.access(DEVICE, None, (1 << 46) + last, READ)
    platform.store(leaves, 0x4321)
    assert platform.unit.findings() == []


# -- sources --------------------------------------------------------------------------------------


@pytest.fixture
def sources(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return of how many sources is known under which tags they walked; of fewer in the model."""
    if isinstance(platform.unit, VtdUnit):
        monkeypatch.setattr(unit, "SOURCES_LIMIT", 500)
    return unit.SOURCES_LIMIT


def test_one_source_too_many_makes_it_forget_the_tags_of_all(
    platform: Platform, sources: int
) -> None:
    platform.second_stage(PASID, domain=OTHER_DOMAIN).map(IOVA, 0x10000)
    old = platform.read(IOVA, pasid=PASID)
    space = platform.second_stage(PASID)
    space.map(IOVA, 0x20000)
    for pasid in range(64, 128):
        platform.second_stage(pasid, root=space.root)
    # Every part of the directory leads to the same 64 entries.
    directory = platform.directories[DEVICE]
    for part in range(2, (sources >> 6) + 2):
        platform.store(directory + 8 * part, platform.load(directory + 8))
    platform.start_queue(wide=True)
    platform.submit(descriptor(PasidCacheInvalidation, g=3))

    def kinds_of_old() -> list[FindingKind]:
        return [found.kind for found in platform.judge(IOVA, old, pasid=PASID)]

    assert kinds_of_old() == [FindingKind.STALE_AFTER_INVALIDATION]
    for pasid in range(64, 64 + sources - 1):
        platform.unit.access(DEVICE, pasid, IOVA, READ)
    assert kinds_of_old() == [FindingKind.STALE_AFTER_INVALIDATION]
    platform.unit.access(DEVICE, 64 + sources - 1, IOVA, READ)
    assert kinds_of_old() == [FindingKind.DIVERGENCE]
