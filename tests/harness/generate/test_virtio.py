"""Sequences: the same for the same seed, of every kind, and harmless to the machine they run on."""

from __future__ import annotations

from collections import Counter
from random import Random

from decoders.events import AccessKind, DeviceReset, RegWrite, Request
from decoders.virtio_iommu.requests import READABLE_SIZE
from harness.generate.virtio import Device, Generator, Scene, Step

PAGE = 4096
POOL = 0x3C_0000
BOTH = (AccessKind.WRITE, AccessKind.READ)
SCENE = Scene(
    devices=(Device(0x20, 64, BOTH, 64), Device(0x28, 32, (AccessKind.WRITE,), 4)),
    endpoints=(0x18, 0x100),
    pool_start=POOL,
    pool_pages=64,
    probe_size=512,
)


def sequence(seed: int, steps: int = 40) -> list[Step]:
    return Generator(SCENE, Random(seed)).sequence(steps)


def test_a_seed_gives_one_sequence() -> None:
    assert sequence(7) == sequence(7)
    assert sequence(7) != sequence(8)
    assert len(sequence(9, 100)) == 100


def test_every_kind_of_step_occurs() -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        for step in sequence(seed):
            if isinstance(step.stimulus, Request):
                known = step.stimulus.data[0] in set(READABLE_SIZE)
                seen[f"request {step.stimulus.data[0] if known else 'unknown'}"] += 1
            else:
                seen[type(step.stimulus).__name__] += 1
            assert step.dma is not None
            seen[f"{step.dma.kind.name} of {step.dma.device}"] += 1
    assert seen.keys() == {
        *(f"request {kind}" for kind in (1, 2, 3, 4, 5, "unknown")),
        RegWrite.__name__,
        DeviceReset.__name__,
        "WRITE of 0",
        "READ of 0",
        "WRITE of 1",
    }
    assert seen.total() == 2 * 200 * 40


def test_dma_is_what_the_device_can_do_and_keeps_away_from_other_devices() -> None:
    for seed in range(200):
        for step in sequence(seed):
            assert step.dma is not None
            device, iova = SCENE.devices[step.dma.device], step.dma.iova
            assert step.dma.kind in device.kinds
            assert POOL <= iova <= (1 << device.width) - 64, hex(iova)
            assert not 0x9000_0000 <= iova < 1 << 32, hex(iova)
            if step.dma.kind is AccessKind.WRITE:
                assert iova % device.write_alignment == 0


def test_mappings_lead_to_the_pool_or_to_nothing() -> None:
    """A target below the pool would let DMA reach the queues."""
    targets = set()
    for seed in range(300):
        for step in sequence(seed):
            if isinstance(step.stimulus, Request) and step.stimulus.data[0] == 3:
                data = step.stimulus.data
                if len(data) >= 36:
                    targets.add(int.from_bytes(data[24:32], "little"))
    assert all(target >= POOL for target in targets), sorted(map(hex, targets))[:3]
    assert any(target % PAGE for target in targets), "none is unaligned"
