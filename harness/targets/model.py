"""The Python model as a target: applies events and compares the observations that follow."""

from __future__ import annotations

from itertools import islice
from typing import assert_never

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Clock,
    ConfigSpace,
    Descriptor,
    DeviceReset,
    DeviceTlbMessage,
    Endpoint,
    Event,
    FaultRecord,
    FaultReport,
    Features,
    Gap,
    Interrupt,
    InterruptRequest,
    Observation,
    PageRequest,
    PageRequestRecord,
    PageResponse,
    RegRead,
    RegWrite,
    Release,
    Request,
    Reset,
    Snapshot,
    StatusWrite,
    Store,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from harness.targets.base import AnyConfig, ReplayTarget
from harness.targets.events import EventReplay
from harness.targets.virtio_model import VirtioModelReplay

_F = layout(FaultRecordRegister)["f"].mask
SOURCE_ID = 0xFFFF
"""The largest one; the endpoint ids of a virtio-iommu can be larger."""
LOOKAHEAD = 64
"""How many of the expected observations one that was seen is compared with."""


class ModelReplay(EventReplay):
    """Drive a VtdUnit with a trace."""

    def __init__(self, config: UnitConfig):
        super().__init__()
        self.unit = VtdUnit(config)
        self._ignored = config.dialect.fault_record_ignored | _F

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
            case InterruptRequest():
                self._flush()
                self._interrupt(event)
            case PageRequest():
                self._flush()
                self._page_request(event)
            case Reset():
                self._flush()
                unit.reset()
                self._lost = False
            case Gap():
                self._lose()
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
            case PageRequestRecord() | PageResponse() | DeviceTlbMessage():
                counters.device_messages += 1
                self._observe(event)
            case Release() | Clock():
                pass
            case (
                Request() | FaultReport() | Features() | ConfigSpace() | DeviceReset() | Endpoint()
            ):
                pass  # of a virtio-iommu
            case _:
                assert_never(event)
        self._report_all(unit.findings())
        self._expect(unit.emitted())
        counters.events += 1

    def _access(self, event: Access) -> None:
        counters = self._counters
        if event.sid > SOURCE_ID:
            place = f"trace.event[{counters.events}].sid"
            raise DecodeError(place, f"{event.sid:#x} is not a 16-bit source id")
        self._count_outcome(event)
        if self._lost:
            counters.unjudged += event.outcome is not None
            return
        self.unit.access(
            event.sid, event.pasid, event.iova, event.kind, event.outcome, event.attributes
        )
        found = self.unit.findings()
        self._report_all(found)
        if event.outcome is not None and not found:
            counters.agreed += 1

    def _interrupt(self, event: InterruptRequest) -> None:
        counters = self._counters
        counters.interrupt_requests += event.outcome is not None
        if self._lost:
            counters.unjudged += event.outcome is not None
            return
        self.unit.interrupt(event.sid, event.address, event.data, event.outcome)
        found = self.unit.findings()
        for finding in found:
            self._report(finding)
        if event.outcome is not None and not found:
            counters.agreed += 1

    def _page_request(self, event: PageRequest) -> None:
        self._counters.page_requests += 1
        if not self._lost:
            self.unit.page_request(event)

    def _register_read(self, offset: int, size: int, value: int | None) -> None:
        if value is not None:
            self.unit.adopt_read(offset, size, value)
        now = self.unit.read_register(offset, size)
        self._compare_register("register", value, now, self.unit.faults.undefined(offset, size))

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
        self._unexpected(seen)
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


def create(config: AnyConfig) -> ReplayTarget:
    """Build the target for a unit of either kind."""
    return ModelReplay(config) if isinstance(config, UnitConfig) else VirtioModelReplay(config)
