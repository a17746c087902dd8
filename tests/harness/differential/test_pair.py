"""Model and native in step: whatever one of them says alone is found, with its event."""

from __future__ import annotations

from typing import Any

import pytest

from decoders.events import (
    Access,
    AccessKind,
    Event,
    Fault,
    FaultRecord,
    Features,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Snapshot,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from harness.differential.pair import Disagreement, DisagreementError, Pair, compare, pair_for
from harness.differential.pair_virtio import VirtioPair
from harness.differential.pair_vtd import VtdPair
from harness.memory import MemoryBudgetError
from harness.model.config import UnitConfig
from harness.model.virtio.config import DEFAULT_CONFIG, DEFAULT_FEATURES, VirtioConfig
from harness.native import available
from tests.writers import virtio_iommu as write

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

VTD = UnitConfig(0x22 << 24 | 0x02 << 8 | 38 << 16, 0x0F << 8 | 2)
VIRTIO = VirtioConfig(DEFAULT_FEATURES, DEFAULT_CONFIG, True)
LIFE: tuple[Event, ...] = (
    Reset(),
    Store(0x1000, 8, 0x2001),
    Store(0x2000, 8, 0x3001),
    Store(0x2008, 8, 0x101),
    Store(0x3000, 8, 0x4003),
    Store(0x4000, 8, 0x5003),
    Store(0x5008, 8, 0x9003),
    RegWrite(vtd.RTADDR.offset, 8, 0x1000),
    RegWrite(vtd.GCMD.offset, 4, 1 << 30),
    RegWrite(vtd.GCMD.offset, 4, 1 << 31),
    RegRead(vtd.GSTS.offset, 4, None),
    Access(0, None, 0x1000, AccessKind.READ, None),
    Access(0, None, 0x2000, AccessKind.READ, None),
)
"""The second access faults, which leaves a record."""


def led(pair: Pair, events: tuple[Event, ...]) -> list[Any]:
    """Return what a pair answers to events."""
    return [pair.apply(event) for event in events]


def test_both_translate_and_fault_alike() -> None:
    pair = VtdPair(VTD)
    *_, status, hit, miss = led(pair, LIFE)
    assert status == 0xC000_0000
    assert hit.taken == Translation(0x9000, 0xFFF), hit
    assert isinstance(miss.taken, Fault), miss
    assert [type(seen) for seen in pair.emitted] == [FaultRecord]
    assert compare(VTD, LIFE) is None


def test_what_was_seen_anyway_is_not_taken_over_again() -> None:
    pair = VtdPair(VTD)
    led(pair, LIFE)
    (record,) = pair.emitted
    pair.apply(record)
    assert pair.emitted == [record], "it was adopted although the unit itself did it"


def test_what_neither_did_is_taken_over() -> None:
    pair = VtdPair(VTD)
    led(pair, LIFE[:-1])
    record = FaultRecord(0, 0x7000, 6 << 32)
    pair.apply(record)
    (low,) = led(pair, (RegRead(0x220, 8, None),))
    assert low == 0x7000


@pytest.mark.parametrize(
    ("damage", "event", "what"),
    [
        (Store(0x5008, 8, 0xA003), 11, "permitted outcomes"),
        (RegWrite(vtd.FSTS.offset, 4, 1), 13, ""),
        (RegWrite(vtd.IQT.offset, 8, 0x20), 13, "register IQT"),
        (Store(0x7000, 8, 7), 13, "memory at 0x7000"),
    ],
)
def test_a_difference_is_found_where_it_shows_first(damage: Any, event: int, what: str) -> None:
    pair = VtdPair(VTD)
    led(pair, LIFE[:7])
    alone = pair.native
    if isinstance(damage, Store):
        pair.model.store(damage.address & -0x1000, 8, 0)
        alone.store(damage.address, damage.size, damage.value)
    else:
        alone.write_register(damage.offset, damage.size, damage.value)
    try:
        led(pair, LIFE[7:])
        pair.compare()
    except DisagreementError as error:
        found: Disagreement | None = error.disagreement
    else:
        found = None
    if not what:
        assert found is None, "nothing differs"
        return
    assert found is not None, f"nobody noticed {damage}"
    assert (found.event, found.what) == (event, what)
    assert str(found).splitlines()[0] == f"event {event}, {what}:"


def test_a_budget_ends_a_life_that_both_agree_about() -> None:
    config = UnitConfig(VTD.capability, VTD.extended_capability, page_budget=3)
    events = [Snapshot(page << 12, 0, 0, b"\1") for page in range(5)]  # type: ignore[arg-type]
    assert compare(config, events) is None
    pair = pair_for(config)
    with pytest.raises(MemoryBudgetError):
        led(pair, tuple(events))
    assert pair.events == 3


def test_a_budget_of_one_alone_is_a_difference() -> None:
    pair = VtdPair(UnitConfig(VTD.capability, VTD.extended_capability, page_budget=3))
    pair.native.store(0xF000, 8, 1)
    with pytest.raises(DisagreementError, match="budget"):
        led(pair, tuple(Store(page << 12, 8, 1) for page in range(3)))


def test_events_that_no_unit_can_take_end_a_life() -> None:
    assert compare(VTD, [Access(0x10000, None, 0, AccessKind.READ, None), *LIFE]) is None


def test_virtio_units_are_compared_too() -> None:
    events: tuple[Event, ...] = (
        Features(DEFAULT_FEATURES, DEFAULT_FEATURES),
        Request(write.attach(1, 8), 4, None),
        Request(write.map_(1, 0x1000, 0x1FFF, 0x9000, 3), 4, None),
        Access(8, None, 0x1000, AccessKind.READ, None),
        Access(8, None, 0x5000, AccessKind.READ, None),
    )
    pair = VirtioPair(VIRTIO)
    *_, hit, miss = led(pair, events)
    assert hit == (Translation(0x9000, 0xFFF),) and isinstance(miss[0], Fault)
    assert len(pair.emitted) == 1
    pair.apply(pair.emitted[0])
    assert compare(VIRTIO, events) is None


def test_virtio_units_that_differ_are_told_apart() -> None:
    pair = VirtioPair(VIRTIO)
    pair.native.request(write.attach(1, 8), 4)
    with pytest.raises(DisagreementError, match="domains"):
        pair.compare()
