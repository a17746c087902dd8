"""Find out what is wrong with a request, and carry out one that succeeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from decoders.bytewise import packed
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import (
    AttachFlag,
    Feature,
    MapFlag,
    PropertyType,
    RequestType,
    Status,
)
from decoders.virtio_iommu.properties import RESV_MEM_LENGTH, read_properties
from decoders.virtio_iommu.requests import HEAD_SIZE, READABLE_SIZE, TAIL_SIZE, field_of
from decoders.virtio_iommu.structures import Attach, Detach, Map, Probe, ResvMem, Unmap
from harness.model.virtio.domain import Domain, Mapping
from harness.model.virtio.rules import Condition
from harness.model.virtio.state import State

_RESV_MEM_SIZE: Final = packed(ResvMem).size

_ORDER: Final = {Condition.MAP_ORDER, Condition.UNMAP_ORDER}

Found = Iterator[Condition]


class Handler:
    """Answer requests on a state; an unknown endpoint may be there or not."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conditions(self, data: bytes, room: int) -> list[Condition]:
        """Return what is wrong with a request, as far as the dialect looks for it."""
        if len(data) < HEAD_SIZE or room < TAIL_SIZE:
            return [Condition.NO_HEAD_OR_TAIL]
        if data[0] not in READABLE_SIZE:
            return [Condition.UNKNOWN_TYPE]
        kind = RequestType(data[0])
        size = self.state.parameters.probe_size
        no_room = kind is RequestType.PROBE and room < size + TAIL_SIZE
        found = [Condition.PROBE_ROOM] if no_room else []
        if len(data) < READABLE_SIZE[kind]:
            return [*found, Condition.SHORT_BODY]
        ignored = self.state.dialect.ignored
        found += _LOOKED_FOR[kind](self, data)
        if self.state.dialect.order_first:
            found.sort(key=lambda condition: condition not in _ORDER)
        return [condition for condition in found if condition not in ignored]

    def _attach(self, data: bytes) -> Found:
        state = self.state
        _, _, domain, endpoint, flags, reserved = packed(Attach).unpack(data)
        if any(reserved):
            yield Condition.ATTACH_RESERVED
        if flags & ~state.known_flags(AttachFlag.BYPASS, Feature.BYPASS_CONFIG, 0):
            yield Condition.ATTACH_FLAGS
        if state.endpoint_is_absent(endpoint):
            yield Condition.ATTACH_ENDPOINT
        if not state.in_domain_range(domain):
            yield Condition.ATTACH_DOMAIN_RANGE
        if state.attached.get(endpoint, domain) != domain:
            yield Condition.ATTACH_MOVED
        there = state.domains.get(domain)
        if there is None or (state.dialect.detaches_first and there.endpoints == {endpoint}):
            return
        if there.bypass != bool(flags & AttachFlag.BYPASS):
            yield Condition.ATTACH_BYPASS
        if there.endpoints - {endpoint}:
            yield Condition.ATTACH_SHARED

    def _detach(self, data: bytes) -> Found:
        state = self.state
        _, _, domain, endpoint, _ = packed(Detach).unpack(data)
        if state.dialect.remembers_endpoints:
            if endpoint not in state.seen:
                yield Condition.DETACH_ENDPOINT
        elif state.endpoint_is_absent(endpoint):
            yield Condition.DETACH_ENDPOINT
        if state.attached.get(endpoint) != domain:
            yield Condition.DETACH_NOT_ATTACHED

    def _map(self, data: bytes) -> Found:
        state = self.state
        _, _, number, start, end, physical, flags = packed(Map).unpack(data)
        known = state.known_flags(MapFlag.MMIO, Feature.MMIO, MapFlag.READ | MapFlag.WRITE)
        if flags & ~known:
            yield Condition.MAP_FLAGS
        domain = state.domains.get(number)
        if domain is None:
            yield Condition.MAP_DOMAIN
        elif domain.bypass:
            yield Condition.MAP_BYPASS
        if end < start:
            yield Condition.MAP_ORDER
        # A range that ends before its start overlaps a mapping that holds both.
        if domain is not None and domain.overlaps(start, end):
            doubtful = all(map(domain.is_doubtful, domain.overlapping(start, end)))
            yield Condition.MAP_MAY_OVERLAP if doubtful else Condition.MAP_OVERLAP
        if (start | end + 1 | physical) & (state.parameters.granule - 1):
            yield Condition.MAP_ALIGNMENT
        if not state.in_input_range(start, end):
            yield Condition.MAP_INPUT_RANGE
        if domain is not None and state.meets_reserved_region(domain, start, end):
            yield Condition.MAP_RESERVED_REGION

    def _unmap(self, data: bytes) -> Found:
        _, _, number, start, end, reserved = packed(Unmap).unpack(data)
        if any(reserved):
            yield Condition.UNMAP_RESERVED
        domain = self.state.domains.get(number)
        if domain is None:
            yield Condition.UNMAP_DOMAIN
        elif domain.bypass:
            yield Condition.UNMAP_BYPASS
        if end < start:
            yield Condition.UNMAP_ORDER
            if Condition.UNMAP_ORDER not in self.state.dialect.ignored:
                return
        split = [] if domain is None else _split(domain, start, end)
        if domain is not None and split:
            doubtful = all(map(domain.is_doubtful, split))
            yield Condition.UNMAP_MAY_SPLIT if doubtful else Condition.UNMAP_SPLIT

    def _probe(self, data: bytes) -> Found:
        state = self.state
        _, _, endpoint, _ = packed(Probe).unpack(data)
        if not state.offers(Feature.PROBE):
            yield Condition.PROBE_NOT_OFFERED
        if state.endpoint_is_absent(endpoint):
            yield Condition.PROBE_ENDPOINT
        if _RESV_MEM_SIZE * len(state.regions_of(endpoint) or ()) > state.parameters.probe_size:
            yield Condition.PROBE_SPACE

    def may_be_absent(self, data: bytes) -> bool:
        """Say whether NOENT is as good an answer, because nobody said if the endpoint is there."""
        if data[0] == RequestType.DETACH and self.state.dialect.remembers_endpoints:
            return False
        endpoint = endpoint_of(data)
        return endpoint is not None and self.state.endpoint_is_unknown(endpoint)

    def payload(self, data: bytes) -> bytes | None:
        """Return what a whole PROBE writes before the tail; None when that is not known."""
        regions = self.state.regions_of(endpoint_of(data) or 0)
        size = self.state.parameters.probe_size
        if regions is None:
            return None
        if _RESV_MEM_SIZE * len(regions) > size:
            return bytes(size)
        return b"".join(_property(*region) for region in regions).ljust(size, b"\0")

    def succeed(self, data: bytes, answer: bytes) -> None:
        """Carry out a request that was answered with OK."""
        if len(data) >= HEAD_SIZE and data[0] in READABLE_SIZE:
            kind = RequestType(data[0])
            if len(data) >= READABLE_SIZE[kind]:
                _CARRIED_OUT[kind](self, data, answer)

    def fail(self, data: bytes, conditions: list[Condition], status: int | None) -> None:
        """Take over what a refused request may still have changed."""
        detaches = self.state.dialect.detaches_first and status == Status.INVAL
        if detaches and conditions[:1] == [Condition.ATTACH_BYPASS]:
            self.state.detach(endpoint_of(data) or 0)
            self.state.see(endpoint_of(data) or 0)
        removes = self.state.dialect.removes_before_split and status == Status.RANGE
        if removes or (status == Status.INVAL and Condition.UNMAP_RESERVED in conditions):
            self._doubt(data)

    def _doubt(self, data: bytes) -> None:
        if len(data) >= READABLE_SIZE[RequestType.UNMAP] and data[0] == RequestType.UNMAP:
            _, _, number, start, end, _ = packed(Unmap).unpack(data)
            domain = self.state.domains.get(number)
            if domain is not None and end >= start:
                domain.doubt(start, end)

    def _do_attach(self, data: bytes, _answer: bytes) -> None:
        _, _, domain, endpoint, flags, _ = packed(Attach).unpack(data)
        self.state.attach(endpoint, domain, bool(flags & AttachFlag.BYPASS))

    def _do_detach(self, data: bytes, _answer: bytes) -> None:
        _, _, domain, endpoint, _ = packed(Detach).unpack(data)
        if self.state.attached.get(endpoint) == domain:
            self.state.detach(endpoint)
            self.state.forget_endpoint(endpoint)

    def _do_map(self, data: bytes, _answer: bytes) -> None:
        _, _, number, start, end, physical, flags = packed(Map).unpack(data)
        if end >= start:
            self.state.map(number, Mapping(start, end, physical, flags, self.state.event))

    def _do_unmap(self, data: bytes, _answer: bytes) -> None:
        _, _, number, start, end, _ = packed(Unmap).unpack(data)
        if end >= start:
            self.state.unmap(number, start, end)

    def _do_probe(self, data: bytes, answer: bytes) -> None:
        endpoint = endpoint_of(data) or 0
        if self.state.regions_of(endpoint) is None:
            payload = answer[: self.state.parameters.probe_size]
            self.state.learn(endpoint, read_regions(payload))


def _split(domain: Domain, start: int, end: int) -> list[Mapping]:
    if end < start:
        return list(domain.overlapping(start, end))  # at most one, which holds both
    # Only the mappings at the ends of the range can reach beyond it.
    ends = (domain.at(start), domain.at(end))
    return [one for one in ends if one is not None and (one.start < start or one.end > end)]


def _property(subtype: int, start: int, end: int) -> bytes:
    # Whatever a region is: one that was learned may end before its start.
    return packed(ResvMem).pack(
        PropertyType.RESV_MEM, RESV_MEM_LENGTH, subtype, bytes(3), start, end
    )


def endpoint_of(data: bytes) -> int | None:
    """Return the endpoint that a request names, if its kind names one."""
    return field_of(data, "endpoint")


def read_regions(payload: bytes) -> tuple[tuple[int, int, int], ...]:
    """Return the reserved regions among properties, up to damage."""
    regions = []
    try:
        for found in read_properties(payload, "probe"):
            if found.region is not None:
                region = found.region
                regions.append((int(region.subtype), int(region.start), int(region.end)))
    except DecodeError:
        pass
    return tuple(regions)


_LOOKED_FOR: Final[dict[RequestType, Callable[[Any, bytes], Found]]] = {
    RequestType.ATTACH: Handler._attach,
    RequestType.DETACH: Handler._detach,
    RequestType.MAP: Handler._map,
    RequestType.UNMAP: Handler._unmap,
    RequestType.PROBE: Handler._probe,
}
_CARRIED_OUT: Final[dict[RequestType, Callable[[Any, bytes, bytes], None]]] = {
    RequestType.ATTACH: Handler._do_attach,
    RequestType.DETACH: Handler._do_detach,
    RequestType.MAP: Handler._do_map,
    RequestType.UNMAP: Handler._do_unmap,
    RequestType.PROBE: Handler._do_probe,
}
