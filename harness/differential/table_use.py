"""Remember how accesses of a sequence have used table entries: what their A and D bits may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from decoders.events import Access, AccessKind, Fault, Store, Translation
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.paging import FirstStageEntry
from harness.model.translate import Candidate

_ENTRY: Final = layout(FirstStageEntry)
ACCESSED: Final = _ENTRY["a"].mask
DIRTY: Final = _ENTRY["d"].mask

_PASID_ENTRY: Final = range(Reason.PASID_DIRECTORY_ACCESS, Reason.PASID_INVALID + 1)
"""Faults that PASID structures give."""

_INTERRUPT_RANGE: Final = (Reason.INTERRUPT_RANGE, Reason.SM_INTERRUPT_RANGE)


class TableUse:
    """Follow which entries were read on the ways of accesses, and what became of them."""

    def __init__(self) -> None:
        self.unknown = False
        """An access did what no way does: what it read, and may have cached, is not known."""
        self.doubtful: set[int] = set()
        """Entries that were used, or not: on the ways of accesses with several outcomes, or on some
        of the ways to one outcome.
        """
        self.faulted: set[int] = set()
        """Entries on ways that ended in a fault, which may have set A before."""
        self.rewritten: set[int] = set()
        """Entries that software stored to after a use: they may be cached as they were."""
        self.read: set[int] = set()
        """Leaves that a read may have cached."""
        self.blocked: set[int] = set()
        """Leaves of accesses that were refused for leading into the interrupt range."""
        self.half: set[int] = set()
        """Leaves of writes that had one of A and D set when they were walked."""
        self._used: set[int] = set()

    def ways(self, access: Access, ways: Sequence[Candidate]) -> None:
        """Take note of the ways of an access that is about to be told of."""
        several = len({way.outcome for way in ways}) > 1
        trails: list[set[int]] = [{step.address for step in way.steps} for way in ways if way.steps]
        if trails:
            self.doubtful |= trails[0].union(*trails) - trails[0].intersection(*trails)
        for way in ways:
            places = {step.address for step in way.steps}
            self._used |= places
            if several:
                self.doubtful |= places
            if isinstance(way.outcome, Fault):
                self.faulted |= places
                if way.steps and way.outcome.reason in _INTERRUPT_RANGE:
                    self.blocked.add(way.steps[-1].address)
            elif way.steps and access.kind is AccessKind.READ:
                self.read.add(way.steps[-1].address)
            elif way.steps and way.steps[-1].value & (ACCESSED | DIRTY) in (ACCESSED, DIRTY):
                self.half.add(way.steps[-1].address)

    def stored(self, store: Store) -> None:
        """Take note of a store of software."""
        place = store.address & -8
        if place in self._used:
            self.rewritten.add(place)

    def doubt(self, ways: Sequence[Candidate]) -> None:
        """Take note of an access that may have gone another way than the model's."""
        self.doubtful.update(step.address for way in ways for step in way.steps)

    def unseen(self, outcome: object) -> None:
        """Take note of what an access is taken to have done that left nothing.

        QEMU is known to use PASID entries that it should not (pasid-present-unchecked): then it has
        walked tables though it should have stopped there, and no record says so.
        """
        self.unknown |= isinstance(outcome, Fault) and outcome.reason in _PASID_ENTRY

    def led(self, outcome: object) -> None:
        """Take note of what an access did that nothing explains."""
        self.unknown |= isinstance(outcome, Translation | Fault)
