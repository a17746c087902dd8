"""A trace in memory: what a minimiser changes, and the one order that says which is smaller."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from decoders.errors import DecodeError
from decoders.events import Event
from harness.errors import HarnessError
from harness.trace import Block, Header, open_events
from harness.trace.codec import Encoder, FieldError

MOST_EVENTS = 1 << 20
"""Events of a trace that is to be made smaller: it is held in memory."""
BLOCK_EVENTS = 1 << 16
BLOCK_BYTES = 1 << 21


@dataclass(frozen=True)
class Trace:
    """Hold a header and events."""

    header: Header
    events: tuple[Event, ...]

    @cached_property
    def stored(self) -> tuple[bytes, ...]:
        """The stored form of each event.

        Errors: FieldError for an event that no trace can hold.
        """
        encoder = Encoder()
        return tuple([encoder.encode(event) for event in self.events])

    @cached_property
    def order(self) -> tuple[int, int, bytes]:
        """What is smaller comes first: fewer events, then fewer bytes, then lower values.

        Numbers are stored from their lowest byte on, so that each event is compared from its end.
        """
        raw = b"".join([one[::-1] for one in self.stored])
        return len(self.events), len(raw), raw

    @cached_property
    def digest(self) -> str:
        """A name that only an equal trace has."""
        head = self.header.to_msgpack()
        return hashlib.sha256(len(head).to_bytes(4) + head + b"".join(self.stored)).hexdigest()

    def blocks(self) -> Iterable[Block]:
        """Yield the events as a target takes them."""
        first, count, raw = 0, 0, bytearray()
        for piece in self.stored:
            raw += piece
            count += 1
            if count == BLOCK_EVENTS or len(raw) >= BLOCK_BYTES:
                yield Block(first, count, bytes(raw))
                first, count, raw = first + count, 0, bytearray()
        if count:
            yield Block(first, count, bytes(raw))


def read(path: Path) -> Trace:
    """Return the trace in a file of either form.

    Errors: DecodeError, HarnessError when it has too many events.
    """
    with open_events(path) as source:
        events: list[Event] = []
        for event in source:
            if len(events) == MOST_EVENTS:
                raise HarnessError(
                    f"{path}: more than {MOST_EVENTS} events; cut it with `dmarewind convert` first"
                )
            events.append(event)
        return Trace(source.header, tuple(events))


def checked(trace: Trace) -> Trace | None:
    """Return the trace, or None when no reader would take one of its events."""
    try:
        _ = trace.order
    except (FieldError, DecodeError):
        return None
    return trace
