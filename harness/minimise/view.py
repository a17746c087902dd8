"""What the quadwords of a VT-d trace are, and what a change of them is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from decoders.events import Event, Role, Store
from decoders.layout import Layout, layout
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from harness.minimise.closure import read_by
from harness.minimise.ring import followed
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.replay import unit_config

QUADWORD: Final = 8


class View:
    """Say of each quadword of a trace what it is: an entry of a table, or part of a descriptor."""

    def __init__(self, trace: Trace) -> None:
        config = unit_config(trace.header)
        assert isinstance(config, UnitConfig)
        self.config, self.header = config, trace.header
        self.ring = followed(trace.events)
        self.events = self.ring.events
        reader = read_by(config, self.events)
        self.read = reader.words
        self.readers = reader.readers
        self.scalable = any(role == Role.SCALABLE_CONTEXT for role, _ in self.read.values())
        self.descriptors: dict[int, tuple[Layout, int]] = {}
        """Store that holds a word of a descriptor: its layout, and which word."""
        for one in self.ring.queued:
            shape = shape_of(one.words)
            for number in one.stores:
                store = self.events[number]
                if shape and isinstance(store, Store) and store.size == QUADWORD:
                    at = store.address - one.base - one.slot
                    self.descriptors[number] = shape, at // QUADWORD
        self.words = {n: one.words for one in self.ring.queued for n in one.stores}

    def trace(self, events: Iterable[Event]) -> Trace:
        """Return changed events as a trace."""
        return Trace(self.header, tuple(events))


def shape_of(words: Sequence[int]) -> Layout | None:
    """Return the layout of a descriptor, if its type is known."""
    found = DESCRIPTORS.get(descriptor_type(words[0])) if words else None
    return layout(found) if found else None


Change = Callable[[Event, int], Event]
"""Makes an event of a view smaller, given its number."""

Pass = tuple[int, Callable[[Collection[int]], Change]]
"""Number of edits, and what makes a change of some of them."""
