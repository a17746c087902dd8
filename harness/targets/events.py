"""What the model's targets of both kinds of units share: counts, findings, what is expected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Interrupt,
    Observation,
    PageRequestRecord,
    PageResponse,
    StatusWrite,
    Translation,
)
from harness.findings import Finding, FindingKind, Kept
from harness.targets.base import Counters
from harness.trace import Block
from harness.trace.codec import decode

SUBJECTS: dict[type[Observation], str] = {
    Descriptor: "descriptor",
    FaultRecord: "fault-record",
    StatusWrite: "status-write",
    Interrupt: "interrupt",
    FaultReport: "fault-report",
    PageRequestRecord: "page-request-record",
    PageResponse: "page-response",
    DeviceTlbMessage: "device-tlb",
}
"""What a finding about an observation is called."""


class EventReplay(ABC):
    """Apply events one by one, and compare the observations that follow."""

    name = "model"

    def __init__(self) -> None:
        self._counters = Counters()
        self._kept = Kept()
        self._expected: deque[tuple[int, Observation]] = deque()
        self._lost = False  # something was, and there was no reset since

    def feed(self, block: Block) -> None:
        """Apply the events of one block."""
        for event in decode(block.raw, block.path, block.first_event, block.offset):
            self.apply(event)

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Apply one event; its number is the count of those before it."""

    def expected(self) -> list[Observation]:
        """Return what is expected to be seen next, and has not been yet."""
        return [seen for _, seen in self._expected]

    def finish(self) -> None:
        """Report what the unit did and the recording lacks."""
        self._flush()

    def counters(self) -> Counters:
        """Return the counts so far."""
        return self._counters

    def findings(self) -> list[Finding]:
        """Return the findings so far."""
        return self._kept.findings

    def due(self) -> Observation | None:
        """Return what the unit did that no event has shown yet, the first of it."""
        return self._expected[0][1] if self._expected else None

    def _lose(self) -> None:
        """Judge nothing until a reset: what was lost may be a store, a command or an answer."""
        self._expected.clear()
        self._lost = True

    def _count_outcome(self, event: Access) -> None:
        self._counters.translations += isinstance(event.outcome, Translation)
        self._counters.faults += isinstance(event.outcome, Fault)

    def _expect(self, emitted: Iterable[Observation]) -> None:
        """Expect what a unit was seen doing."""
        if not self._lost:
            self._expected.extend((self._counters.events, seen) for seen in emitted)

    def _report(self, finding: Finding) -> None:
        if self._lost:
            return
        self._counters.divergences += 1
        self._kept.add(finding)

    def _report_all(self, found: Iterable[Finding]) -> None:
        for finding in found:
            self._report(finding)

    def _compare_register(self, subject: str, value: int | None, now: int, undefined: int) -> None:
        """Compare what a register read returned, but for undefined bits."""
        if value is None:
            return
        self._counters.register_reads += 1
        if self._lost:
            self._counters.unjudged += 1
        elif not (now ^ value) & ~undefined:
            self._counters.agreed += 1
        else:
            number = self._counters.events
            self._report(Finding(number, FindingKind.DIVERGENCE, subject, value, (now,)))

    def _unexpected(self, seen: Observation) -> None:
        """Report an observation that nothing expected, or something else of its kind."""
        instead: tuple[Observation, ...] = ()
        if self._expected and type(self._expected[0][1]) is type(seen):
            instead = (self._expected.popleft()[1],)
        number, subject = self._counters.events, SUBJECTS[type(seen)]
        self._report(Finding(number, FindingKind.DIVERGENCE, subject, seen, instead))

    def _missing(self, cause: int, expected: Observation) -> None:
        subject = SUBJECTS[type(expected)]
        self._report(Finding(cause, FindingKind.DIVERGENCE, subject, None, (expected,)))

    def _flush(self) -> None:
        while self._expected:
            self._missing(*self._expected.popleft())
