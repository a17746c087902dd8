"""Fuzz streams of events: the readers of traces, and what a replay makes of what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from decoders.errors import DecodeError
from decoders.events import (
    AccessKind,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Gap,
    InterruptRequest,
    PageRequest,
    PageRequestFlag,
    RegRead,
    RegWrite,
    Reset,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.registers import REGISTERS
from fuzzers import machines as m
from fuzzers.event_mutations import EventMutator
from fuzzers.memory_target import MemoryTarget
from fuzzers.scaffold import Scaffold, encoded
from fuzzers.target import MODEL, NONE, Found, Runner
from harness.differential.pair import BUDGETS
from harness.native import NativeReplay
from harness.signature import DISAGREEMENT, Signature
from harness.targets.model import ModelReplay
from harness.trace import Block

if TYPE_CHECKING:
    from harness.targets import ReplayTarget

_GROUND: Final = m.Ground(m.header(), (0, 1))
_DIALECTS: Final = ("spec", "qemu-10.0", "qemu-11.1")


def _scaffold(scalable: bool, dialect: str) -> Scaffold:
    memory: list[Event] = m.scalable(_GROUND, (1, 2)) if scalable else m.legacy(_GROUND)
    memory += m.paging(m.SECOND, 4 if scalable else 3, m.SECOND_FLAGS, m.POOL)
    memory += m.paging(m.FIRST, 4, m.FIRST_FLAGS, m.POOL)
    memory += m.interrupt_entries(_INTERRUPTS, 3)
    memory.append(Store(_PAGE_REQUESTS, 8, 0))
    return Scaffold(
        m.header(dialect),
        tuple(memory),
        (
            RegWrite(vtd.IRTA.offset, 8, _INTERRUPTS | 1),
            RegWrite(vtd.GCMD.offset, 4, m.SIRTP),
            RegWrite(vtd.PQA.offset, 8, _PAGE_REQUESTS),
            *m.enabled(scalable_mode=scalable, wide=scalable),
        ),
        (),
        (m.access(0),),
        None,
        (*m.flushed(wide=scalable), m.access(0), m.access(1)),
    )


_LEAF: Final = m.SECOND + 2 * m.PAGE + 8
_INTERRUPTS: Final = 0x23000
_PAGE_REQUESTS: Final = 0x24000
_MSI: Final = 0xFEE0_0010
"""An interrupt in the remappable format, of index 0."""

_TRANSLATING: Final = m.TE | m.QIE | m.IRE
_WORDS: Final[tuple[Event, ...]] = (
    m.access(0),
    m.access(1, kind=AccessKind.WRITE),
    m.access(0, pasid=1),
    m.access(1, attributes=2),
    m.access(1, m.POOL, attributes=4),
    m.access(0x100),
    m.access(0x80),
    m.access(1, pasid=0xFFFFF),
    m.access(0, 1 << 47),
    Store(_LEAF, 8, m.POOL + 0x5000 | m.SECOND_FLAGS),
    Store(_LEAF, 8, 0),
    Store(m.QUEUE, 8, 0x11),
    Store(m.QUEUE, 8, 0x12),
    RegWrite(vtd.IQT.offset, 8, 16),
    RegWrite(vtd.IQT.offset, 8, 32),
    RegWrite(vtd.GCMD.offset, 4, m.TE | m.QIE),
    RegWrite(vtd.GCMD.offset, 4, m.TE),
    RegWrite(vtd.GCMD.offset, 4, _TRANSLATING),
    RegWrite(vtd.IQA.offset, 8, m.QUEUE),
    RegWrite(vtd.IQA.offset, 8, m.QUEUE | 1 << 11),
    RegWrite(vtd.FSTS.offset, 4, 0x7F),
    RegWrite(vtd.CCMD.offset, 8, 1 << 63 | 1 << 61),
    RegRead(vtd.FSTS.offset, 4, 0),
    InterruptRequest(0, _MSI, 0, None),
    InterruptRequest(1, _MSI | 1 << 3, 2, None),
    PageRequest(0, None, 0x1000, PageRequestFlag.READ | PageRequestFlag.LAST, 1),
    PageRequest(1, 1, 0x2000, PageRequestFlag.WRITE, 0x1FF),
    Descriptor((0x11, 0)),
    FaultRecord(0, 0x1000, 1 << 63 | 6 << 32),
    Gap("lost"),
    Reset(),
)
_TO_RESET: Final = 26
_ACCESSED: Final = [(one.offset, (one.size, 12 - one.size)) for one in REGISTERS.values()]
"""Software may write half of a register, or two beside each other."""


def _seeds(choices: int) -> list[bytes]:
    access = m.access(0)
    streams: list[list[Event]] = [
        [],
        list(_WORDS[:9]),
        [replace(access, outcome=Translation(m.POOL, 0xFFF)), access],
        [replace(access, outcome=Fault(6)), FaultRecord(0, m.IOVA, 6 << 32 | 1 << 63)],
        [Store(m.QUEUE, 8, 0x12), RegWrite(vtd.IQT.offset, 8, 16), Descriptor((0x12, 0)), access],
        [Store(_LEAF, 8, 0), access, replace(access, outcome=Translation(m.POOL, 0xFFF))],
        list(_WORDS),
        # What a reset leaves shows behind it.
        [*_WORDS[:_TO_RESET], Reset(), *_WORDS[:_TO_RESET]],
    ]
    return [bytes((n,)) + encoded(stream) for n in range(choices) for stream in streams]


class TraceTarget(MemoryTarget):
    """Replay streams: both replays have to agree, and both units in step."""

    mutated: Sequence[str] = (MODEL, NONE)

    def __init__(self, choices: Sequence[Scaffold]) -> None:
        words = [encoded((event,)) for event in _WORDS]
        what = "event streams of a VT-d unit"
        super().__init__("trace", what, choices, _seeds(len(choices)), words)
        self.max_size = 2048
        mutator = EventMutator(_WORDS, len(choices), _ACCESSED)
        self.mutate, self.cross = mutator.mutate, mutator.cross

    def runner(self, against: str) -> Runner:
        """Return what runs a stream."""
        judge = super().runner(against)
        if against == NONE:
            return judge

        def run(data: bytes) -> None:
            scaffold, inner = self.scaffolds.split(data)
            _replay(scaffold, inner)
            judge(data)

        return run


def _replay(scaffold: Scaffold, inner: bytes) -> None:
    """Let both replays read and judge the same bytes, damage included."""
    around = (*scaffold.memory, *scaffold.before)
    said: list[tuple[Any, ...]] = []
    for target in (ModelReplay(scaffold.config), NativeReplay(scaffold.config)):
        place = _feed(
            target, [Block(0, len(around), encoded(around)), Block(len(around), 0, inner)]
        )
        target.finish()
        said.append((place, target.counters(), target.findings()))
    if said[0] != said[1]:
        names = ("place of damage", "counters", "findings")
        what = next(n for n, one, other in zip(names, *said, strict=True) if one != other)
        raise Found(
            Signature(DISAGREEMENT, "", f"replay: {what}"), f"model  {said[0]}\nnative {said[1]}"
        )


def _feed(target: ReplayTarget, blocks: Sequence[Block]) -> str:
    try:
        for block in blocks:
            target.feed(block)
    except DecodeError as error:
        # What is wrong within an event is said in other words.
        return ".".join(error.path.split(".")[:2])
    except BUDGETS as error:
        return type(error).__name__
    return ""


def create() -> TraceTarget:
    """Build the target."""
    return TraceTarget([_scaffold(mode, one) for one in _DIALECTS for mode in (False, True)])
