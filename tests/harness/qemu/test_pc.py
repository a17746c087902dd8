"""PCI, virtio and landing of DMA in a stopped PC."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.landing import PAGE, mark
from harness.qemu.pc import RAM_START, Pc
from harness.qemu.pci import WINDOW
from harness.qemu.virtio import FILL
from harness.qemu.virtio_iommu import VirtioIommu
from tests.harness.qemu.bench import (
    I82559_BEHIND_BRIDGE,
    RTL8139,
    RTL8139_BEHIND_BRIDGE,
    RTL8139_BEHIND_PORT,
    Bench,
)
from tests.writers import virtio_iommu as write

pytestmark = pytest.mark.qemu


def test_bars_do_not_overlap_and_answer(bench: Bench) -> None:
    places = sorted(place for f in bench.pc.setup.functions.values() for place in f.bars.values())
    assert len(set(places)) == len(places)
    assert all(WINDOW[0] <= place < WINDOW[1] for place in places)
    for device in (bench.devices[RTL8139], bench.devices[RTL8139_BEHIND_BRIDGE]):
        # The first bytes are the station address that QEMU gives: 52:54:00.
        assert bench.pc.machine.load(device.function.bars[1], 4) & 0xFFFFFF == 0x005452


def test_requester_ids_behind_bridges(bench: Bench) -> None:
    numbers = [(d.model, d.function.number, d.function.requester) for d in bench.devices]
    assert numbers == [
        ("rtl8139", 0x0020, 0x0020),
        ("i82559er", 0x0028, 0x0028),
        ("rtl8139", 0x0218, 0x0200),
        ("i82559er", 0x0220, 0x0200),
        ("rtl8139", 0x0300, 0x0300),
    ]
    assert bench.devices[RTL8139_BEHIND_PORT].function.bars[1] >> 20 == 0xE04


def test_ram_is_shared(bench: Bench) -> None:
    bench.pc.ram[RAM_START : RAM_START + 4] = b"1234"
    assert bench.pc.machine.read(RAM_START, 4) == b"1234"
    bench.pc.machine.store(RAM_START, 4, 0)
    assert bench.pc.ram[RAM_START : RAM_START + 4] == bytes(4)


def test_a_system_reset_keeps_ram_and_sets_pci_up_again(bench: Bench) -> None:
    place = bench.devices[RTL8139].function.bars[1]
    before = bench.pc.machine.load(place, 4)
    bench.pc.ram[RAM_START : RAM_START + 4] = b"kept"
    bench.pc.reset()
    assert bench.pc.ram[RAM_START : RAM_START + 4] == b"kept"
    assert bench.pc.machine.load(place, 4) == before


def test_a_pc_that_crashed_starts_anew() -> None:
    with Pc(["rtl8139"]) as pc:
        with pytest.raises(HarnessError, match="ended"):
            # QEMU asserts that a port has 16 bits: past our own check.
            pc.machine.command("inb 0x10000")
        pc.start()
        assert pc.starts == 2
        assert pc.machine.load(0, 4) == 0


def test_a_pc_without_iommu_is_told() -> None:
    with Pc(["rtl8139"]) as pc, pytest.raises(HarnessError, match="no virtio-iommu"):
        VirtioIommu(pc, RAM_START)


def test_a_device_that_qemu_lacks_is_told() -> None:
    with pytest.raises(HarnessError, match="no-such-device"), Pc(["no-such-device"]):
        pass


def test_changes_are_found_and_marks_restored(bench: Bench) -> None:
    pool = bench.pool
    assert pool.changes() == []
    first, second = pool.start + 100, pool.start + PAGE - 2
    bench.pc.machine.commands([qtest.store(first, 4, 0), qtest.store(second, 4, 0)])
    assert pool.changes() == [(first, bytes(4)), (second, bytes(4))]
    assert pool.changes() == []
    assert bench.pc.ram[pool.start : pool.start + PAGE] == mark(pool.start)


def test_marks_differ_and_are_no_descriptors() -> None:
    marks = {mark(RAM_START + PAGE * n) for n in range(1024)}
    assert len(marks) == 1024
    assert all(0 < byte < 0x80 for each in marks for byte in each)


def test_chains_of_several_buffers(bench: Bench) -> None:
    probe = write.probe(0x20)
    answer = bench.iommu.chain((probe[:1], probe[1:3], probe[3:]), (500, 12, 10))
    assert answer.used == 516
    # A PC reserves the addresses of message-signalled interrupts.
    region = write.resv_mem(1, 0xFEE0_0000, 0xFEEF_FFFF)
    assert answer.data == region + bytes(516 - len(region)) + bytes([FILL]) * 6


def test_a_request_without_room_for_a_status_breaks_qemus_device(bench: Bench) -> None:
    assert bench.iommu.request(bytes(20), 0).used is None
    assert bench.iommu.broken()
    bench.iommu.start()
    assert not bench.iommu.broken()
    assert bench.attach(bench.devices[I82559_BEHIND_BRIDGE]) == 0
