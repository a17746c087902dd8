"""Tell from what QEMU showed which question its IOMMU was asked, and what it answered.

Facts: system/physmem.c of QEMU 10.0 (flatview_write_continue, address_space_translate_iommu).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from decoders.events import Access, AccessKind, Fault, FaultReport, Outcome, Translation
from decoders.virtio_iommu.constants import FaultFlag
from harness.qemu.dma import Piece
from harness.qemu.landing import PAGE
from harness.qemu.pc import is_ram
from harness.qemu.unit import Seen

Guess = Callable[[int, AccessKind], Sequence[Translation]]
"""Says where an access may lead that has not failed, and has left no trace in the pool."""

_REFUSED_AT_ONCE: Final = 4
"""Bytes that are tried at a time where there is no RAM; each is translated anew."""

_LAST: Final = (1 << 64) - 1
_OTHER = {AccessKind.READ: FaultFlag.WRITE, AccessKind.WRITE: FaultFlag.READ}


@dataclass(slots=True)
class Observed:
    """Hold accesses, each with its fault report, and what none of them accounts for."""

    accesses: list[tuple[Access, FaultReport | None]] = field(default_factory=list)
    landed: dict[int, int] = field(default_factory=dict)
    reports: list[FaultReport] = field(default_factory=list)


def observed(
    pieces: Iterable[Piece], iova: int, endpoint: int, seen: Seen, guess: Guess
) -> Observed:
    """Return the accesses of one DMA operation in their order.

    A report belongs to an access when its address does and it does not say that another right was
    missing. Written data shows in the pool at the offset in a page that it was sent to. An access
    that may have led to several places has no outcome.
    """
    found = Observed()
    reports = deque(seen.faults)
    changed = {at: byte for start, data in seen.landed for at, byte in enumerate(data, start)}
    pages = sorted({at - at % PAGE for at in changed})
    left_over = dict(changed)
    for piece in pieces:
        at = piece.offset
        end = at + piece.size
        while at < end:
            start = iova + at & _LAST
            offset = start % PAGE
            report = reports[0] if reports and _fits(reports[0], start, piece.kind) else None
            page = None
            if report is not None:
                reports.popleft()
                outcome: Outcome | None = Fault(report.reason)
                size = _reduced(start, end - at)
            else:
                size = min(end - at, PAGE - offset)
                if piece.data is not None:
                    data = piece.data[at - piece.offset : at - piece.offset + size]
                    page = _page(changed, pages, offset, data)
                if page is None:
                    first, *others = guess(start, piece.kind)
                    outcome = None if others else first
                    place = first.address | start & first.mask
                    size = size if is_ram(place) else _reduced(place, size)
                else:
                    outcome = Translation(page + offset, 0)
                    for address in range(page + offset, page + offset + size):
                        left_over.pop(address, None)
            found.accesses.append((Access(endpoint, None, start, piece.kind, outcome), report))
            at += size
    found.landed = left_over
    found.reports = list(reports)
    return found


def _fits(report: FaultReport, start: int, kind: AccessKind) -> bool:
    return report.address == start and not report.flags & _OTHER[kind]


def _page(changed: dict[int, int], pages: list[int], offset: int, data: bytes) -> int | None:
    """Return the first page that has the data at an offset."""
    for page in pages:
        if all(changed.get(page + offset + n) == byte for n, byte in enumerate(data)):
            return page
    return None


def _reduced(address: int, size: int) -> int:
    """Return how many bytes are tried where there is no RAM: naturally aligned, at most 4."""
    aligned = address & -address or _REFUSED_AT_ONCE
    size = min(size, aligned, _REFUSED_AT_ONCE)
    return 1 << size.bit_length() - 1
