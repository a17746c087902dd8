"""Work out what an IOMMU is asked, and where data lands, when QEMU's memory core does DMA.

Facts: system/physmem.c of QEMU 10.0 (flatview_write_continue, address_space_translate_iommu).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from decoders.events import AccessKind, Fault, Outcome
from harness.qemu.dma import Piece
from harness.qemu.unit import is_ram

Translate = Callable[[int, AccessKind], Outcome]

_REFUSED_AT_ONCE: Final = 4
"""Bytes that are tried at a time where there is no RAM; each is translated anew."""

_LAST: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hold one question to the IOMMU, the answer, and what was written where, if it was."""

    iova: int
    kind: AccessKind
    outcome: Outcome
    address: int | None
    data: bytes


def transfers(pieces: Iterable[Piece], iova: int, translate: Translate) -> list[Transfer]:
    """Return the questions in their order; translate is asked each of them once."""
    asked: list[Transfer] = []
    for piece in pieces:
        at, left = piece.offset, piece.size
        while left:
            start = iova + at & _LAST
            outcome = translate(start, piece.kind)
            address = None
            if isinstance(outcome, Fault):
                size = _reduced(start, left)
            else:
                target = outcome.address | start & outcome.mask
                # The rest of the page follows without being asked about.
                size = min(left, outcome.mask + 1 - (start & outcome.mask))
                if is_ram(target):
                    address = target
                else:
                    size = _reduced(target, size)
            written = b""
            if piece.data is not None and address is not None:
                offset = at - piece.offset
                written = piece.data[offset : offset + size]
            asked.append(Transfer(start, piece.kind, outcome, address, written))
            at, left = at + size, left - size
    return asked


def landings(done: Sequence[Transfer], start: int, end: int) -> dict[int, int]:
    """Return which bytes of a range of memory are written last with what."""
    found: dict[int, int] = {}
    for transfer in done:
        if transfer.address is not None:
            for address, value in enumerate(transfer.data, transfer.address):
                if start <= address < end:
                    found[address] = value
    return found


def _reduced(address: int, size: int) -> int:
    """Return how many bytes are tried where there is no RAM: naturally aligned, at most 4."""
    aligned = address & -address or _REFUSED_AT_ONCE
    size = min(size, aligned, _REFUSED_AT_ONCE)
    return 1 << size.bit_length() - 1
