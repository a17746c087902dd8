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
    Delivery,
    Event,
    InterruptRequest,
    Observation,
    Outcome,
    RegRead,
    RegWrite,
    Reset,
    Role,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.tables import ScalableContextEntry
from harness.differential.pair import BUDGETS
from harness.findings import Finding, FindingKind
from harness.minimise import virtio_closure
from harness.minimise.effect import QUEUE_ADDRESS, enabling_queue, in_effect
from harness.minimise.gate import Gate
from harness.minimise.judges import ReplayJudge
from harness.minimise.pieces import Cut
from harness.minimise.trace import Trace
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
_CONTEXT_WORDS: Final = layout(ScalableContextEntry).words
_QUEUE: Final = (*QUEUE_ADDRESS, vtd.IQT.offset)


class Reader(VtdUnit):
    """Note which entries the walk of each request read, and who had written them."""

    def __init__(self, config: UnitConfig) -> None:
        super().__init__(config)
        self.writers: dict[int, set[int]] = {}
        self.words: dict[int, tuple[Role, int]] = {}
        """Quadwords that were read, by address: role and level of the table they are in."""
        self.readers: dict[int, set[tuple[int, int]]] = {}
        """For whom each was read: source ids and PASIDs, RID_PASID for requests without."""

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
            entry = tuple(s.value for s in candidate.steps if s.role == Role.SCALABLE_CONTEXT)
            number = pasid or 0
            if len(entry) == _CONTEXT_WORDS:
                number = self.translator.lookup.effective_pasid(entry, pasid)
            for step in candidate.steps:
                self.readers.setdefault(step.address, set()).add((sid, number))
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


def at_the_end(trace: Trace) -> Finding:
    """Return a finding about the last thing asked of a unit, for judges that name none.

    What the model has to say against it is the best guess.
    """
    events = trace.events
    asked = (n for n in range(len(events) - 1, 0, -1) if not isinstance(events[n], Observation))
    last = next(asked, 0)
    shown = (one.finding for one in ReplayJudge("model")(trace))
    known = (one for one in shown if one is not None and one.event >= last)
    return next(known, Finding(last, FindingKind.DIVERGENCE, "", None, ()))


def closed(gate: Gate, finding: Finding) -> bool:
    """Leave out at once what a finding does not depend on; say whether that worked."""
    cut = Cut(gate.best)
    config = unit_config(gate.best.header)
    roots = related(finding)
    needed = (
        _vtd(cut, config, finding, roots)
        if isinstance(config, UnitConfig)
        else virtio_closure.needed(cut, finding, roots)
    )
    for keep in needed:
        left_out = [index for index in range(len(cut.pieces)) if index not in keep]
        if left_out and gate.passes(cut.without(left_out)):
            return True
    return False


def _vtd(
    cut: Cut, config: UnitConfig, finding: Finding, roots: Sequence[int]
) -> Iterator[set[int]]:
    """Yield sets of pieces, from the events it names (roots) to all that precedes the finding."""
    events, place, last = cut.ring.events, cut.piece_of(), finding.event
    before = cut.until(last)
    reader = read_by(config, events[: last + 1])
    named = {place[number] for number in roots}
    for number in roots:
        named.update(place[writer] for writer in reader.writers.get(number, ()))
    since = max((n for n in range(roots[0]) if isinstance(events[n], Reset)), default=-1)
    setup = {place[n] for n in range(since + 1, last) if _is_setup(events[n])}
    commands = {place[n] for n in range(roots[0], last) if _is_command(events[n])}
    queued = [index for index, one in enumerate(cut.pieces) if one.queued >= 0]
    between = {n for n in queued if roots[0] <= cut.ring.queued[cut.pieces[n].queued].tail <= last}
    if not any(reader.writers.get(number) for number in roots):
        yield named  # without translation, nothing of a table is read
    effective = {place[n] for at in (roots[0], last) for n in in_effect(events, at)}
    yield _with_queue(cut, place, named | effective | _latest(cut, reader, last), since)
    yield _with_queue(cut, place, named | setup, since)
    yield _with_queue(cut, place, named | setup | commands | between, since)
    kinds = (RegWrite, RegRead, Reset)
    registers = {place[n] for n in range(last) if isinstance(events[n], kinds)}
    yield _with_queue(cut, place, named | registers | before.intersection(queued), -1)
    yield before


def _latest(cut: Cut, reader: Reader, last: int) -> set[int]:
    """Return the descriptor handed over last, and the one at the head, where a queue stops.

    Of requests nothing: what they depend on of a queue is named.
    """
    if isinstance(cut.ring.events[last], Access | InterruptRequest):
        return set()
    head = reader.read_register(vtd.IQH.offset, vtd.IQH.size)
    found: dict[bool, int] = {}
    for index, piece in enumerate(cut.pieces):
        if piece.queued >= 0 and (one := cut.ring.queued[piece.queued]).tail <= last:
            found[one.slot == head] = index
    return set(found.values())


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
        return found | {place[n] for n in enabling_queue(ring.events, since)}
    return {n for n in found if not _writes(ring.events[cut.pieces[n].events[0]], _QUEUE)}


def _writes(event: Event, offsets: Sequence[int]) -> bool:
    return isinstance(event, RegWrite) and event.offset in offsets
