"""Recordings of real guests: what is found in them is known, and one edit gives one violation."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from decoders.events import Descriptor, Event, RegWrite, Role, Snapshot, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import IotlbInvalidation, descriptor_type
from decoders.vtd.registers import GlobalCommand
from harness.check.command import config_of, watch
from harness.check.rules import Notebook
from harness.trace import Header, open_events
from tests.harness.check.test_mistakes import broken
from tests.harness.replay.edits import Beginning, misdirected_invalidations
from tests.harness.replay.test_shipped_traces import SHIPPED

TRACES = SHIPPED["vtd"]
EVERY = [path for paths in SHIPPED.values() for path in paths]
FIRST = 6_000
KNOWN = {"passthrough": {"present-set-early": 6}}
"""What guests really do; docs/check.md explains it."""
REMAPPED = "scalable-first-stage"
"""The recording that has a place for an invalidation to go astray."""
GCMD = layout(GlobalCommand)
IOTLB = layout(IotlbInvalidation)
Planted = Iterator[tuple[dict[int, Event], str, int]]
"""Events to put in the place of others, the rule that they break, and where."""


@dataclass(frozen=True)
class Start:
    """The first events of a recording."""

    path: Path
    header: Header
    events: list[Event]


Plant = Callable[[Start], Planted]


@functools.cache
def beginning(path: Path) -> Start:
    with open_events(path) as source:
        return Start(path, source.header, list(source.events(0, FIRST)))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_what_is_found_in_a_recording(path: Path) -> None:
    stop = None if os.environ.get("DMAREWIND_REQUIRE") == "all" else FIRST
    notes = Notebook()
    with open_events(path) as source:
        watch(config_of(source.header), islice(source, stop), notes)
    assert Counter(one.rule.id for one in notes.kept) == KNOWN.get(path.stem, {})


# -- mistakes ------------------------------------------------------------------------------------


def commands(start: Start, name: str) -> Iterator[tuple[int, RegWrite]]:
    """Yield the writes that set a level bit of GCMD."""
    levels = 0
    for number, event in enumerate(start.events):
        if isinstance(event, RegWrite) and event.offset == vtd.GCMD.offset:
            if event.value & ~levels & GCMD[name].mask:
                yield number, event
            levels = event.value


def second_command(start: Start) -> Planted:
    """Let the command that enables translation set the fault log, too."""
    for number, event in commands(start, "te"):
        value = event.value | GCMD["sfl"].mask
        yield {number: RegWrite(event.offset, event.size, value)}, "two-commands", number


def descriptor_is(start: Start, number: int, low: int) -> bool:
    """Say whether an event is a descriptor that begins like this."""
    event = start.events[number]
    return isinstance(event, Descriptor) and event.words[0] == low


def smaller_flush(start: Start) -> Planted:
    """Let the IOTLB invalidation behind the root table name one domain."""
    for enabled, _ in commands(start, "te"):
        for number, event in enumerate(start.events[:enabled]):
            if isinstance(event, Store) and event.value == 0xD2:
                seen = next(n for n in range(number, enabled) if descriptor_is(start, n, 0xD2))
                changed: dict[int, Event] = {
                    number: Store(event.address, 8, 0xE2),
                    seen: Descriptor((0xE2, 0)),
                }
                yield changed, "root-not-flushed", enabled


def present_first(start: Start) -> Planted:
    """Swap the last two stores to an entry: the present bit comes before the domain."""
    pages = {
        event.address
        for event in start.events
        if isinstance(event, Snapshot) and event.role is Role.CONTEXT
    }
    before: dict[int, tuple[int, Store]] = {}
    for number, event in enumerate(start.events):
        if not isinstance(event, Store) or event.address & -0x1000 not in pages:
            continue
        entry = event.address & -16
        earlier = before.get(entry)
        first = event.address == entry and event.value & 1
        if first and earlier is not None and earlier[1].address != entry:
            place, store = earlier
            yield {place: event, number: store}, "present-set-early", number
        before[entry] = number, event


def reserved_bit(start: Start) -> Planted:
    """Set an address bit beyond the host address width in the first leaves."""
    leaves = {
        event.address for event in start.events if isinstance(event, Snapshot) and event.level == 1
    }
    for number, event in enumerate(start.events):
        if isinstance(event, Store) and event.address & -0x1000 in leaves and event.value & 1:
            other = Store(event.address, event.size, event.value | 1 << 50)
            yield {number: other}, "paging-entry-reserved", number


def doorbells(start: Start) -> Iterator[tuple[int, RegWrite]]:
    """Yield the writes of the queue's tail."""
    for number, event in enumerate(start.events):
        if isinstance(event, RegWrite) and event.offset == vtd.IQT.offset and event.value:
            yield number, event


def crooked_tail(start: Start) -> Planted:
    """Put the tail between two descriptors."""
    for number, event in doorbells(start):
        other = RegWrite(event.offset, event.size, event.value + 8)
        yield {number: other}, "tail-misaligned", number


def reserved_descriptor(start: Start) -> Planted:
    """Set a reserved bit of an IOTLB invalidation in the queue."""
    last: tuple[int, Store] | None = None
    rings = {e.address for e in start.events if isinstance(e, Snapshot) and e.role is Role.QUEUE}
    for number, event in enumerate(start.events):
        if isinstance(event, Store) and event.address & -0x1000 in rings:
            kind = descriptor_type(event.value)
            if event.address % 16 == 0 and kind == 2 and IOTLB["g"].get((event.value,)):
                last = number, event
        elif isinstance(event, RegWrite) and last is not None:
            place, store = last
            other = Store(store.address, 8, store.value | 1 << 40)
            yield {place: other}, "descriptor-reserved", number
            last = None


def misdirected(start: Start) -> Planted:
    """Let an invalidation name another page than the one whose mapping was changed."""
    if start.path.stem != REMAPPED:
        return
    whole = Beginning.of(start.path)
    for edit in misdirected_invalidations(whole.probe):
        edited = whole.edited(edit)
        changed = {n: edited[n] for n in edit.lines}
        yield changed, "mapping-not-invalidated", edit.event


PLANTS: dict[Plant, int] = {
    second_command: 9,
    smaller_flush: 9,
    present_first: 7,
    reserved_bit: 7,
    crooked_tail: 9,
    reserved_descriptor: 8,
    misdirected: 1,
}
"""Mistakes, and how many of the recordings must have a place for one."""
EACH = 2


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(plant: Plant) -> None:
    places = 0
    wrong = []
    for path in TRACES:
        start = beginning(path)
        known = KNOWN.get(path.stem, {})
        planted = list(islice((one for one in plant(start) if one[1] not in known), EACH))
        places += bool(planted)
        for changed, rule, number in planted:
            stop = max(number, *changed) + 1500
            events = [changed.get(n, event) for n, event in enumerate(start.events[:stop])]
            found = [one for one in broken(config_of(start.header), events) if one[0] not in known]
            if found != [(rule, number)]:
                wrong.append((path.stem, rule, number, found))
    assert wrong == []
    assert places >= PLANTS[plant]
