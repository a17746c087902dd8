"""Follow a virtio-iommu through a trace and judge what its driver does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from decoders.bytewise import packed
from decoders.events import Access, DeviceReset, Event, Features, RegWrite, Request, Reset
from decoders.virtio_iommu.config import written_bypass
from decoders.virtio_iommu.constants import Feature, RequestType, Status
from decoders.virtio_iommu.requests import REQUESTS, field_of, status_of
from harness.check import virtio
from harness.check.ended import LastEnded
from harness.check.rules import Notebook, Rule
from harness.decoded_virtio import request_words
from harness.findings import Finding
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.dialect import SPECIFICATION
from harness.model.virtio.domain import Mapping
from harness.model.virtio.requests import Handler, endpoint_of
from harness.model.virtio.state import State
from harness.model.virtio.unit import VirtioUnit
from harness.targets.virtio_model import VirtioModelReplay

UNMAPS = 256
"""The last UNMAPs, behind which an access is looked at."""
USED = 1 << 16
"""Mappings whose last use is remembered; one more and all are forgotten."""
ENDED = 1 << 16
"""Domains that are remembered after their end; one more and all are forgotten."""
NEEDED = {
    RequestType.MAP: Feature.MAP_UNMAP,
    RequestType.UNMAP: Feature.MAP_UNMAP,
    RequestType.PROBE: Feature.PROBE,
}
"""The feature that a request belongs to."""

_IGNORES = (RequestType.DETACH, RequestType.PROBE)
"""Requests whose last reserved bytes the device ignores, too; those of others break a rule."""


class _Unit(VirtioUnit):
    """Show what the unit remembers."""

    @property
    def state(self) -> State:
        return self._state


class VirtioWatch(VirtioModelReplay):
    """Replay a trace on a unit; what the recorded device answered is taken over.

    A driver may rely on the specification: what that says a reset or a request does is what it
    knows, whatever the recorded device does otherwise.
    """

    def __init__(self, config: VirtioConfig, notes: Notebook) -> None:
        config = replace(config, dialect=SPECIFICATION)
        super().__init__(config)
        self._watched = _Unit(config)
        self.unit: VirtioUnit = self._watched
        self.notes = notes
        self._forget()

    def _forget(self) -> None:
        self._ended: dict[int, int] = {}  # domain: event of its end
        self._used: dict[tuple[int, int], int] = {}  # endpoint, event of its MAP: event of use
        self._unmaps: deque[int] = deque(maxlen=UNMAPS)
        self._gone = LastEnded()

    def apply(self, event: Event) -> None:
        """Apply one event and judge it."""
        number = self._counters.events
        left = self._domain_left(event)
        if not self._lost:
            self._judge(event, number)
        super().apply(event)
        for dropped in takewhile(
            lambda one: one.event == number, reversed(self._watched.state.dropped)
        ):
            self._gone.add(dropped)
        match event:
            case Request(data):
                if left is not None and left not in self._watched.state.domains:
                    if len(self._ended) >= ENDED:
                        self._ended.clear()
                    self._ended[left] = number
                if data[:1] == bytes([RequestType.UNMAP]):
                    self._unmaps.append(number)
            case Reset() | DeviceReset():
                self._forget()

    def _report(self, finding: Finding) -> None:
        """Keep nothing: what the unit did wrong is not asked for."""

    def _domain_left(self, event: Event) -> int | None:
        """Return the domain that the endpoint of a request is in, and may leave by it."""
        endpoint = endpoint_of(event.data) if isinstance(event, Request) else None
        return None if endpoint is None else self._watched.state.attached.get(endpoint)

    def _judge(self, event: Event, number: int) -> None:
        match event:
            case Request(data, room, answer):
                found = next(self._faults(data, room, answer), None)
                if found is not None:
                    rule, detail = found
                    more = {}
                    if rule is virtio.DOMAIN_ENDED:
                        more = {"ended": self._ended[field_of(data, "domain") or 0]}
                    self.notes.note(rule, number, detail, **more)
            case Features(offered, accepted) if accepted & ~offered:
                detail = f"Accepted and not offered: {accepted & ~offered:#x}."
                self.notes.note(virtio.FEATURE, number, detail)
            case RegWrite(offset, size, value):
                self._config_write(offset, size, value, number)
            case Access():
                self._look_up(event.sid, event.iova, number)

    # -- requests ------------------------------------------------------------------------------

    def _faults(self, data: bytes, room: int, answer: bytes | None) -> Iterator[tuple[Rule, str]]:
        """Yield what is wrong with a request, the gravest first."""
        state = self._watched.state
        conditions = Handler(state).conditions(data, room)
        rules = [(virtio.BROKEN_BY[one], one) for one in conditions if one in virtio.BROKEN_BY]
        for rule, one in rules:
            if rule is virtio.MALFORMED:
                yield rule, f"{one.name.lower().replace('_', ' ')}."
                return
        kind = RequestType(data[0])
        name, needed = kind.name, NEEDED.get(kind)
        if needed and not state.in_use(needed):
            yield virtio.FEATURE, f"{name} without {needed.name}."
        if any(_reserved(kind, data)):
            yield virtio.RESERVED, f"{name}: reserved bytes are not zero."
        refused = status_of(answer) not in (None, Status.OK)
        for rule, _ in rules:
            if rule is virtio.ENDPOINT and not refused:
                continue
            if rule is virtio.DOMAIN_MISSING and field_of(data, "domain") in self._ended:
                rule = virtio.DOMAIN_ENDED
            yield rule, f"{request_words(data)}."
        if kind is RequestType.MAP and field_of(data, "virt_start") == field_of(data, "virt_end"):
            yield virtio.RANGE, f"{request_words(data)}."

    # -- config space --------------------------------------------------------------------------

    def _config_write(self, offset: int, size: int, value: int, number: int) -> None:
        state = self._watched.state
        written = written_bypass(offset, size, value)
        if written is None or size > 1:
            detail = f"{size} bytes are written at {offset:#x}."
        elif written > 1:
            detail = f"bypass is set to {written:#x}."
        elif not state.in_use(Feature.BYPASS_CONFIG):
            detail = "BYPASS_CONFIG was not accepted."
        else:
            return
        self.notes.note(virtio.BYPASS_FIELD, number, detail)

    # -- accesses ------------------------------------------------------------------------------

    def _look_up(self, endpoint: int, iova: int, number: int) -> None:
        """Remember who uses a mapping; judge an access to one that has ended."""
        state = self._watched.state
        domain = state.attached.get(endpoint)
        if domain is None or state.domains[domain].bypass:
            return
        mapping = state.domains[domain].at(iova)
        if mapping is not None:
            if len(self._used) >= USED:
                self._used.clear()
            self._used[endpoint, mapping.event] = number
            return
        found = self._ended_mapping(endpoint, domain, iova)
        if found is not None:
            mapping, ended = found
            self.notes.note(
                virtio.IN_USE,
                number,
                f"The access is to {iova:#x}.",
                cause=(endpoint, mapping.event),
                mapped=mapping.event,
                used=self._used[endpoint, mapping.event],
                unmapped=ended,
            )

    def _ended_mapping(self, endpoint: int, domain: int, iova: int) -> tuple[Mapping, int] | None:
        """Return the mapping that an UNMAP took from an endpoint that had used it."""
        dropped = self._gone.at(domain, iova)
        if dropped is None or (endpoint, dropped.mapping.event) not in self._used:
            return None
        return (dropped.mapping, dropped.event) if dropped.event in self._unmaps else None


def _reserved(kind: RequestType, data: bytes) -> bytes:
    """Return the reserved bytes of a whole request that the device has to ignore."""
    shape = packed(REQUESTS[kind])
    values = dict(zip(shape.names, shape.unpack(data), strict=True))
    ignored: bytes = values["reserved_head"]
    return ignored + values["reserved"] if kind in _IGNORES else ignored
