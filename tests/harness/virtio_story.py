"""A short life of a virtio-iommu: what a driver asks, what comes back, and a unit that errs."""

from __future__ import annotations

from pathlib import Path

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Features,
    RegWrite,
    Request,
    Translation,
)
from harness.trace import Header, TraceWriter, UnitInfo
from tests.writers.virtio_iommu import (
    FEATURES,
    INVAL,
    OK,
    PROBE_SIZE,
    asked,
    attach,
    config,
    detach,
    map_,
    probe,
    regions,
    tail,
    topology_v3,
    unmap,
)

NIC, DISK = 0x18, 0x1_0000  # 00:03.0, and an endpoint that is no PCI function
MSI = (1, 0xFEE0_0000, 0xFEEF_FFFF)
ODD = (9, 0x8000, 0x8FFF)  # of a subtype that is not defined
HEADER = Header(
    units=(UnitInfo("virtio-iommu", base=0, capability=FEATURES, config=config()),),
    source={"tool": "tests"},
)
USE = Access(NIC, None, 0x1234, AccessKind.READ, Translation(0x80000, 0xFFF))

EVENTS: list[Event] = [
    Features(FEATURES | 1 << 50, FEATURES),
    ConfigSpace(config()),
    Endpoint(NIC, (MSI, ODD)),
    Request(probe(NIC), PROBE_SIZE + 4, tail(OK, regions(MSI, ODD))),
    RegWrite(0x24, 1, 0),
    asked(attach(1, NIC)),
    asked(attach(2, DISK)),
    asked(map_(1, 0x1000, 0x1FFF, 0x80000)),
    asked(map_(2, 0x1000, 0x1FFF, 0x90000, flags=1)),
    asked(map_(1, 0x3000, 0x3FFF, 0x80000, flags=9), INVAL),
    USE,
    Access(DISK, None, 0x1234, AccessKind.WRITE, Fault(2)),
    FaultReport(2, 0x102, DISK, 0x1234),
    asked(unmap(1, 0x1000, 0x1FFF)),
    USE,  # after the end of the mapping
    asked(map_(1, 0x5000, 0x5FFF, 0x80000), INVAL),  # nothing is wrong with it
    asked(detach(1, NIC)),
    Request(b"\x09\0\0\0", 4, b""),
    Request(b"\x03\0\0\0", 4, None),
    DeviceReset(),
    RegWrite(0x24, 1, 1),
    ConfigSpace(topology_v3([(8, 8, 0xFF)])),
]
STALE, WRONG = 14, 15


def write(path: Path) -> None:
    """Write the story as a trace of two blocks and an index."""
    with TraceWriter.create(path, HEADER) as writer:
        for number, event in enumerate(EVENTS):
            writer.append(event)
            if number == 8:
                writer.flush()
