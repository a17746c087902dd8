"""The Python model of a virtio-iommu as a target: judges requests, accesses and fault reports."""

from __future__ import annotations

from collections import deque

from decoders.events import (
    Access,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Features,
    Gap,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from harness.findings import Finding, FindingKind
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from harness.targets.base import FINDINGS_KEPT, Counters
from harness.trace import Block
from harness.trace.codec import decode


class VirtioModelReplay:
    """Drive a VirtioUnit with a trace; events of other units are passed over."""

    name = "model"

    def __init__(self, config: VirtioConfig):
        self.unit = VirtioUnit(config)
        self._counters = Counters()
        self._findings: list[Finding] = []
        self._expected: deque[tuple[int, FaultReport]] = deque()
        self._lost = False
        self._any_report = False  # of the access before: its answer is unknown or of its own

    def feed(self, block: Block) -> None:
        """Apply the events of one block."""
        for event in decode(block.raw, "trace", block.first_event):
            self.apply(event)

    def finish(self) -> None:
        """Report what the unit did and the recording lacks."""
        self._flush()

    def counters(self) -> Counters:
        """Return the counts so far."""
        return self._counters

    def findings(self) -> list[Finding]:
        """Return the findings so far."""
        return self._findings

    def apply(self, event: Event) -> None:
        """Apply one event; its number is the count of those before it."""
        unit, counters = self.unit, self._counters
        unit.event = counters.events
        match event:
            case FaultReport():
                counters.fault_records += 1
                self._observe(event)
            case Access():
                self._flush()
                self._access(event)
            case Request():
                self._flush()
                self._request(event)
            case RegRead(offset, size, value):
                self._flush()
                self._register_read(offset, size, value)
            case RegWrite(offset, size, value):
                self._flush()
                unit.write_register(offset, size, value)
            case ConfigSpace(data):
                self._flush()
                unit.config_space(data)
            case Features(offered, accepted):
                unit.features(offered, accepted)
            case Endpoint(endpoint, regions):
                unit.endpoint(endpoint, regions)
            case DeviceReset():
                self._flush()
                unit.device_reset()
            case Reset():
                self._flush()
                unit.reset()
                self._lost = False
            case Gap():
                # What was lost may be a request: nothing can be judged until a reset.
                self._expected.clear()
                self._lost = True
            case _:
                pass
        for finding in unit.findings():
            self._report(finding)
        counters.events += 1

    def _report(self, finding: Finding) -> None:
        if self._lost:
            return
        self._counters.divergences += 1
        if len(self._findings) < FINDINGS_KEPT:
            self._findings.append(finding)

    def _access(self, event: Access) -> None:
        counters = self._counters
        counters.translations += isinstance(event.outcome, Translation)
        counters.faults += isinstance(event.outcome, Fault)
        if self._lost or event.outcome is None:
            counters.unjudged += event.outcome is not None
            self._any_report = not self._lost
            return
        self.unit.access(event.sid, event.iova, event.kind, event.outcome)
        found = self.unit.findings()
        for finding in found:
            self._report(finding)
        self._any_report = bool(found)
        counters.agreed += not found
        self._expected.extend((counters.events, seen) for seen in self.unit.emitted())

    def _request(self, event: Request) -> None:
        counters = self._counters
        counters.requests += 1
        self.unit.request(event.data, event.room, event.answer)
        found = self.unit.findings()
        for finding in found:
            self._report(finding)
        if event.answer is None:
            return
        if self._lost:
            counters.unjudged += 1
        else:
            counters.agreed += not found

    def _register_read(self, offset: int, size: int, value: int | None) -> None:
        if value is None:
            return
        self._counters.register_reads += 1
        if self._lost:
            self._counters.unjudged += 1
            return
        now = self.unit.read_register(offset, size)
        if now == value:
            self._counters.agreed += 1
            return
        number = self._counters.events
        self._report(Finding(number, FindingKind.DIVERGENCE, "config", value, (now,)))

    def _observe(self, seen: FaultReport) -> None:
        if self._lost:
            self._counters.unjudged += 1
            return
        if self._any_report:
            self._any_report = False
            return
        if self._expected and self.unit.same_report(self._expected[0][1], seen):
            self._expected.popleft()
            self._counters.agreed += 1
            return
        instead = (self._expected.popleft()[1],) if self._expected else ()
        number = self._counters.events
        self._report(Finding(number, FindingKind.DIVERGENCE, "fault-report", seen, instead))

    def _flush(self) -> None:
        self._any_report = False
        while self._expected:
            cause, expected = self._expected.popleft()
            self._report(Finding(cause, FindingKind.DIVERGENCE, "fault-report", None, (expected,)))
