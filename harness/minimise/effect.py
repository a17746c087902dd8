"""Which register writes are in effect: those that put the tables and the queue in use (VT-d)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from decoders.events import Event, InterruptRequest, RegWrite, Reset
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.registers import GlobalCommand

_COMMAND: Final = layout(GlobalCommand)
_QIE: Final = _COMMAND["qie"].mask
QUEUE_ADDRESS: Final = (vtd.IQA.offset, vtd.IQA.offset + 4)
_TABLES: Final = (vtd.RTADDR, _COMMAND["srtp"].mask, _COMMAND["te"].mask)
_INTERRUPTS: Final = (vtd.IRTA, _COMMAND["sirtp"].mask, _COMMAND["ire"].mask)
"""Register with an address, the command that takes it over, the command that puts it in use."""


def in_effect(events: Sequence[Event], at: int) -> Iterator[int]:
    """Yield the events without which the request at a number would not be translated."""
    pointer, take, use = _INTERRUPTS if isinstance(events[at], InterruptRequest) else _TABLES
    used: int | None = None
    taken = False
    halves = {pointer.offset, pointer.offset + 4}
    for number in range(at - 1, -1, -1):
        event = events[number]
        if isinstance(event, Reset):
            break
        if not isinstance(event, RegWrite):
            continue
        if event.offset == vtd.GCMD.offset:
            if event.value & take and not taken:
                taken = True
                yield number
                if event.value & use:
                    used = number
            elif event.value & use and used is None:
                used = number
        elif taken and event.offset in halves:
            yield number
            halves -= {event.offset} if event.size == 4 else halves
            if not halves:
                break
    if used is not None:
        yield used


def enabling_queue(events: Sequence[Event], since: int) -> Iterator[int]:
    """Yield the events behind a number that set up the queue, and those that switch it on."""
    on = False
    for number in range(since + 1, len(events)):
        event = events[number]
        if not isinstance(event, RegWrite):
            continue
        if event.offset in QUEUE_ADDRESS:
            yield number
        elif event.offset == vtd.GCMD.offset:
            if event.value & _QIE and not on:
                yield number
            on = bool(event.value & _QIE)
