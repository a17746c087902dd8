"""Follow what software does to the invalidation queue: which store belongs to which descriptor.

This is the software's side (VT-d 6.5.2): a descriptor is what lies in a slot when a write of the
tail hands it over, whatever the unit then makes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from decoders.events import (
    Descriptor,
    DeviceTlbMessage,
    Event,
    Interrupt,
    PageResponse,
    RegRead,
    RegWrite,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTOR_SIZES, InvalidationWait
from decoders.vtd.registers import GlobalCommand
from harness.memory import PAGE_SIZE, Memory
from harness.model.queue import IQA, IQT, QUEUE_UNIT

_QIE: Final = layout(GlobalCommand)["qie"].mask
_WAIT: Final = layout(InvalidationWait)
_QUADWORD: Final = 8
_MORE_THAN_EVENTS: Final = 1 << 16
"""Descriptors that there may be beside one for each event: one write may hand a ring over."""


@dataclass(slots=True)
class Queued:
    """Hold one descriptor: the slot it was put in, and the events that are about it.

    tail is the number of the event that handed it over (a write of the tail), started that of the
    event behind which it ran, which is another where the queue was enabled later. life counts how
    often the queue was enabled.
    """

    slot: int
    base: int
    step: int
    size: int
    tail: int
    started: int
    life: int
    stores: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    words: tuple[int, ...] = ()


@dataclass(slots=True)
class Ring:
    """What was found: events (some made explicit), descriptors, and events that name a slot."""

    events: list[Event]
    queued: list[Queued] = field(default_factory=list)
    tails: dict[int, int] = field(default_factory=dict)
    """Event that writes the tail, or enables the queue: how many descriptors came before."""
    reads: dict[int, int] = field(default_factory=dict)
    """Event that reads a position: the descriptor that ends there, -1 for the beginning."""
    repairs: dict[int, int] = field(default_factory=dict)
    """Store to a slot that was handed over before: the descriptor."""


def followed(events: Sequence[Event], explicit: bool = False) -> Ring:
    """Return what is known of the queue of a VT-d trace.

    Where a descriptor is not stored as a whole before it is handed over, stores are put in with
    explicit; without, nothing is known.
    """
    try:
        whole = _explicit(events)
        known = explicit or len(whole) == len(events)
        return _Follower(whole).ring if known else Ring(list(events))
    except _TooManyError:
        return Ring(list(events))


def _explicit(events: Sequence[Event]) -> list[Event]:
    """Return events in which each descriptor is stored as a whole before it is handed over.

    A recording may have a descriptor in the page's snapshot, or left from the ring's last round.
    """
    follower = _Follower(events)
    before: dict[int, list[Store]] = {}
    for one in follower.ring.queued:
        missing = [
            Store(one.base + one.slot + at, _QUADWORD, word)
            for at, word in follower.uncovered.get((one.tail, one.slot), ())
        ]
        before.setdefault(one.tail, []).extend(missing)
    found: list[Event] = []
    for number, event in enumerate(events):
        found += before.get(number, ())
        if isinstance(event, Snapshot) and event.role == Role.QUEUE and follower.ring.queued:
            event = replace(event, data=bytes(PAGE_SIZE))
        found.append(event)
    return found


class _TooManyError(Exception):
    """Say that a trace hands over more descriptors than are worth following."""


class _Follower:
    """Go through events once; `ring` is the result."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.ring = Ring(list(events))
        self.uncovered: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._memory = Memory(page_budget=len(events) * 2 + 64)
        self._stores: dict[int, list[int]] = {}
        self._latest: dict[int, int] = {}
        self._unseen: deque[int] = deque()
        self._last = -1  # the descriptor that an observation was last about
        self._iqa = self._iqt = 0
        self._tail_written = -1
        self._enabled = False
        self._life = 0
        self._base = self._size = self._tail = 0
        self._step = DESCRIPTOR_SIZES[0]
        for number, event in enumerate(events):
            self._follow(number, event)

    def _follow(self, number: int, event: Event) -> None:
        match event:
            case Store(address, size, value):
                self._memory.write(address, value.to_bytes(size, "little"))
                slot = address - self._base
                if self._enabled and 0 <= slot < self._size:
                    self._stores.setdefault(slot - slot % self._step, []).append(number)
                elif not self._enabled and self._iqa:
                    self._early(number, address)
            case Snapshot(address, _, _, data):
                self._memory.write(address, data)
            case RegWrite():
                self._last = -1
                self._register(number, event)
            case RegRead(offset, _, value) if value is not None and self._enabled:
                if offset in (vtd.IQH.offset, vtd.IQT.offset):
                    self.ring.reads[number] = self._ending_at(value)
            case Reset():
                self._iqa = self._iqt = 0
                self._stop()
            case Descriptor(words):
                self._seen(number, words)
            case StatusWrite(address, value):
                self._waited(number, address, value)
            case Interrupt() | DeviceTlbMessage() | PageResponse() if self._last >= 0:
                self.ring.queued[self._last].seen.append(number)
            case _:
                pass

    def _early(self, number: int, address: int) -> None:
        """Take a store to a queue that is set up and not enabled yet."""
        words = (self._iqa,)
        slot = address - IQA["iqa"].address(words)
        step = DESCRIPTOR_SIZES[IQA["dw"].get(words)]
        if 0 <= slot < QUEUE_UNIT << IQA["qs"].get(words):
            self._stores.setdefault(slot - slot % step, []).append(number)

    def _register(self, number: int, event: RegWrite) -> None:
        offset, size, value = event.offset, event.size, event.value
        if offset == vtd.IQA.offset:
            high = self._iqa & ~0xFFFF_FFFF if size == 4 else 0
            self._iqa = high | value
            if not self._enabled:
                self._stores.clear()
        elif offset == vtd.IQA.offset + 4 and size == 4:
            self._iqa = self._iqa & 0xFFFF_FFFF | value << 32
        elif offset == vtd.IQT.offset:
            self._iqt, self._tail_written = value, number
            if self._enabled:
                self._hand_over(number, number)
        elif offset == vtd.GCMD.offset:
            if value & _QIE and not self._enabled:
                self._start(number)
            elif not value & _QIE and self._enabled:
                self._stop()

    def _start(self, number: int) -> None:
        words = (self._iqa,)
        self._base = IQA["iqa"].address(words)
        self._size = QUEUE_UNIT << IQA["qs"].get(words)
        self._step = DESCRIPTOR_SIZES[IQA["dw"].get(words)]
        self._enabled, self._tail = True, 0
        self._life += 1
        if self._tail_written >= 0 and IQT["qt"].address((self._iqt,)):
            self._hand_over(self._tail_written, number)

    def _stop(self) -> None:
        self._enabled, self._tail, self._tail_written = False, 0, -1
        self._stores.clear()
        self._latest.clear()
        self._unseen.clear()
        self._last = -1

    def _hand_over(self, tail: int, started: int) -> None:
        end = IQT["qt"].address((self._iqt,))
        if end >= self._size or end % self._step:
            return  # an error of software: the write stays as it is
        if end == self._tail:
            self._repair()
        while self._tail != end:
            self._submit(self._tail, tail, started)
            self._tail = (self._tail + self._step) % self._size
        self.ring.tails[tail] = len(self.ring.queued)

    def _submit(self, slot: int, tail: int, started: int) -> None:
        queued = self.ring.queued
        if len(queued) > len(self.ring.events) + _MORE_THAN_EVENTS:
            raise _TooManyError
        one = Queued(slot, self._base, self._step, self._size, tail, started, self._life)
        one.stores = self._stores.pop(slot, [])
        at = self._base + slot
        data = self._memory.read(at, self._step)
        one.words = tuple(
            int.from_bytes(data[n : n + _QUADWORD], "little")
            for n in range(0, self._step, _QUADWORD)
        )
        written = set(self._bytes_of(one.stores, at))
        missing = [
            (n * _QUADWORD, word)
            for n, word in enumerate(one.words)
            if not written.issuperset(range(n * _QUADWORD, n * _QUADWORD + _QUADWORD))
            and (word or slot in self._latest)
        ]
        if not missing and not one.stores:
            missing = [(0, one.words[0])]
        if missing:
            self.uncovered[tail, slot] = missing
        self._latest[slot] = len(queued)
        self._unseen.append(len(queued))
        queued.append(one)

    def _bytes_of(self, stores: Sequence[int], start: int) -> Iterator[int]:
        for number in stores:
            store = self.ring.events[number]
            assert isinstance(store, Store)
            yield from range(store.address - start, store.address - start + store.size)

    def _repair(self) -> None:
        """Take stores to slots that were handed over before: the tail was written once more."""
        for slot, stores in list(self._stores.items()):
            if slot not in self._latest:
                continue
            for number in stores:
                self.ring.repairs[number] = self._latest[slot]
            del self._stores[slot]

    def _ending_at(self, value: int) -> int:
        slot = (IQT["qt"].address((value,)) - self._step) % self._size
        return self._latest.get(slot, -1)

    # -- observations ------------------------------------------------------------------------

    def _seen(self, number: int, words: tuple[int, ...]) -> None:
        """Find the descriptor that was seen being taken; those before it do not show."""
        for position, index in enumerate(self._unseen):
            if self.ring.queued[index].words[: len(words)] == words:
                for _ in range(position + 1):
                    self._unseen.popleft()
                self.ring.queued[index].seen.append(number)
                self._last = index
                return
        self._last = -1

    def _waited(self, number: int, address: int, value: int) -> None:
        wanted = address, value

        def asks(index: int) -> bool:
            words = self.ring.queued[index].words
            return (_WAIT["staddr"].address(words), _WAIT["stdata"].get(words)) == wanted

        if self._last >= 0 and asks(self._last):
            self.ring.queued[self._last].seen.append(number)
            return
        for position, index in enumerate(self._unseen):
            if asks(index):
                for _ in range(position + 1):
                    self._unseen.popleft()
                self.ring.queued[index].seen.append(number)
                return
        if self._last >= 0:
            self.ring.queued[self._last].seen.append(number)
