"""What a finding about a virtio-iommu depends on: requests about the same things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from decoders.events import (
    Access,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Features,
    RegWrite,
    Request,
    Reset,
)
from decoders.virtio_iommu.constants import RequestType, Status
from decoders.virtio_iommu.requests import field_of, status_of
from harness.findings import Finding
from harness.minimise.pieces import Cut

_Range = tuple[int, int]
_EVERYWHERE: Final = (0, (1 << 64) - 1)
_STATE: Final = (Features, ConfigSpace, Endpoint, RegWrite)


def needed(cut: Cut, finding: Finding, roots: Sequence[int]) -> Iterator[set[int]]:
    """Yield sets of pieces, from the events it names (roots) to all that precedes the finding."""
    events, place, last = cut.ring.events, cut.piece_of(), finding.event
    before = cut.until(last)
    about = events[last]
    named = {place[number] for number in roots}
    since = max((n for n in range(last) if isinstance(events[n], Reset | DeviceReset)), default=-1)
    state = {place[n] for n in range(last) if isinstance(events[n], _STATE)}
    endpoint, domains, addresses = _subject(about, events[:last])
    near: set[int] = set()
    same: set[int] = set()
    for number in range(since + 1, last):
        event = events[number]
        if not isinstance(event, Request):
            continue
        moves = field_of(event.data, "endpoint")
        of_domain = field_of(event.data, "domain") in domains
        spans = _span(event)
        if (moves is not None and moves == endpoint) or (
            of_domain and spans is not None and _overlap(spans, addresses)
        ):
            near.add(place[number])
        if moves is not None or of_domain:
            same.add(place[number])
    attached = {place[n] for n in _attached(events[:last], about, domains)}
    if finding.domain < 0 or not attached:
        yield named  # of an endpoint in a domain, no answer is right without its ATTACH
    yield named | attached
    if finding.observed is None:
        # Nobody has said which mapping it was.
        mapped = {place[n] for n in _mapped(events[:last], domains, addresses)}
        yield named | attached | mapped
        attached |= mapped
    yield named | attached | state
    yield named | state | near
    yield named | state | near | same
    yield {n for n in before if not isinstance(events[cut.pieces[n].events[0]], Access)} | named
    yield before


def _attached(before: Sequence[Event], about: Event, domains: set[int]) -> Iterator[int]:
    """Yield the last ATTACH that succeeded: of the endpoint of an access, to a request's domain."""
    for number in range(len(before) - 1, -1, -1):
        event = before[number]
        if not isinstance(event, Request) or event.data[:1] != bytes([RequestType.ATTACH]):
            continue
        if isinstance(about, Access):
            fits = field_of(event.data, "endpoint") == about.sid
        else:
            fits = field_of(event.data, "domain") in domains
        if fits and status_of(event.answer) in (None, Status.OK):
            yield number
            return


def _mapped(before: Sequence[Event], domains: set[int], where: _Range) -> Iterator[int]:
    """Yield the last MAP of some addresses in one of some domains."""
    for number in range(len(before) - 1, -1, -1):
        event = before[number]
        if not isinstance(event, Request) or event.data[:1] != bytes([RequestType.MAP]):
            continue
        span = _span(event)
        if field_of(event.data, "domain") in domains and span and _overlap(span, where):
            yield number
            return


def _subject(about: Event, before: Sequence[Event]) -> tuple[int | None, set[int], _Range]:
    """Return the endpoint, domains and addresses that an event is about."""
    if isinstance(about, Request):
        domain = field_of(about.data, "domain")
        domains = set() if domain is None else {domain}
        return field_of(about.data, "endpoint"), domains, _span(about) or _EVERYWHERE
    if not isinstance(about, Access):
        return None, set(), _EVERYWHERE
    domains = {
        domain
        for event in before
        if isinstance(event, Request)
        and field_of(event.data, "endpoint") == about.sid
        and (domain := field_of(event.data, "domain")) is not None
    }
    return about.sid, domains, (about.iova, about.iova)


def _span(request: Request) -> _Range | None:
    first, last = field_of(request.data, "virt_start"), field_of(request.data, "virt_end")
    return None if first is None or last is None else (first, last)


def _overlap(left: _Range, right: _Range) -> bool:
    return left[0] <= right[1] and right[0] <= left[1]
