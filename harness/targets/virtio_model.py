"""The Python model of a virtio-iommu as a target: judges requests, accesses and fault reports."""

from __future__ import annotations

from decoders.events import (
    Access,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    FaultReport,
    Features,
    Gap,
    RegRead,
    RegWrite,
    Request,
    Reset,
)
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from harness.targets.events import EventReplay


class VirtioModelReplay(EventReplay):
    """Drive a VirtioUnit with a trace; events of other units are passed over."""

    def __init__(self, config: VirtioConfig):
        super().__init__()
        self.unit = VirtioUnit(config)
        self._any_report = False  # of the access before: its answer is unknown or of its own

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
                self._lose()
            case _:
                pass
        self._report_all(unit.findings())
        counters.events += 1

    def _access(self, event: Access) -> None:
        counters = self._counters
        self._count_outcome(event)
        if self._lost or event.outcome is None:
            counters.unjudged += event.outcome is not None
            self._any_report = not self._lost
            return
        self.unit.access(event.sid, event.iova, event.kind, event.outcome)
        found = self.unit.findings()
        self._report_all(found)
        self._any_report = bool(found)
        counters.agreed += not found
        self._expect(self.unit.emitted())

    def _request(self, event: Request) -> None:
        counters = self._counters
        counters.requests += 1
        permitted = self.unit.request(event.data, event.room, event.answer)
        found = self.unit.findings()
        self._report_all(found)
        if event.answer is None:
            self._unanswered(permitted)
            return
        if self._lost or not (permitted or found):
            counters.unjudged += 1
        else:
            counters.agreed += not found

    def _unanswered(self, permitted: tuple[bytes, ...]) -> None:
        """Take a request without an answer: that was not recorded."""

    def _register_read(self, offset: int, size: int, value: int | None) -> None:
        self._compare_register("config", value, self.unit.read_register(offset, size), 0)

    def _observe(self, seen: FaultReport) -> None:
        if self._lost:
            self._counters.unjudged += 1
            return
        if self._any_report:
            self._any_report = False
            return
        expected = self._expected[0][1] if self._expected else None
        if isinstance(expected, FaultReport) and self.unit.same_report(expected, seen):
            self._expected.popleft()
            self._counters.agreed += 1
            return
        self._unexpected(seen)

    def _flush(self) -> None:
        self._any_report = False
        super()._flush()
