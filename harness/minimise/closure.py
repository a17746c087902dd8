"""What a finding depends on: the memory its events read, the registers and requests before them.

A guess, and tried as a whole: what the gate does not let through costs one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from decoders.errors import DecodeError
from decoders.events import (
    NO_ATTRIBUTES,
    Access,
    AccessKind,
    Attribute,
    ConfigSpace,
    Delivery,
    DeviceReset,
    Endpoint,
    Event,
    Features,
    Outcome,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Role,
)
from decoders.virtio_iommu.constants import RequestType
from decoders.virtio_iommu.requests import field_of
from decoders.vtd import registers as vtd
from harness.differential.pair import BUDGETS
from harness.findings import Finding
from harness.minimise.gate import Gate
from harness.minimise.pieces import Cut
from harness.model.config import UnitConfig
from harness.model.unit import InterruptVerdict, Verdict, VtdUnit
from harness.model.walk import Step
from harness.replay import unit_config
from harness.targets.model import ModelReplay

_SETUP: Final = frozenset(
    register.offset + more
    for register in (vtd.RTADDR, vtd.GCMD, vtd.IRTA, vtd.IQA)
    for more in (0, 4)
)
"""Registers without which a unit translates nothing."""
_IQA: Final = (vtd.IQA.offset, vtd.IQA.offset + 4)
_QUEUE: Final = (*_IQA, vtd.IQT.offset)


class Reader(VtdUnit):
    """Note which entries the walk of each request read, and who had written them."""

    def __init__(self, config: UnitConfig) -> None:
        super().__init__(config)
        self.writers: dict[int, set[int]] = {}
        self.words: dict[int, tuple[Role, int]] = {}
        """Quadwords that were read, by address: role and level of the table they are in."""

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        """Answer a request, and note what its walks read."""
        verdict = super().access(sid, pasid, iova, kind, recorded, attributes)
        for candidate in verdict.permitted:
            self._note(candidate.steps)
        return verdict

    def interrupt(
        self, sid: int | None, address: int, data: int, recorded: Delivery | None = None
    ) -> InterruptVerdict:
        """Answer an interrupt request, and note which entries were read."""
        verdict = super().interrupt(sid, address, data, recorded)
        for remapping in verdict.permitted:
            self._note(remapping.steps)
        return verdict

    def _note(self, steps: Iterable[Step]) -> None:
        found = self.writers.setdefault(self.event, set())
        for step in steps:
            self.words[step.address] = step.role, step.level
            writer = self.memory.last_writer(step.address)
            if writer is not None:
                found.add(writer)


def read_by(config: UnitConfig, events: Sequence[Event]) -> Reader:
    """Replay events on the model, as far as it gets, and return what it read."""
    replay = ModelReplay(config)
    replay.unit = Reader(config)
    try:
        for event in events:
            replay.apply(event)
    except (DecodeError, *BUDGETS):
        pass
    assert isinstance(replay.unit, Reader)
    return replay.unit


def related(finding: Finding) -> list[int]:
    """Return the events that a finding names."""
    named = (finding.event, finding.filled_by, finding.changed_by, finding.covered_by)
    return sorted({number for number in named if number >= 0})


def closed(gate: Gate, finding: Finding) -> bool:
    """Leave out at once what a finding does not depend on; say whether that worked."""
    cut = Cut(gate.best)
    config = unit_config(gate.best.header)
    needed = _vtd(cut, config, finding) if isinstance(config, UnitConfig) else _virtio(cut, finding)
    for keep in needed:
        left_out = [index for index in range(len(cut.pieces)) if index not in keep]
        if left_out and gate.passes(cut.without(left_out)):
            return True
    return False


def _until(cut: Cut, last: int) -> set[int]:
    return {index for index, one in enumerate(cut.pieces) if one.events[0] <= last}


# --- VT-d ----------------------------------------------------------------------------------------


def _vtd(cut: Cut, config: UnitConfig, finding: Finding) -> Iterator[set[int]]:
    """Yield sets of pieces, from what the finding names to all that precedes it."""
    events, place, last = cut.ring.events, cut.piece_of(), finding.event
    before = _until(cut, last)
    reader = read_by(config, events[: last + 1])
    roots = related(finding)
    named = {place[number] for number in roots}
    for number in roots:
        named.update(place[writer] for writer in reader.writers.get(number, ()))
    since = max((n for n in range(roots[0]) if isinstance(events[n], Reset)), default=-1)
    setup = {place[n] for n in range(since + 1, last) if _is_setup(events[n])}
    commands = {place[n] for n in range(roots[0], last) if _is_command(events[n])}
    queued = [index for index, one in enumerate(cut.pieces) if one.queued >= 0]
    between = {n for n in queued if roots[0] <= cut.ring.queued[cut.pieces[n].queued].tail <= last}
    yield {place[number] for number in roots}
    yield _with_queue(cut, place, named | setup, since)
    yield _with_queue(cut, place, named | setup | commands | between, since)
    kinds = (RegWrite, RegRead, Reset)
    registers = {place[n] for n in range(last) if isinstance(events[n], kinds)}
    yield _with_queue(cut, place, named | registers | before.intersection(queued), -1)
    yield before


def _is_setup(event: Event) -> bool:
    return isinstance(event, RegWrite) and event.offset in _SETUP


def _is_command(event: Event) -> bool:
    """Say whether an event is a register write that is neither set-up nor the queue's."""
    return isinstance(event, RegWrite) and event.offset not in (*_SETUP, vtd.IQT.offset)


def _with_queue(cut: Cut, place: dict[int, int], pieces: set[int], since: int) -> set[int]:
    """Add what a queue needs for the descriptors among some pieces; without any it goes away."""
    ring = cut.ring
    events = {number for index in pieces for number in cut.pieces[index].events}
    found = set(pieces)
    for index, piece in enumerate(cut.pieces):
        if piece.queued < 0:
            continue
        one = ring.queued[piece.queued]
        if index in pieces:
            found |= {place[one.tail], place[one.started]}
        elif one.tail in events and not _is_setup(ring.events[one.started]):
            found.add(index)
    if any(cut.pieces[index].queued >= 0 for index in found):
        queue = {n for n in range(since + 1, len(ring.events)) if _writes(ring.events[n], _IQA)}
        return found | {place[n] for n in queue}
    return {n for n in found if not _writes(ring.events[cut.pieces[n].events[0]], _QUEUE)}


def _writes(event: Event, offsets: Sequence[int]) -> bool:
    return isinstance(event, RegWrite) and event.offset in offsets


# --- virtio-iommu --------------------------------------------------------------------------------

_Range = tuple[int, int]


def _virtio(cut: Cut, finding: Finding) -> Iterator[set[int]]:
    """Yield sets of pieces, from requests about the same addresses to all that precedes it."""
    events, place, last = cut.ring.events, cut.piece_of(), finding.event
    before = _until(cut, last)
    about = events[last]
    named = {place[number] for number in related(finding)}
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
    yield named
    yield named | {place[number] for number in _latest(events[: last + 1], endpoint, domains)}
    yield named | state | near
    yield named | state | near | same
    yield {n for n in before if not isinstance(events[cut.pieces[n].events[0]], Access)} | named
    yield before


def _latest(events: Sequence[Event], endpoint: int | None, domains: set[int]) -> Iterator[int]:
    """Yield the last ATTACH that the last event may depend on, and the last MAP of its addresses.

    endpoint and domains are what that event is about.
    """
    about = events[-1]
    where = about.iova if isinstance(about, Access) else None
    attached: int | None = None
    for number in range(len(events) - 2, -1, -1):
        event = events[number]
        if not isinstance(event, Request) or not event.data:
            continue
        domain = field_of(event.data, "domain")
        if event.data[0] == RequestType.ATTACH and attached is None:
            fits = domain in domains if endpoint is None else (
                field_of(event.data, "endpoint") == endpoint
            )  # fmt: skip
            if fits:
                attached = domain
                yield number
        elif event.data[0] == RequestType.MAP and where is not None and domain in domains:
            span = _span(event)
            if span is not None and _overlap(span, (where, where)):
                where = None
                yield number


_STATE: Final = (Features, ConfigSpace, Endpoint, RegWrite)


def _subject(about: Event, before: Sequence[Event]) -> tuple[int | None, set[int], _Range]:
    """Return the endpoint, domains and addresses that an event is about."""
    everywhere = (0, (1 << 64) - 1)
    if isinstance(about, Request):
        domain = field_of(about.data, "domain")
        domains = set() if domain is None else {domain}
        return field_of(about.data, "endpoint"), domains, _span(about) or everywhere
    if not isinstance(about, Access):
        return None, set(), everywhere
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
