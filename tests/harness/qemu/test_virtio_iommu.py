"""A real virtio-iommu: DMA of its endpoints lands where it was told to, and nowhere else."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, FaultReport
from tests.harness.qemu.bench import (
    DOMAIN,
    I82559,
    I82559_BEHIND_BRIDGE,
    RTL8139,
    RTL8139_BEHIND_BRIDGE,
    RTL8139_BEHIND_PORT,
    Bench,
)
from tests.writers.virtio_iommu import NOENT, OK, READ, WRITE

pytestmark = pytest.mark.qemu

READ_FAULT, WRITE_FAULT, ADDRESS = 1, 2, 0x100
UNKNOWN, NO_DOMAIN, NO_MAPPING = 0, 1, 2
SELF_TEST = b"\xff\xff\xff\xff\0\0\0\0"
COUNTERS = bytes(64)
IOVA = 0x4_0000_0000
LOW_IOVA = 0x8000_0000
ALL = (1 << 64) - 1
EVERY_DEVICE = [
    RTL8139, I82559, RTL8139_BEHIND_BRIDGE, I82559_BEHIND_BRIDGE, RTL8139_BEHIND_PORT,
]  # fmt: skip


def wrote(index: int) -> bytes:
    return SELF_TEST if index in (I82559, I82559_BEHIND_BRIDGE) else COUNTERS


@pytest.mark.parametrize("index", EVERY_DEVICE)
def test_dma_follows_a_mapping(bench: Bench, index: int) -> None:
    device = bench.devices[index]
    assert bench.attach(device) == OK
    assert bench.map(LOW_IOVA, LOW_IOVA + 0x1FFF, bench.page(3), READ | WRITE) == OK
    assert bench.dma(device, LOW_IOVA + 0x1040) == ([(bench.page(4) + 0x40, wrote(index))], [])
    assert bench.unmap(LOW_IOVA, LOW_IOVA + 0x1FFF) == OK
    landed, faults = bench.dma(device, LOW_IOVA + 0x1040)
    assert landed == []
    endpoint = device.function.requester
    assert faults[0] == FaultReport(NO_MAPPING, ADDRESS, endpoint, LOW_IOVA + 0x1040)


@pytest.mark.parametrize("index", EVERY_DEVICE)
def test_bypass_is_identity_until_it_is_switched_off(bench: Bench, index: int) -> None:
    device, place = bench.devices[index], bench.page(5)
    assert bench.iommu.config()[36] == 1
    assert bench.dma(device, place) == ([(place, wrote(index))], [])
    bench.write_bypass(0)
    assert bench.iommu.config()[36] == 0
    landed, faults = bench.dma(device, place)
    assert landed == []
    assert {(fault.reason, fault.endpoint) for fault in faults} == {
        (UNKNOWN, device.function.requester)
    }
    assert faults[0].address == place


def test_64_bit_addresses(bench: Bench) -> None:
    device = bench.devices[RTL8139]
    bench.attach(device)
    last = ALL - 0xFFF
    assert bench.map(last, ALL, bench.page(1), READ | WRITE) == OK
    assert bench.dma(device, ALL - 0x3F) == ([(bench.page(1) + 0xFC0, COUNTERS)], [])
    assert bench.dma(device, last - 0x40)[0] == []


def test_aliases_land_in_one_page(bench: Bench) -> None:
    device = bench.devices[RTL8139]
    bench.attach(device)
    for iova in (IOVA, IOVA + 0x5000):
        assert bench.map(iova, iova + 0xFFF, bench.page(2), READ | WRITE) == OK
        assert bench.dma(device, iova)[0] == [(bench.page(2), COUNTERS)]


def test_each_transfer_is_refused_on_its_own(bench: Bench) -> None:
    """The self test first reads, then writes; QEMU retries refused 8 bytes as 4 and 4."""
    device = bench.devices[I82559]
    endpoint = device.function.requester
    bench.attach(device)
    bench.map(LOW_IOVA, LOW_IOVA + 0xFFF, bench.page(0), READ)
    bench.map(LOW_IOVA + 0x1000, LOW_IOVA + 0x1FFF, bench.page(1), WRITE)
    assert bench.dma(device, LOW_IOVA) == (
        [],
        [
            FaultReport(NO_MAPPING, WRITE_FAULT | ADDRESS, endpoint, LOW_IOVA),
            FaultReport(NO_MAPPING, WRITE_FAULT | ADDRESS, endpoint, LOW_IOVA + 4),
        ],
    )
    assert bench.dma(device, LOW_IOVA + 0x1008) == (
        [(bench.page(1) + 8, SELF_TEST)],
        [
            FaultReport(NO_MAPPING, READ_FAULT | ADDRESS, endpoint, LOW_IOVA + 0x1008),
            FaultReport(NO_MAPPING, READ_FAULT | ADDRESS, endpoint, LOW_IOVA + 0x100C),
        ],
    )


def test_a_64_bit_read(bench: Bench) -> None:
    device = bench.devices[RTL8139_BEHIND_PORT]
    bench.attach(device)
    bench.map(IOVA, IOVA + 0xFFF, bench.page(0), WRITE)
    landed, faults = bench.dma(device, IOVA, AccessKind.READ)
    assert landed == []
    assert [(fault.flags, fault.address) for fault in faults] == [
        (READ_FAULT | ADDRESS, IOVA + offset) for offset in (0, 4, 8, 12)
    ]
    bench.unmap(IOVA, IOVA + 0xFFF)
    bench.map(IOVA, IOVA + 0xFFF, bench.page(0), READ)
    assert bench.dma(device, IOVA, AccessKind.READ) == ([], [])


def test_devices_behind_a_conventional_bridge_share_an_endpoint(bench: Bench) -> None:
    bench.attach(bench.devices[RTL8139_BEHIND_BRIDGE])
    bench.map(LOW_IOVA, LOW_IOVA + 0xFFF, bench.page(6), READ | WRITE)
    for index in (RTL8139_BEHIND_BRIDGE, I82559_BEHIND_BRIDGE):
        landed, _ = bench.dma(bench.devices[index], LOW_IOVA)
        assert landed == [(bench.page(6), wrote(index))]
    assert bench.detach(bench.devices[I82559_BEHIND_BRIDGE]) == OK
    assert bench.unmap(0, ALL) == NOENT, f"domain {DOMAIN} outlives its last endpoint"


def test_more_faults_than_buffers_in_all(bench: Bench) -> None:
    """Buffers of the event queue are given back, so no report is lost."""
    bench.write_bypass(0)
    device = bench.devices[RTL8139]
    bench.dma(device, IOVA)
    for turn in range(200):
        _, faults = bench.dma(device, IOVA + 0x40 * turn)
        assert len(faults) == 18
        assert faults[0].address == IOVA + 0x40 * turn
