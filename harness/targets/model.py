"""The Python model as a target: applies events and compares the observations that follow."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import assert_never

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Clock,
    ConfigSpace,
    Descriptor,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Features,
    Gap,
    Interrupt,
    Observation,
    RegRead,
    RegWrite,
    Release,
    Request,
    Reset,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from harness.findings import Finding, FindingKind
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from harness.targets.base import FINDINGS_KEPT, AnyConfig, Counters, ReplayTarget
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Block
from harness.trace.codec import decode

_F = layout(FaultRecordRegister)["f"].mask
SOURCE_ID = 0xFFFF
"""The largest one; the endpoint ids of a virtio-iommu can be larger."""
LOOKAHEAD = 64
"""How many of the expected observations one that was seen is compared with."""
SUBJECTS = {
    Descriptor: "descriptor",
    FaultRecord: "fault-record",
    StatusWrite: "status-write",
    Interrupt: "interrupt",
}
"""What a finding about an observation is called."""


class ModelReplay:
    """Drive a VtdUnit with a trace."""

    name = "model"

    def __init__(self, config: UnitConfig):
        self.unit = VtdUnit(config)
        self._counters = Counters()
        self._findings: list[Finding] = []
        self._expected: deque[tuple[int, Observation]] = deque()
        self._ignored = config.dialect.fault_record_ignored | _F
        self._lost = False

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
            case Store(address, size, value):
                unit.store(address, size, value)
            case Snapshot(address, _, _, data):
                unit.snapshot(address, data)
            case RegWrite(offset, size, value):
                self._flush()
                unit.write_register(offset, size, value)
            case RegRead(offset, size, value):
                self._flush()
                self._register_read(offset, size, value)
            case Access():
                self._flush()
                self._access(event)
            case Reset():
                self._flush()
                unit.reset()
                self._lost = False
            case Gap():
                # What was lost may be a store, a command or an answer: nothing can be judged
                # until a reset.
                self._expected.clear()
                self._lost = True
            case Descriptor():
                counters.descriptors += 1
                self._observe(event)
            case FaultRecord():
                counters.fault_records += 1
                self._observe(event)
            case StatusWrite():
                counters.status_writes += 1
                self._observe(event)
            case Interrupt():
                counters.interrupts += 1
                self._observe(event)
            case Release() | Clock():
                pass
            case (
                Request() | FaultReport() | Features() | ConfigSpace() | DeviceReset() | Endpoint()
            ):
                pass  # of a virtio-iommu
            case _:
                assert_never(event)
        for finding in unit.findings():
            self._report(finding)
        seen_now = unit.emitted()
        if not self._lost:
            self._expected.extend((counters.events, seen) for seen in seen_now)
        counters.events += 1

    def _report(self, finding: Finding) -> None:
        if self._lost:
            return
        self._counters.divergences += 1
        if len(self._findings) < FINDINGS_KEPT:
            self._findings.append(finding)

    def _access(self, event: Access) -> None:
        counters = self._counters
        if event.sid > SOURCE_ID:
            place = f"trace.event[{counters.events}].sid"
            raise DecodeError(place, f"{event.sid:#x} is not a 16-bit source id")
        match event.outcome:
            case Translation():
                counters.translations += 1
            case Fault():
                counters.faults += 1
            case None:
                pass
        if self._lost:
            counters.unjudged += event.outcome is not None
            return
        self.unit.access(event.sid, event.pasid, event.iova, event.kind, event.outcome)
        found = self.unit.findings()
        for finding in found:
            self._report(finding)
        if event.outcome is not None and not found:
            counters.agreed += 1

    def _register_read(self, offset: int, size: int, value: int | None) -> None:
        now = self.unit.read_register(offset, size)
        if value is None:
            return
        self._counters.register_reads += 1
        if self._lost:
            self._counters.unjudged += 1
            return
        if not (now ^ value) & ~self.unit.faults.undefined(offset, size):
            self._counters.agreed += 1
            return
        number = self._counters.events
        self._report(Finding(number, FindingKind.DIVERGENCE, "register", value, (now,)))

    def _observe(self, seen: Observation) -> None:
        """Match an observation with what the unit did; adopt it when the unit did not."""
        if self._lost:
            self._counters.unjudged += 1
            self.unit.adopt(seen)
            return
        expected = self._expected
        for index, (_, candidate) in enumerate(islice(expected, LOOKAHEAD)):
            if self._same(candidate, seen):
                for _ in range(index):
                    self._missing(*expected.popleft())
                expected.popleft()
                self._counters.agreed += 1
                return
        instead: tuple[Observation, ...] = ()
        if expected and type(expected[0][1]) is type(seen):
            instead = (expected.popleft()[1],)
        number, subject = self._counters.events, SUBJECTS[type(seen)]
        self._report(Finding(number, FindingKind.DIVERGENCE, subject, seen, instead))
        if isinstance(seen, Descriptor) and self.unit.queue.stopped:
            # All that is left are consequences of a queue error the recorded unit did not have.
            expected.clear()
        self.unit.adopt(seen)

    def _same(self, expected: Observation, seen: Observation) -> bool:
        if isinstance(expected, Descriptor) and isinstance(seen, Descriptor):
            return expected.words[: len(seen.words)] == seen.words
        if isinstance(expected, FaultRecord) and isinstance(seen, FaultRecord):
            same_place = (expected.index, expected.low) == (seen.index, seen.low)
            return same_place and not (expected.high ^ seen.high) & ~self._ignored
        return expected == seen

    def _missing(self, cause: int, expected: Observation) -> None:
        subject = SUBJECTS[type(expected)]
        self._report(Finding(cause, FindingKind.DIVERGENCE, subject, None, (expected,)))

    def _flush(self) -> None:
        while self._expected:
            self._missing(*self._expected.popleft())


def create(config: AnyConfig) -> ReplayTarget:
    """Build the target for a unit of either kind."""
    return ModelReplay(config) if isinstance(config, UnitConfig) else VirtioModelReplay(config)
