"""Cut a trace into pieces that are left out as wholes, and put what remains together again.

A piece is a stimulus with the observations that follow it, or a queued descriptor: its stores and
what was seen of it. Descriptors that remain are packed: each moves to the slot behind the one
before, writes of the tail follow, and what is read of head and tail. Nothing is left in the ring
where a descriptor was: zeros there are a descriptor of an unknown type, which stops the queue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from decoders.events import Event, Observation, RegRead, RegWrite, Store
from harness.minimise.ring import Ring, followed
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.model.queue import IQT
from harness.replay import unit_config

_TAIL: Final = IQT["qt"].mask


@dataclass(frozen=True, slots=True)
class Piece:
    """Name the events of a piece; queued is the number of its descriptor, -1 for others."""

    events: tuple[int, ...]
    queued: int = -1


class Cut:
    """A trace in pieces; `trace` is the one they make up.

    With single, each event is a piece of its own. With explicit, every descriptor becomes one of
    stores; without, a trace in which one is not has no descriptors that can be packed.
    """

    def __init__(self, trace: Trace, single: bool = False, explicit: bool = False) -> None:
        self._header = trace.header
        if isinstance(unit_config(trace.header), UnitConfig):
            self.ring = followed(trace.events, explicit)
        else:
            self.ring = Ring(list(trace.events))
        self._owner = {
            number: index
            for index, one in enumerate(self.ring.queued)
            for number in (*one.stores, *one.seen)
        }
        self._seen = {number for one in self.ring.queued for number in one.seen}
        self.pieces = self._singles() if single else self._whole()
        self.trace = self.without(())

    def _singles(self) -> list[Piece]:
        count = len(self.ring.events)
        return [Piece((number,), self._owner.get(number, -1)) for number in range(count)]

    def _whole(self) -> list[Piece]:
        """Return the pieces in the order of their first events."""
        found: list[tuple[list[int], int]] = []
        place: dict[int, int] = {}
        for number, event in enumerate(self.ring.events):
            index = self._owner.get(number, -1)
            if index >= 0:
                if index not in place:
                    place[index] = len(found)
                    found.append(([], index))
                found[place[index]][0].append(number)
            elif isinstance(event, Observation) and found:
                # What a unit does follows what made it do so.
                back = self._stimulus(found)
                found[back][0].append(number)
            else:
                found.append(([number], -1))
        return [Piece(tuple(events), queued) for events, queued in found]

    def _stimulus(self, found: Sequence[tuple[list[int], int]]) -> int:
        back = len(found) - 1
        while back and (found[back][1] >= 0 or self._passive(found[back][0][0])):
            back -= 1
        return back

    def _passive(self, number: int) -> bool:
        return isinstance(self.ring.events[number], Store)

    def piece_of(self) -> dict[int, int]:
        """Return the piece of each event, by number."""
        return {event: index for index, one in enumerate(self.pieces) for event in one.events}

    def until(self, last: int) -> set[int]:
        """Return the pieces that begin no later than an event."""
        return {index for index, one in enumerate(self.pieces) if one.events[0] <= last}

    # -- putting together --------------------------------------------------------------------

    def without(self, left_out: Collection[int]) -> Trace:
        """Return the trace without some pieces."""
        gone = {event for index in left_out for event in self.pieces[index].events}
        return self.of([n for n in range(len(self.ring.events)) if n not in gone])

    def of(self, kept: Sequence[int]) -> Trace:
        """Return the trace of some events, whose descriptors are packed."""
        if not self.ring.queued:
            return Trace(self._header, tuple([self.ring.events[number] for number in kept]))
        return Trace(self._header, tuple(_Packing(self.ring, self._owner, self._seen, kept).made))


class _Packing:
    """Go through the events that remain; `made` is the result."""

    def __init__(
        self, ring: Ring, owner: dict[int, int], seen: Collection[int], kept: Sequence[int]
    ) -> None:
        self._ring = ring
        self._left = {owner[n] for n in kept if n in owner and n not in seen}
        self._places: dict[int, int] = {}
        self._ends = self._packed()
        self._handed = 0  # descriptors that were handed over, of all there were
        self._shown = 0  # of them, those whose observations have been put in
        self._enabling = {one.started for one in ring.queued if one.started != one.tail}
        self.made: list[Event] = []
        self._observed: dict[int, list[Event]] = {}
        for number in kept:
            if number in seen and owner[number] in self._left:
                self._observed.setdefault(owner[number], []).append(ring.events[number])
        for number in kept:
            if number not in seen:
                self._one(number, owner.get(number, -1))

    def _packed(self) -> list[int]:
        """Place the descriptors that remain; return where the queue then ends behind each."""
        ends: list[int] = []
        at, life = 0, -1
        for index, one in enumerate(self._ring.queued):
            if one.life != life:
                at, life = 0, one.life
            if index in self._left:
                self._places[index] = at
                at = (at + one.step) % one.size
            ends.append(at)
        return ends

    def _one(self, number: int, owner: int) -> None:
        event, ring = self._ring.events[number], self._ring
        if owner >= 0 and isinstance(event, Store):
            self.made.append(self._moved(event, owner))
        elif number in ring.repairs and isinstance(event, Store):
            if ring.repairs[number] in self._left:
                self.made.append(self._moved(event, ring.repairs[number]))
        elif number in ring.tails and isinstance(event, RegWrite):
            self._tail(number, event)
        elif number in ring.reads and isinstance(event, RegRead) and event.value is not None:
            position = self._end_behind(ring.reads[number])
            self.made.append(replace(event, value=event.value & ~_TAIL | position))
        else:
            self.made.append(event)
            if number in self._enabling:
                self._show(number)

    def _moved(self, store: Store, index: int) -> Store:
        one = self._ring.queued[index]
        return replace(store, address=store.address - one.slot + self._places[index])

    def _tail(self, number: int, event: RegWrite) -> None:
        """Write the tail behind what has been handed over; leave out a write that adds nothing."""
        count = self._ring.tails[number]
        added = any(index in self._left for index in range(self._handed, count))
        had = self._handed < count and self._ring.queued[count - 1].tail == number
        self._handed = max(self._handed, count)
        if had and not added:
            return
        position = self._end_behind(count - 1)
        self.made.append(replace(event, value=event.value & ~_TAIL | position))
        self._show(number)

    def _end_behind(self, index: int) -> int:
        return self._ends[index] if index >= 0 else 0

    def _show(self, number: int) -> None:
        """Put what was seen of the descriptors that have run behind the event that ran them."""
        queued = self._ring.queued
        while self._shown < self._handed and queued[self._shown].started <= number:
            self.made += self._observed.get(self._shown, ())
            self._shown += 1
