"""The two implementations of a virtio-iommu, in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from decoders.events import (
    Access,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    FaultReport,
    Features,
    RegRead,
    RegWrite,
    Request,
    Reset,
)
from decoders.virtio_iommu.config import CONFIG_SIZE
from harness.differential.pair import Pair
from harness.findings import Finding
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from harness.native import NativeVirtioUnit

_FLAGS: Final = (0, 1, 2, 4, 0x100, 0x101, 0x102, 0x104, 0x200)
"""Flags of fault reports that both are asked about: do they stand for the expected one?"""

INSPECTED: Final = 8
"""Events between two looks at all mappings."""


class VirtioPair(Pair):
    """Apply operations or events to two virtio-iommus and compare their answers."""

    def __init__(self, config: VirtioConfig) -> None:
        super().__init__()
        self.model, self.native = VirtioUnit(config), NativeVirtioUnit(config)
        self.findings: Sequence[Finding] = ()
        self.emitted: Sequence[FaultReport] = ()
        self._expected: deque[FaultReport] = deque()
        self._done: dict[type[Event], Callable[[Any], Any]] = {
            Request: lambda e: self.operate("request", e.data, e.room, e.answer),
            Access: lambda e: self.operate("access", e.sid, e.iova, e.kind, e.outcome),
            RegWrite: lambda e: self.operate("write_register", e.offset, e.size, e.value),
            RegRead: lambda e: self.operate("read_register", e.offset, e.size),
            ConfigSpace: lambda e: self.operate("config_space", e.data),
            Features: lambda e: self.operate("features", e.offered, e.accepted),
            Endpoint: lambda e: self.operate("endpoint", e.endpoint, e.regions),
            DeviceReset: lambda e: self.operate("device_reset"),
            Reset: lambda e: self.operate("reset"),
            FaultReport: self._observe,
        }

    def apply(self, event: Event) -> Any:
        """Apply an event to both; return the answers permitted to a request or an access."""
        done = self._done.get(type(event))
        if done is None:
            self.events += 1  # of another kind of unit, or about the recording
            return None
        answer = done(event)
        if self.events % INSPECTED == 0:
            self._compare_domains()
        return answer

    def operate(self, name: str, *arguments: Any) -> Any:
        """Call a method of both units and compare all that can be seen at once."""
        self.model.event = self.native.event = self.events
        ours, theirs = getattr(self.model, name), getattr(self.native, name)
        answer, other = self.both(lambda: ours(*arguments), lambda: theirs(*arguments))
        if answer != other:
            self.differ(name, answer, other)
        self.findings = self.model.findings()
        found = self.native.findings()
        if self.findings != found:
            self.differ("findings", self.findings, found)
        self.emitted = self.model.emitted()
        seen = self.native.emitted()
        if self.emitted != seen:
            self.differ("fault reports", self.emitted, seen)
        for report in self.emitted:
            for flags in _FLAGS:
                self._same_report(report, replace(report, flags=flags))
        if name != "same_report":
            self._expected.clear()
        self._expected.extend(self.emitted)
        self.events += 1
        return answer

    def compare(self) -> None:
        """Compare what only a look inside shows: the config space and all mappings."""
        for offset in range(0, CONFIG_SIZE + 4, 4):
            ours, theirs = (one.read_register(offset, 4) for one in (self.model, self.native))
            if ours != theirs:
                self.differ(f"config space at {offset}", hex(ours), hex(theirs))
        self._compare_domains()

    # -- inside ------------------------------------------------------------------------------

    def _compare_domains(self) -> None:
        ours, theirs = self.model.domains(), self.native.domains()
        if ours != theirs:
            self.differ("domains", ours, theirs)

    def _same_report(self, expected: FaultReport, seen: FaultReport) -> bool:
        ours = self.model.same_report(expected, seen)
        theirs = self.native.same_report(expected, seen)
        if ours != theirs:
            self.differ(f"whether {seen} is {expected}", ours, theirs)
        return ours

    def _observe(self, seen: FaultReport) -> None:
        """Compare a report with the one that is expected, if there is one."""
        if self._expected and self._same_report(self._expected[0], seen):
            self._expected.popleft()
        self.events += 1
