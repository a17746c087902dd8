"""A VT-d unit of a real QEMU: edit, invalidate, DMA, verify against plain round trips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from decoders.events import AccessKind, RegWrite, Store
from decoders.vtd.registers import GCMD, IQA, IQT, RTADDR
from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.pc import RAM_START
from harness.qemu.vtd import POOL_PAGES, POOL_START, REGISTERS, Dma, VtdQemu
from tools.bench.qemu import LOOPS, RUNS, round_trips
from tools.bench.ratio import Ratio, best_of

LIMIT = 0.08
"""One loop a round trip: a command that makes QEMU take two descriptors, two for DMA of 13
transfers, four reads, and a look at 64 pages."""
PIPELINED = 16
PIPELINED_LIMIT = 0.1
"""PIPELINED loops a round trip; the edit is a command of its own, each loop has its own page."""

_ROOT, _CONTEXT, _LEVEL_4, _LEVEL_3, _LEVEL_2, _LEVEL_1, _QUEUE, _STATUS = (
    RAM_START + (index << 12) for index in range(8)
)
_DEVICE = 0
_DOMAIN = 1
_IOVA = 0x8000_0000
_READ_WRITE = 3
_ENTRY = _LEVEL_1 + (_IOVA >> 12 & 0x1FF) * 8
_SLOT = 16
_SLOTS = 256
_WIDTH_48 = 2
_TRANSLATION, _SET_ROOT, _QUEUED = 1 << 31, 1 << 30, 1 << 26
# VT-d 6.5.2.3 (pages of a domain) and 6.5.2.8 (wait, which writes a status).
_IOTLB_PAGES: Final = 2 | 3 << 4 | _DOMAIN << 16
_WAIT: Final = 5 | 1 << 5
_DUMPED: Final = 64


def _tables(sid: int) -> Iterator[Store]:
    """Yield the tables that lead one source to the entry of one page, and a ring of descriptors."""
    context = _CONTEXT + (sid & 0xFF) * 16
    yield Store(_ROOT + (sid >> 8) * 16, 8, _CONTEXT | 1)
    yield Store(context, 8, _LEVEL_4 | 1)
    yield Store(context + 8, 8, _WIDTH_48 | _DOMAIN << 8)
    for table, below, shift in (
        (_LEVEL_4, _LEVEL_3, 39), (_LEVEL_3, _LEVEL_2, 30), (_LEVEL_2, _LEVEL_1, 21),
    ):  # fmt: skip
        yield Store(table + (_IOVA >> shift & 0x1FF) * 8, 8, below | _READ_WRITE)
    for loop in range(_SLOTS // 2):
        slot = _QUEUE + 2 * loop * _SLOT
        yield Store(slot, 8, _IOTLB_PAGES)
        yield Store(slot + 8, 8, _IOVA)
        yield Store(slot + 16, 8, _WAIT | (loop + 1) << 32)
        yield Store(slot + 24, 8, _STATUS)


def _prepare(qemu: VtdQemu) -> None:
    qemu.reset()
    on = _QUEUED | _TRANSLATION
    commands = (
        RegWrite(RTADDR.offset, 8, _ROOT),
        RegWrite(GCMD.offset, 4, _SET_ROOT),
        RegWrite(IQT.offset, 8, 0),
        RegWrite(IQA.offset, 8, _QUEUE),
        RegWrite(GCMD.offset, 4, _QUEUED),
        RegWrite(GCMD.offset, 4, on),
    )
    qemu.step(list(_tables(qemu.sid(_DEVICE))), commands, (), None)


class _Loops:
    """Do loops one by one, each in one round trip."""

    def __init__(self, qemu: VtdQemu) -> None:
        self._qemu = qemu
        self._edits = [Store(_ENTRY, 8, _page(index) | _READ_WRITE) for index in range(POOL_PAGES)]
        self._tails = [
            RegWrite(IQT.offset, 4, (loop + 1) * 2 * _SLOT % (_SLOTS * _SLOT))
            for loop in range(_SLOTS // 2)
        ]
        self._at = 0

    def run(self) -> None:
        """Edit the entry, invalidate it, write through it, and see where that landed."""
        step, memory = self._qemu.step, self._qemu.memory
        dma = Dma(_DEVICE, AccessKind.WRITE, _IOVA)
        for _ in range(LOOPS):
            page, loop = self._at % POOL_PAGES, self._at % len(self._tails)
            self._at += 1
            seen = step((self._edits[page],), (self._tails[loop],), (), dma)
            waited = int.from_bytes(memory(_STATUS, 4), "little")
            _check(waited, loop, seen.status, seen.record[1])
            if seen.landed != [(_page(page), bytes(_DUMPED))]:
                raise HarnessError(f"DMA landed at {seen.landed}, not at {_page(page):#x}")


class _Pipeline:
    """Do PIPELINED loops in one round trip: what is looked at behind it is that of each."""

    def __init__(self, qemu: VtdQemu) -> None:
        self._qemu = qemu
        self._machine = qemu.machine
        dma = qemu.lines(Dma(_DEVICE, AccessKind.WRITE, _IOVA))
        self._batches = []
        for first in range(0, _SLOTS // 2, PIPELINED):
            batch = []
            for loop in range(first, first + PIPELINED):
                tail = (loop + 1) * 2 * _SLOT % (_SLOTS * _SLOT)
                batch += [
                    qtest.store(_ENTRY, 8, _page(loop % POOL_PAGES) | _READ_WRITE),
                    qtest.store(REGISTERS + IQT.offset, 4, tail),
                    qtest.load(_STATUS, 4),
                    *dma,
                    *qemu.after,
                ]
            self._batches.append((first, batch))
        self._size = len(self._batches[0][1]) // PIPELINED
        self._at = 0

    def run(self) -> None:
        """Run as many loops as _Loops.run(), but for a remainder."""
        for _ in range(LOOPS // PIPELINED):
            first, batch = self._batches[self._at % len(self._batches)]
            self._at += 1
            answers = self._machine.commands(batch)
            for loop in range(first, first + PIPELINED):
                at = (loop - first) * self._size
                status, high = answers[at + self._size - 3], answers[at + self._size - 1]
                _check(int(answers[at + 2], 16), loop, int(status, 16), int(high, 16))
            pages = [_page(loop % POOL_PAGES) for loop in range(first, first + PIPELINED)]
            if self._qemu.pool.changes() != [(page, bytes(_DUMPED)) for page in pages]:
                raise HarnessError("DMA did not land where the entries lead")


def _page(index: int) -> int:
    return POOL_START + (index << 12)


def _check(waited: int, loop: int, status: int, record: int) -> None:
    if waited != loop + 1:
        raise HarnessError(f"the wait descriptor wrote {waited}, not {loop + 1}")
    if status or record:
        raise HarnessError(f"sound DMA left the fault status {status:#x}")


def run(traces: list[Path]) -> list[Ratio]:
    """Measure on a machine of its own; traces are not used."""
    del traces
    with VtdQemu("legacy") as qemu:
        plain = round_trips()
        _prepare(qemu)
        single = best_of(RUNS, _Loops(qemu).run)
        _prepare(qemu)
        done = LOOPS // PIPELINED * PIPELINED
        pipelined = best_of(RUNS, _Pipeline(qemu).run) * LOOPS / done
    return [
        Ratio(
            f"qemu: VT-d edit, invalidate, DMA, verify{how}",
            plain / seconds,
            f"{LOOPS / seconds:.0f} loops/s",
            f"{LOOPS / plain:.0f} round trips/s",
            limit,
            at_most=False,
        )
        for how, seconds, limit in (
            ("", single, LIMIT),
            (f", {PIPELINED} at a time", pipelined, PIPELINED_LIMIT),
        )
    ]
