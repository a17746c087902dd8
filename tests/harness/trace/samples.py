"""One small trace with every kind of event, for tests that take it apart."""

from __future__ import annotations

from pathlib import Path

from decoders.events import (
    Access,
    AccessKind,
    Clock,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Gap,
    Interrupt,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from harness.trace import Header, TraceWriter, UnitInfo

HEADER = Header(
    dialect="qemu-10.0",
    units=(UnitInfo(version=0x10, capability=0xD2008C22260206, extended_capability=0xF00F4A),),
    memory=((0, 0x80000000),),
    source={"tool": "tests"},
)

EVENTS: list[Event] = [
    Reset(),
    Clock(1_500_000),
    RegWrite(0x20, 8, 0x1234400),
    RegRead(0x1C, 4, 0x80000000),
    RegRead(0x1C, 4, None),
    Snapshot(0x7F001000, Role.SECOND_STAGE, 1, (0x12345003).to_bytes(8, "little") + bytes(4088)),
    Store(0x7F001008, 8, 0x12345003),
    Clock(2_500_000),
    Access(0x18, None, 0xFFFFF000, AccessKind.READ, Translation(0xFDCE3000, 0xFFF)),
    Access(0x18, 0x12, 0xFFFFF000, AccessKind.WRITE, Fault(6)),
    Access(0x20, None, 0x1000, AccessKind.UNKNOWN, None),
    Descriptor((0x10012, 0)),  # invalidates the translations of domain 1
    FaultRecord(0, 0xFFFFF000, 0xC000000600000018),
    StatusWrite(0x1234, 2),
    Interrupt(0xFEE01004, 0x4021),
    Release(0x7F001000),
    Gap("recorder restarted"),
]
BLOCKS = (6, 11, 17)
"""Event number at which each block of `write` ends."""


def write(path: Path) -> None:
    """Write EVENTS as a trace of three blocks and an index."""
    with TraceWriter.create(path, HEADER) as writer:
        for number, event in enumerate(EVENTS, 1):
            writer.append(event)
            if number in BLOCKS:
                writer.flush()
