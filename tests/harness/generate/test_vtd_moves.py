"""Moved tables translate as before, and what was there is not needed any more."""

from __future__ import annotations

from random import Random

import pytest

from decoders.events import Role, Translation
from decoders.vtd import registers as vtd
from harness.generate.vtd_moves import moved, moved_root
from harness.generate.vtd_tables import PAGE, Tables
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from tests.harness.generate.test_vtd import (
    BOTH,
    POOL_PAGES,
    POOL_START,
    SIDS,
    config,
    running,
)

__all__ = ["config"]


def landings(unit: VtdUnit, tables: Tables) -> list[object]:
    found: list[object] = []
    for place in tables.places:
        for iova in tables.spaces[place.space].iovas if place.space >= 0 else [POOL_START]:
            for kind in BOTH:
                taken = unit.access(place.sid, None, iova, kind).taken
                if isinstance(taken, Translation):
                    found.append(taken.address | iova & taken.mask)
                else:
                    found.append(taken)
    return found


def start_again(unit: VtdUnit, tables: Tables) -> None:
    unit.reset()
    unit.write_register(vtd.RTADDR.offset, 8, tables.root | tables.scalable << 10)
    unit.write_register(vtd.GCMD.offset, 4, 1 << 30)
    unit.write_register(vtd.GCMD.offset, 4, 1 << 31)


@pytest.mark.parametrize("seed", range(4))
def test_tables_that_were_moved_translate_as_before(config: UnitConfig, seed: int) -> None:
    tables = Tables(config, SIDS, (POOL_START, POOL_PAGES), Random(seed))
    now = {spot.address: spot.words for spot in tables.spots}
    unit = running(tables)
    before = landings(unit, tables)
    left: set[int] = set()
    stores = []
    for spot in [one for one in tables.spots if not one.leaf and one.level <= 2]:
        done = moved(spot, tables, now)
        if done and spot.role in (Role.SECOND_STAGE, Role.FIRST_STAGE):
            left.add(spot.words[0] & (1 << 52) - PAGE)
        stores += done
    left.add(tables.root)
    stores += moved_root(tables, now)
    assert stores and left
    for store in stores:
        unit.store(store.address, store.size, store.value)
    for page in left:
        for at in range(page, page + PAGE, 8):
            unit.store(at, 8, 0)
    start_again(unit, tables)
    assert landings(unit, tables) == before


def test_an_entry_that_is_not_sound_leads_to_nothing_that_could_be_moved() -> None:
    sound = UnitConfig(0xD2008C222F0606, 0xF42, host_address_width=48)
    tables = Tables(sound, SIDS, (POOL_START, POOL_PAGES), Random(1))
    spot = next(one for one in tables.spots if one.role == Role.ROOT)
    assert moved(spot, tables, {spot.address: (0, 0)}) == []
