"""The model's guest memory: what it holds, who wrote it, and what it costs."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from harness.memory import PAGE_SIZE, Memory, MemoryBudgetError
from harness.model.unit import VtdUnit
from harness.native import NativeUnit, available
from tests.writers.platform import unit_config


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_page_costs_little(snapshots: bool) -> None:
    pages = 32
    tracemalloc.start()
    try:
        memory = Memory()
        for page in range(pages):
            if snapshots:
                memory.write(page * PAGE_SIZE, bytes(PAGE_SIZE), page)
            for quadword in range(512):
                memory.write(page * PAGE_SIZE + 8 * quadword, b"\1", 512 * page + quadword)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / pages < 10 << 10


def test_writers_are_those_of_each_quadword() -> None:
    random, memory = Random(1), Memory()
    writers: dict[int, int] = {}
    for event in range(2000):
        length = random.choice((1, 4, 8, 8, 24, PAGE_SIZE))
        address = random.randrange(3) * PAGE_SIZE
        if length < PAGE_SIZE:
            address += random.randrange(PAGE_SIZE)
        memory.write(address, bytes(length), event)
        writers |= dict.fromkeys(range(address & -8, address + length, 8), event)
    for address in range(4 * PAGE_SIZE):
        assert memory.last_writer(address) == writers.get(address & -8)


def test_a_write_without_an_event_has_no_writer() -> None:
    memory = Memory()
    memory.write(0x1000, b"\1" * 16)
    assert memory.last_writer(0x1000) is None
    memory.write(0x1000, b"\2" * 8, 0)
    memory.write(0x1000, b"\3" * 16)
    assert (memory.last_writer(0x1000), memory.last_writer(0x1008)) == (0, None)


@pytest.mark.skipif(not available(), reason="the native core is not built")
def test_both_engines_wrap_at_the_end() -> None:
    config = unit_config(page_budget=2)
    top = (1 << 64) - 4
    for unit in (model := VtdUnit(config), native := NativeUnit(config)):
        unit.event = 7
        unit.store(top, 8, 0x1122334455667788)
        assert unit.load(top, 8) == (0x1122334455667788).to_bytes(8, "little")
        assert unit.load(0, 8) == (0x11223344).to_bytes(8, "little")
        with pytest.raises(MemoryBudgetError):
            unit.store(0x1FFE, 4, 1)
    for address in (0, 8, top):
        assert model.memory.last_writer(address) == native.last_writer(address)
