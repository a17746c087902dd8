"""A virtio-iommu of a real QEMU: MAP, DMA, UNMAP against plain round trips through its socket."""

from __future__ import annotations

from pathlib import Path

from decoders.bytewise import packed
from decoders.events import AccessKind
from decoders.virtio_iommu.constants import MapFlag, RequestType, Status
from decoders.virtio_iommu.requests import TAIL_SIZE
from decoders.virtio_iommu.structures import Attach, Map, Unmap
from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.pc import PROGRAM, RAM_START
from harness.qemu.qtest import running
from harness.qemu.unit import POOL_START, Dma, QemuUnit
from tools.bench.ratio import Ratio, best_of

LOOPS = 1000
RUNS = 3
LIMIT = 0.01
"""A loop has two requests with an answer each, 13 transfers, and a look at 64 pages."""

_DEVICE = 0
_DOMAIN = 1
_IOVA = 0x8000_0000
_PAGE = 0xFFF


def _loops(unit: QemuUnit, both: int) -> None:
    """Map a page, write through the mapping in the same round trip, unmap it."""
    done = packed(Map).pack(
        RequestType.MAP, bytes(3), _DOMAIN, _IOVA, _IOVA + _PAGE, POOL_START, both
    )
    ended = packed(Unmap).pack(RequestType.UNMAP, bytes(3), _DOMAIN, _IOVA, _IOVA + _PAGE, bytes(4))
    dma = Dma(_DEVICE, AccessKind.WRITE, _IOVA)
    for _ in range(LOOPS):
        _succeeds(unit.request(done, TAIL_SIZE, dma).answer)
        _succeeds(unit.request(ended, TAIL_SIZE).answer)


def _succeeds(answer: bytes | None) -> None:
    if not answer or answer[0] != Status.OK:
        raise HarnessError(f"QEMU answers {answer!r} to a sound request")


def round_trips() -> float:
    """Return the seconds of as many round trips, each of one load, of a machine without devices."""
    words = [PROGRAM, "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-m", "16M"]
    with running(words) as machine:
        line = qtest.load(RAM_START, 4)
        return best_of(RUNS, lambda: [machine.command(line) for _ in range(LOOPS)])


def run(traces: list[Path]) -> list[Ratio]:
    """Measure on a machine of its own; traces are not used."""
    del traces
    plain = round_trips()
    with QemuUnit() as unit:
        unit.reset()
        attach = packed(Attach).pack(
            RequestType.ATTACH, bytes(3), _DOMAIN, unit.endpoint(_DEVICE), 0, bytes(4)
        )
        _succeeds(unit.request(attach, TAIL_SIZE).answer)
        both = int(MapFlag.READ | MapFlag.WRITE)
        loops = best_of(RUNS, lambda: _loops(unit, both))
    return [
        Ratio(
            "qemu: MAP, DMA and UNMAP over round trips",
            plain / loops,
            f"{LOOPS / loops:.0f} loops/s",
            f"{LOOPS / plain:.0f} round trips/s",
            LIMIT,
            at_most=False,
        )
    ]
