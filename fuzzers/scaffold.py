"""Lay an input between events: memory and registers before it, what makes the unit use it behind.

The same scaffold gives the events of an input, for the model, minimiser and exports, and runs in
the core without entering Python (core/scaffold.hpp).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Final, cast

from decoders.errors import DecodeError
from decoders.events import Access, Event, RegWrite, Role, Snapshot, Store
from harness.model.config import UnitConfig
from harness.native.loading import core, native_config
from harness.replay import unit_config
from harness.targets.model import SOURCE_ID
from harness.trace import Header
from harness.trace.codec import PAGE, Encoder, decode

if TYPE_CHECKING:
    from harness.native import _core

PAGE_BUDGET: Final = 1 << 12
DESCRIPTOR_BUDGET: Final = 1 << 10
"""What one input may cost; that is what makes a hang one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Make a part of the input the first bytes of a page, whose others are zero.

    For a real unit it may begin in the middle: start is where.
    """

    address: int
    size: int
    role: Role
    level: int = 0
    start: int = 0


@dataclass(frozen=True, slots=True)
class Tail:
    """Write the length of the first piece, in whole steps, to a register."""

    offset: int
    step: int


@dataclass(frozen=True)
class Scaffold:
    """Hold what stands around an input; without pieces the input is events itself.

    memory is what a reset leaves: stores and snapshots. fresh begins with an invalidation of
    everything: behind it nothing stale is permitted any more. It is for runs with a model only.
    """

    header: Header
    memory: tuple[Event, ...]
    before: tuple[Event, ...]
    pieces: tuple[Piece, ...]
    after: tuple[Event, ...]
    tail: Tail | None = None
    fresh: tuple[Event, ...] = ()

    @cached_property
    def config(self) -> UnitConfig:
        """Return what the unit is built from."""
        config = unit_config(
            self.header, page_budget=PAGE_BUDGET, descriptor_budget=DESCRIPTOR_BUDGET
        )
        return cast(UnitConfig, config)

    @property
    def size(self) -> int:
        """Return how many bytes of an input count, 0 where it is events."""
        return sum(piece.size for piece in self.pieces)

    def places(self) -> Iterator[int]:
        """Yield addresses that mean something here: of tables, of what is asked for, of targets."""
        yield from (piece.address for piece in self.pieces)
        for event in (*self.memory, *self.before, *self.after):
            if isinstance(event, Access):
                yield event.iova
            elif isinstance(event, Store):
                yield event.value & -PAGE

    def inner(self, data: bytes) -> Iterator[Event]:
        """Yield what an input itself becomes."""
        if not self.pieces:
            # At an id that no VT-d unit takes the core stops, too.
            yield from takewhile(_has_source, sound(data))
            return
        at = 0
        for piece in self.pieces:
            content = data[at : at + piece.size]
            at += len(content)
            page = bytes(piece.start) + content
            yield Snapshot(piece.address, piece.role, piece.level, page.ljust(PAGE, b"\0"))
        if self.tail is not None:
            length = min(len(data), self.pieces[0].size)
            yield RegWrite(self.tail.offset, 8, length - length % self.tail.step)

    def events(self, data: bytes) -> list[Event]:
        """Return all that an input makes a unit go through."""
        return [*self.memory, *self.before, *self.inner(data), *self.after, *self.fresh]

    def native(self) -> _core.Scaffold:
        """Return the same for the core."""
        tail = self.tail or Tail(0, 0)
        return cast(
            "_core.Scaffold",
            core().Scaffold(
                config=native_config(self.config),
                memory=encoded(self.memory),
                before=encoded(self.before),
                pieces=[(piece.address, piece.size) for piece in self.pieces],
                tail_offset=tail.offset,
                tail_step=tail.step,
                after=encoded(self.after),
            ),
        )


class Scaffolds:
    """Choose one of several scaffolds by the first byte of an input."""

    def __init__(self, choices: Sequence[Scaffold]) -> None:
        self.choices = tuple(choices)
        self._native: list[_core.Scaffold] = []

    def split(self, data: bytes) -> tuple[Scaffold, bytes]:
        """Return the scaffold of an input, and what goes into it."""
        return self.choices[data[0] % len(self.choices) if data else 0], data[1:]

    def native(self) -> _core.ScaffoldRuns:
        """Return what runs inputs in the core."""
        return self._runs(slice(None))

    def alone(self, data: bytes) -> _core.ScaffoldRuns:
        """Return what runs inputs with the same first byte: a new unit costs something."""
        chosen = data[0] % len(self.choices) if data else 0
        return self._runs(slice(chosen, chosen + 1))

    def _runs(self, which: slice) -> _core.ScaffoldRuns:
        if not self._native:
            self._native = [one.native() for one in self.choices]
        runs = core().ScaffoldRuns(self._native[which])
        return cast("_core.ScaffoldRuns", runs)


def encoded(events: Iterable[Event]) -> bytes:
    """Return the raw content of a block."""
    encoder = Encoder()
    return b"".join(map(encoder.encode, events))


def _has_source(event: Event) -> bool:
    return not isinstance(event, Access) or event.sid <= SOURCE_ID


def sound(data: bytes) -> Iterator[Event]:
    """Yield the events in front of the first damage."""
    events = decode(data, "input", 0)
    while True:
        try:
            event = next(events, None)
        except DecodeError:
            return
        if event is None:
            return
        yield event
