"""Made-up software for a VT-d unit: the same for a seed, sound where it says so, and harmless."""

from __future__ import annotations

from random import Random

import pytest

from decoders.events import AccessKind, Fault, Role, Store, Translation
from decoders.vtd import registers as vtd
from harness.generate.vtd import Generator
from harness.generate.vtd_edits import edited
from harness.generate.vtd_steps import Device, Scene
from harness.generate.vtd_tables import PAGE, TABLES_END, TABLES_START, Tables
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit

LEGACY = UnitConfig(0xD2008C222F0606, 0xF42, host_address_width=48)
SECOND_STAGE = UnitConfig(0xD2008C222F0606, 0x480080000F42, host_address_width=48)
FIRST_STAGE = UnitConfig(0x1D2008C222F0606, 0x880000000F42, host_address_width=48)
FIVE_LEVELS = UnitConfig(0x1D2008C222F0606 | 1 << 60, 0x880000000F42, host_address_width=48)
UNITS = {
    "legacy": LEGACY, "second-stage": SECOND_STAGE, "first-stage": FIRST_STAGE,
    "five-levels": FIVE_LEVELS,
}  # fmt: skip
SIDS = (0x20, 0x28, 0x200, 0x300)
POOL_START, POOL_PAGES = 0x3C_0000, 64
BOTH = (AccessKind.READ, AccessKind.WRITE)


def scene(config: UnitConfig, *avoided: str) -> Scene:
    devices = [Device(sid, 64, BOTH, 64) for sid in SIDS]
    return Scene(config, devices, POOL_START, POOL_PAGES, frozenset(avoided))


@pytest.fixture(params=UNITS)
def config(request: pytest.FixtureRequest) -> UnitConfig:
    return UNITS[request.param]


def running(tables: Tables) -> VtdUnit:
    """Return a unit with tables in force."""
    unit = VtdUnit(tables.config)
    for store in tables.stores:
        unit.store(store.address, store.size, store.value)
    unit.write_register(vtd.RTADDR.offset, 8, tables.root | tables.scalable << 10)
    unit.write_register(vtd.GCMD.offset, 4, 1 << 30)
    unit.write_register(vtd.GCMD.offset, 4, 1 << 31)
    return unit


def in_pool(outcome: object, iova: int) -> bool:
    assert isinstance(outcome, Translation)
    place = outcome.address | iova & outcome.mask
    return POOL_START <= place < POOL_START + POOL_PAGES * PAGE


@pytest.mark.parametrize("seed", range(15))
def test_a_sound_platform_translates_every_mapping_into_the_pool(
    config: UnitConfig, seed: int
) -> None:
    tables = Tables(config, SIDS, (POOL_START, POOL_PAGES), Random(seed))
    unit = running(tables)
    for place in tables.places:
        space = tables.spaces[place.space] if place.space >= 0 else None
        # A PASID other than 0 counts with ECAP.RPS only.
        if place.pasid and not config.ecap("rps"):
            continue
        for iova in space.iovas if space else [POOL_START]:
            for kind in BOTH:
                taken = unit.access(place.sid, None, iova, kind).taken
                assert in_pool(taken, iova), f"{place} {iova:#x} {kind.name}: {taken}"
    assert unit.findings() == []


def test_sequences_depend_on_the_seed_only(config: UnitConfig) -> None:
    one, same, other = (Generator(scene(config), Random(seed)).sequence(60) for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert len(one) == 60


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_edited_dma_cannot_reach_the_tables(config: UnitConfig, seed: int) -> None:
    random = Random(seed)
    tables = Tables(config, SIDS, (POOL_START, POOL_PAGES), random)
    unit = running(tables)
    for _ in range(150):
        spot = random.choice(tables.spots)
        for number, word in enumerate(edited(spot, tables, random)):
            unit.store(spot.address + 8 * number, 8, word)
        for place in tables.places:
            iovas = tables.spaces[place.space].iovas if place.space >= 0 else [POOL_START]
            for iova in random.sample(iovas, min(3, len(iovas))):
                taken = unit.access(place.sid, None, iova, AccessKind.WRITE).taken
                if isinstance(taken, Translation):
                    there = taken.address | iova & taken.mask
                    assert not TABLES_START <= there < TABLES_END, f"{spot} lets DMA to {there:#x}"


def test_violations_are_as_common_as_sound_edits() -> None:
    faults = translations = 0
    for seed in range(20):
        random = Random(seed)
        tables = Tables(SECOND_STAGE, SIDS, (POOL_START, POOL_PAGES), random)
        unit = running(tables)
        for spot in random.sample(tables.spots, 10):
            if spot.space < 0:
                continue
            for number, word in enumerate(edited(spot, tables, random)):
                unit.store(spot.address + 8 * number, 8, word)
            for place in tables.places:
                if place.space == spot.space:
                    taken = unit.access(place.sid, None, spot.iovas[0], AccessKind.WRITE).taken
                    faults += isinstance(taken, Fault)
                    translations += isinstance(taken, Translation)
    assert faults > 30 and translations > 30, f"{faults} faults, {translations} translations"


def test_known_crashes_are_kept_away_from() -> None:
    ids = ("wide-register-write", "wait-write-and-interrupt")
    wide = (vtd.FECTL.offset, vtd.IECTL.offset, vtd.IEADDR.offset)

    def dangerous(*avoided: str) -> int:
        found = 0
        for seed in range(30):
            for step in Generator(scene(SECOND_STAGE, *avoided), Random(seed)).sequence(80):
                found += any(w.size == 8 and w.offset in wide for w in step.writes)
                found += any(s.value & 0x3F == 0x35 for s in step.stores if is_descriptor(s))
        return found

    assert dangerous() > 0
    assert dangerous(*ids) == 0


def is_descriptor(store: Store) -> bool:
    return 0x1E_0000 <= store.address < 0x1E_1000 and not store.address % 16


def test_five_levels_are_used_where_the_unit_has_them() -> None:
    levels = {
        space.levels
        for seed in range(30)
        for space in Tables(FIVE_LEVELS, SIDS, (POOL_START, POOL_PAGES), Random(seed)).spaces
        if space.stage == Role.FIRST_STAGE
    }
    assert levels == {4, 5}
