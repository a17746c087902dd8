"""What a guest does with an intel-iommu, and what comes of it: for tests that repeat it."""

from __future__ import annotations

from decoders.events import (
    Access,
    AccessKind,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    RegRead,
    RegWrite,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
)
from decoders.vtd.faults import FaultRecordRegister, Reason
from decoders.vtd.paging import SecondStageEntry
from decoders.vtd.registers import GlobalCommand
from decoders.vtd.tables import ContextEntry
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.model.dialects import dialect_named
from harness.targets import Counters
from harness.targets.qemu_runner import QemuRunner
from tests.writers.platform import descriptor, quadword

CAPABILITY, EXTENDED = 0xD2_008C_222F_0686, 0xF0_0F4A
"""Of an intel-iommu with caching mode and interrupt remapping, up to 10.0 at least."""
READ, WRITE, UNKNOWN = AccessKind.READ, AccessKind.WRITE, AccessKind.UNKNOWN

DEVICE, BEHIND_PORT, NOWHERE = 0x18, 0x100, 0xFA
ROOT, CONTEXTS, OTHER_CONTEXTS, LEVEL_3, LEVEL_2, LEVEL_1, QUEUE, STATUS = (
    0x10_0000 + index * 0x1000 for index in range(8)
)
HIGH = 1 << 32
DATA, MORE_DATA, HIGH_DATA = 0x50_0000, 0x60_0000, HIGH + 0x70_0000
IOVA, READ_ONLY, UNMAPPED = 0x4000, 0x5000, 0x6000
HIGH_IOVA = 0x7000
DOMAIN = 5
RW = quadword(SecondStageEntry, r=1, w=1)
CONFIG = UnitConfig(
    CAPABILITY,
    EXTENDED,
    host_address_width=48,
    memory=((0, 0x8000_0000), (HIGH, 0x1000_0000)),
    dialect=dialect_named("qemu-10.0"),
)

FLUSH_CONTEXTS = descriptor(ContextCacheInvalidation, g=1)
FLUSH = descriptor(IotlbInvalidation, g=1)


def wait(number: int) -> tuple[int, ...]:
    return descriptor(InvalidationWait, sw=1, stdata=number, staddr=STATUS >> 2)


def context(table: int) -> list[int]:
    fields = {"p": 1, "ssptptr": table >> 12, "aw": 1, "did": DOMAIN}
    return [quadword(ContextEntry, index, **fields) for index in (0, 1)]


def command(**bits: int) -> RegWrite:
    return RegWrite(vtd.GCMD.offset, 4, quadword(GlobalCommand, **bits))


def queued(at: int, *words: tuple[int, ...]) -> list[Event]:
    """Queue descriptors behind one another, and say that they were taken."""
    stores: list[Event] = []
    for index, each in enumerate(words):
        for half in (0, 1):
            stores.append(Store(QUEUE + (at + index) * 16 + half * 8, 8, each[half]))
    tail = RegWrite(vtd.IQT.offset, 4, (at + len(words)) * 16)
    return [*stores, tail, *(Descriptor(each) for each in words)]


def page(*entries: tuple[int, int]) -> bytes:
    data = bytearray(4096)
    for index, value in entries:
        data[index * 8 : index * 8 + 8] = value.to_bytes(8, "little")
    return bytes(data)


def table(address: int, level: int, *entries: tuple[int, int]) -> Snapshot:
    return Snapshot(address, Role.SECOND_STAGE, level, page(*entries))


def record(source: int, iova: int, reason: int) -> FaultRecord:
    words = [quadword(FaultRecordRegister, n, sid=source, fr=reason) for n in (0, 1)]
    return FaultRecord(0, words[0] | iova, words[1])


LOW_ENTRY, HIGH_ENTRY = context(LEVEL_3)
SETUP: list[Event] = [
    Reset(),
    RegRead(vtd.CAP.offset, 8, CAPABILITY),
    Snapshot(ROOT, Role.ROOT, 0, page((0, CONTEXTS | 1), (2, OTHER_CONTEXTS | 1))),
    Snapshot(CONTEXTS, Role.CONTEXT, 0, page((0x30, LOW_ENTRY), (0x31, HIGH_ENTRY))),
    Snapshot(OTHER_CONTEXTS, Role.CONTEXT, 0, page((0, LOW_ENTRY), (1, HIGH_ENTRY))),
    table(LEVEL_3, 3, (0, LEVEL_2 | RW)),
    table(LEVEL_2, 2, (0, LEVEL_1 | RW)),
    table(
        LEVEL_1, 1, (4, DATA | RW), (5, DATA | 1), (7, HIGH_DATA | RW),
    ),
    RegWrite(vtd.FECTL.offset, 4, 1 << 31),
    RegWrite(vtd.RTADDR.offset, 8, ROOT),
    command(srtp=1),
    RegWrite(vtd.IQT.offset, 4, 0),
    RegWrite(vtd.IQA.offset, 8, QUEUE),
    command(qie=1),
    *queued(0, FLUSH_CONTEXTS, FLUSH, wait(1)),
    StatusWrite(STATUS, 1),
    command(qie=1, te=1),
]  # fmt: skip
STORY: list[Event] = [
    *SETUP,
    Access(DEVICE, None, IOVA, UNKNOWN, Translation(DATA, 0xFFF)),
    Access(DEVICE, None, IOVA + 0x84, WRITE, Translation(DATA, 0xFFF)),
    Access(BEHIND_PORT, None, READ_ONLY, READ, Translation(DATA, 0xFFF)),
    Access(DEVICE, None, HIGH_IOVA, READ, Translation(HIGH_DATA, 0xFFF)),
    Store(LEVEL_1 + 4 * 8, 8, MORE_DATA | RW),
    *queued(3, FLUSH, wait(2)),
    StatusWrite(STATUS, 2),
    Access(DEVICE, None, IOVA, WRITE, Translation(MORE_DATA, 0xFFF)),
    Access(DEVICE, None, READ_ONLY, WRITE, Fault(Reason.NO_WRITE)),
    record(DEVICE, READ_ONLY, Reason.NO_WRITE),
    RegRead(vtd.FSTS.offset, 4, 2),
]
"""Mappings, below and above 4 GiB, an edit with its invalidation, a refusal."""

ACCESS, WRITTEN, MOVED, REFUSED, RECORD, STATUS_READ = (
    STORY.index(event)
    for event in (STORY[len(SETUP)], STORY[len(SETUP) + 1], *STORY[-4:])
)  # fmt: skip
WAITED = STORY.index(StatusWrite(STATUS, 2))
TAKEN = STORY.index(Descriptor(wait(2)))


def replay(runner: QemuRunner, *events: Event) -> tuple[Counters, list[Finding]]:
    findings = runner.run(CONFIG, events)
    return runner.counters, findings
