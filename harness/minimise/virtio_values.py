"""Put small, canonical values in the place of what a machine happened to use (virtio-iommu)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from decoders.errors import DecodeError
from decoders.events import Access, Endpoint, Event, FaultReport, Request, Translation
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.requests import (
    READABLE_SIZE,
    REQUESTS,
    decode_request,
    encode_request,
    field_of,
)
from harness.memory import PAGE_SIZE
from harness.minimise.deletion import applied
from harness.minimise.gate import Gate
from harness.minimise.identities import SLOTS
from harness.minimise.trace import Trace

Change = Callable[[Event], Event]
_TOP: Final = (1 << 64) - 1
_VIRTUAL: Final = ("virt_start", "virt_end")


def canonical(gate: Gate) -> None:
    """Change values of the best trace: domains, endpoints, addresses, where they lead."""
    header, events = gate.best.header, gate.best.events
    edits = [
        _domains(events),
        _endpoints(events),
        _shifted(list(_addresses(events)), _at_address),
        _shifted(list(_places(events)), _at_place),
    ]

    def make(chosen: Collection[int]) -> Trace:
        changed = events
        for index in chosen:
            changed = tuple(edits[index](event) for event in changed)
        return Trace(header, changed)

    applied(range(len(edits)), make, gate)


def _request(data: bytes, **values: int) -> bytes:
    """Return a request with other values in some of its fields; as it was where it lacks one."""
    if not data or data[0] not in REQUESTS:
        return data
    size = READABLE_SIZE[RequestType(data[0])]
    try:
        made = decode_request(data[:size], "request")
    except DecodeError:
        return data
    for name, value in values.items():
        setattr(made, name, value)
    return encode_request(made) + data[size:]


def _domains(events: Sequence[Event]) -> Change:
    """Count domains from 1."""
    used: dict[int, int] = {}
    for event in events:
        if isinstance(event, Request):
            domain = field_of(event.data, "domain")
            if domain:
                used.setdefault(domain, len(used) + 1)

    def change(event: Event) -> Event:
        if not isinstance(event, Request):
            return event
        domain = used.get(field_of(event.data, "domain") or 0)
        return event if domain is None else replace(event, data=_request(event.data, domain=domain))

    return change


def _endpoints(events: Sequence[Event]) -> Change:
    """Give endpoints the ids of the first slots of bus 0."""
    used = (_endpoint(event) for event in events)
    ids = dict(zip(dict.fromkeys(one for one in used if one is not None), SLOTS, strict=False))

    def change(event: Event) -> Event:
        endpoint = _endpoint(event)
        new = ids.get(endpoint, endpoint) if endpoint is not None else None
        if new is None:
            return event
        match event:
            case Access():
                return replace(event, sid=new)
            case Endpoint() | FaultReport():
                return replace(event, endpoint=new)
            case Request(data):
                return replace(event, data=_request(data, endpoint=new))
            case _:
                return event

    return change


def _endpoint(event: Event) -> int | None:
    match event:
        case Access(sid):
            return sid
        case Endpoint(endpoint) | FaultReport(endpoint=endpoint):
            return endpoint
        case Request(data):
            return field_of(data, "endpoint")
        case _:
            return None


def _addresses(events: Sequence[Event]) -> Iterator[int]:
    for event in events:
        if isinstance(event, Request) and (first := field_of(event.data, "virt_start")) is not None:
            yield first
        elif isinstance(event, Access):
            yield event.iova


def _places(events: Sequence[Event]) -> Iterator[int]:
    for event in events:
        if isinstance(event, Request) and (start := field_of(event.data, "phys_start")) is not None:
            yield start
        elif isinstance(event, Access) and isinstance(event.outcome, Translation):
            yield event.outcome.address


def _shifted(found: Sequence[int], at: Callable[[Event, int], Event]) -> Change:
    """Let the lowest of some addresses be on the first page but one."""
    down = max(0, min(found, default=0) // PAGE_SIZE * PAGE_SIZE - PAGE_SIZE)
    return (lambda event: at(event, down)) if down else (lambda event: event)


def _at_address(event: Event, down: int) -> Event:
    match event:
        case Access(iova=iova):
            return replace(event, iova=iova - down)
        case FaultReport(address=address) if address >= down:
            return replace(event, address=address - down)
        case Request(data):
            values = {name: field_of(data, name) for name in _VIRTUAL}
            moved = {
                name: value if value == _TOP else value - down
                for name, value in values.items()
                if value is not None and value >= down
            }
            return replace(event, data=_request(data, **moved)) if moved else event
        case _:
            return event


def _at_place(event: Event, down: int) -> Event:
    match event:
        case Access(outcome=Translation(address, mask)):
            return replace(event, outcome=Translation(address - down, mask))
        case Request(data):
            start = field_of(data, "phys_start")
            if start is None or start < down:
                return event
            return replace(event, data=_request(data, phys_start=start - down))
        case _:
            return event
