"""Made-up interrupt tables: sound entries deliver, broken ones do not, requests name entries."""

from __future__ import annotations

from random import Random

import pytest

from decoders.events import Fault, Message, Store
from decoders.vtd import registers as vtd
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import message_index
from harness.generate.vtd import Generator
from harness.generate.vtd_interrupts import TABLES, Interrupts
from harness.generate.vtd_steps import Device, Scene
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from tests.harness.generate.test_vtd import BOTH, POOL_PAGES, POOL_START, SIDS

REMAPPING = UnitConfig(0xD2008C222F0606, 0xF00F5A, host_address_width=48)
SENDERS = (0x40, 0x200)
ENABLE, SET_TABLE = 1 << 25, 1 << 24


def running(interrupts: Interrupts, stores: list[Store]) -> VtdUnit:
    unit = VtdUnit(REMAPPING)
    for store in stores:
        unit.store(store.address, store.size, store.value)
    unit.write_register(vtd.IRTA.offset, 8, interrupts.root)
    unit.write_register(vtd.GCMD.offset, 4, ENABLE | SET_TABLE)
    return unit


@pytest.mark.parametrize("seed", range(10))
def test_entries_are_sound_at_first(seed: int) -> None:
    interrupts = Interrupts(SENDERS, Random(seed))
    unit = running(interrupts, interrupts.start())
    outcomes = set()
    for _ in range(60):
        msi = interrupts.request()
        taken = unit.interrupt(SENDERS[msi.sender], msi.address, msi.data).taken
        outcomes.add(type(taken))
        if isinstance(taken, Fault):
            assert taken.reason not in (Reason.REMAP_RESERVED, Reason.REMAP_ACCESS), msi
    assert Message in outcomes, outcomes


def test_a_request_can_be_told_to_name_an_entry() -> None:
    interrupts = Interrupts(SENDERS, Random(3))
    named = [interrupts.request(5) for _ in range(200)]
    indices = [message_index(msi.address, msi.data) for msi in named]
    assert indices.count(5) > 100
    assert None in indices, "no message of the compatibility format"
    assert all(not msi.address & 0b11 and msi.address >> 20 == 0xFEE for msi in named)


def test_stores_stay_inside_the_tables() -> None:
    for seed in range(20):
        interrupts = Interrupts(SENDERS, Random(seed))
        stores = interrupts.start()
        for _ in range(50):
            stores += interrupts.edit()[0] + interrupts.moved()[0]
        assert all(TABLES[0] <= store.address < POOL_START for store in stores)


def test_sequences_reach_every_reason() -> None:
    devices = [Device(sid, 64, BOTH, 64) for sid in SIDS]
    scene = Scene(REMAPPING, devices, POOL_START, POOL_PAGES, senders=SENDERS)
    reasons = set()
    for seed in range(25):
        unit = VtdUnit(REMAPPING)
        for step in Generator(scene, Random(seed)).sequence(80):
            for store in step.stores:
                unit.store(store.address, store.size, store.value)
            for write in step.writes:
                unit.write_register(write.offset, write.size, write.value)
            if step.msi is not None:
                sid = SENDERS[step.msi.sender]
                taken = unit.interrupt(sid, step.msi.address, step.msi.data).taken
                reasons.add(taken.reason if isinstance(taken, Fault) else 0)
    # The table is in RAM, and MSI has no data bits above 15: 0x20 and 0x23 cannot be.
    assert reasons >= {0, 0x21, 0x22, 0x24, 0x25, 0x26}, reasons
