"""Run made-up sequences on the model and the native core in step, and shrink what sets them apart.

Nothing real answers: an access has no recorded outcome, or one that the model permitted some time
before, or any. A sequence depends on its seed alone, so one that shows something can be run again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from decoders.events import (
    Access,
    Attribute,
    Event,
    Fault,
    FaultRecord,
    InterruptRequest,
    Outcome,
    PageRequest,
    RegRead,
    Reset,
    Role,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import FSTS
from harness.differential.pair import BUDGETS, Disagreement, DisagreementError, compare
from harness.differential.pair_vtd import VtdPair
from harness.generate.vtd_machines import MACHINES, simulated
from harness.generate.vtd_mixed import MixedGenerator, MixedStep, Request
from harness.generate.vtd_steps import Scene, Step
from harness.generate.vtd_tables import PAGE
from harness.model.config import UnitConfig
from harness.model.dialects import switches_of
from harness.model.translate import Candidate
from harness.trace import Header, UnitInfo

ATTEMPTS: Final = 400
"""Runs that shrinking one sequence may take."""

_REASON: Final = layout(FaultRecordRegister)["fr"]
_REMEMBERED: Final = 16
"""Outcomes that later accesses may claim to have had."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold a sequence that the two do not agree on; events end with the one they part at."""

    seed: int
    step: int
    machine: str
    config: UnitConfig
    disagreement: Disagreement
    events: list[Event]


@dataclass(slots=True)
class Totals:
    """Count what was run.

    labels counts steps by what they are, machines by the kind of machine; ways counts accesses by
    how the tables translated them, outcomes permitted ones by fault reason or kind, and
    refused page requests; seen findings, caches and observations.
    """

    sequences: int = 0
    steps: int = 0
    events: int = 0
    accesses: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    machines: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Add what another run has counted."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + theirs)


class InStep:
    """Run sequences of a number of steps on machines in turn."""

    def __init__(self, length: int, machines: Sequence[str] = tuple(MACHINES)) -> None:
        self._length, self._machines = length, machines
        self.totals = Totals()

    def machine(self, seed: int) -> tuple[str, Scene]:
        """Return the machine of a seed."""
        name = self._machines[seed % len(self._machines)]
        return name, simulated(name, Random(seed))

    def run(self, seed: int) -> Difference | None:
        """Run the sequence of a seed up to the first difference."""
        totals = self.totals
        name, scene = self.machine(seed)
        random = Random(seed)
        steps = MixedGenerator(scene, random).sequence(self._length)
        pair = VtdPair(scene.config)
        events: list[Event] = []
        told = _Told(random, events)
        began = totals.steps
        totals.sequences += 1
        totals.machines[name] += len(steps)
        try:
            self._apply(pair, told, Reset())
            for step in steps:
                totals.steps += 1
                totals.labels[step.label] += 1
                for event in stimuli(step, scene):
                    self._apply(pair, told, event)
            pair.compare()
        except DisagreementError as error:
            return Difference(
                seed, totals.steps - began - 1, name, scene.config, error.disagreement, events
            )
        except BUDGETS:
            totals.seen["budget"] += 1
        finally:
            totals.events += len(events)
        return None

    def _apply(self, pair: VtdPair, told: _Told, event: Event) -> None:
        event = told.completed(event)
        told.events.append(event)
        verdict = pair.apply(event)
        if pair.findings:
            self.totals.seen.update([f"{one.kind} {one.cache}" for one in pair.findings])
        for one in pair.emitted:
            self.totals.seen[type(one).__name__] += 1
            if isinstance(one, FaultRecord) and isinstance(event, PageRequest):
                self.totals.outcomes[f"{_REASON.get((one.low, one.high)):#04x}"] += 1
        if isinstance(event, Access):
            self.totals.accesses += 1
            fresh: Candidate
            fresh, *stale = verdict.permitted
            self.totals.ways[way(fresh)] += 1
            told.permitted(event, verdict.permitted)
            for one in stale:
                self.totals.seen[one.cache] += 1
        elif not isinstance(event, InterruptRequest):
            return
        for one in verdict.permitted:
            outcome = one.outcome
            kind = (
                f"{outcome.reason:#04x}" if isinstance(outcome, Fault) else type(outcome).__name__
            )
            self.totals.outcomes[kind] += 1


def stimuli(step: Step, scene: Scene) -> Iterator[Event]:
    """Yield the events that a step is."""
    yield from step.stores
    yield from step.writes
    for offset, size in step.reads:
        yield RegRead(offset, size, None)
    asked = step.dma
    if asked is not None:
        sid = scene.devices[asked.device].sid
        if isinstance(asked, Request):
            yield Access(sid, asked.pasid, asked.iova, asked.kind, None, asked.attributes)
        else:
            yield Access(sid, None, asked.iova, asked.kind, None)
        yield RegRead(FSTS.offset, FSTS.size, None)
    if isinstance(step, MixedStep):
        yield from step.more


def way(fresh: Candidate) -> str:
    """Say how tables translate an access, by the entries that were read."""
    roles = {step.role for step in fresh.steps}
    if not roles:
        return "untranslated" if isinstance(fresh.outcome, Translation) else "no root table"
    scalable = Role.SCALABLE_CONTEXT in roles
    if Role.FIRST_STAGE in roles:
        levels = next(step.level for step in fresh.steps if step.role == Role.FIRST_STAGE)
        return f"{'nested' if Role.SECOND_STAGE in roles else 'first-stage'} {levels} levels"
    if Role.SECOND_STAGE in roles:
        levels = next(step.level for step in fresh.steps if step.role == Role.SECOND_STAGE)
        return f"{'second-stage' if scalable else 'legacy'} {levels} levels"
    if isinstance(fresh.outcome, Translation):
        return "pass-through" if scalable else "legacy pass-through"
    return "no paging table"


class _Told:
    """Give accesses and interrupts recorded outcomes: ones of before, or any."""

    def __init__(self, random: Random, events: list[Event]) -> None:
        self.events = events
        self._random = random
        self._last: deque[Outcome] = deque(maxlen=_REMEMBERED)
        self._given: dict[int, tuple[int, ...]] = {}  # pages that devices were told of
        self._of: dict[tuple[int, int | None, int], tuple[Outcome, ...]] = {}

    def completed(self, event: Event) -> Event:
        """Return an event with what was recorded of it, if anything was."""
        if isinstance(event, Access):
            given = self._given.get(event.sid, ())
            if event.attributes & Attribute.TRANSLATED and given and self._random.random() < 0.7:
                page = self._random.choice(given)
                return replace(event, iova=page, outcome=Translation(page, PAGE - 1))
            before = self._of.get((event.sid, event.pasid, event.iova // PAGE), ())
            draw = self._random.random()
            if draw < 0.5:
                if not before:
                    return event
                return replace(event, outcome=self._narrowed(self._random.choice(before), event))
            if draw < 0.53 and self._last:
                return replace(event, outcome=self._random.choice(self._last))
            if draw < 0.55:
                return replace(event, outcome=Fault(self._random.randrange(1, 256)))
        return event

    def permitted(self, event: Access, found: Sequence[Candidate]) -> None:
        """Learn what was permitted."""
        outcomes = tuple(one.outcome for one in found)
        key = event.sid, event.pasid, event.iova // PAGE
        self._of[key] = (*outcomes, *self._of.get(key, ()))[:6]
        self._last.append(outcomes[-1])
        first = outcomes[0]
        if event.attributes & Attribute.TRANSLATION_REQUEST and isinstance(first, Translation):
            page = (first.address | event.iova & first.mask) & -PAGE
            self._given[event.sid] = (page, *self._given.get(event.sid, ()))[:4]

    def _narrowed(self, outcome: Outcome, event: Access) -> Outcome:
        """Return an outcome, or what a unit that fractures large pages makes of it."""
        if isinstance(outcome, Fault) or self._random.random() < 0.5:
            return outcome
        inside = outcome.mask & ~(PAGE - 1)
        return Translation(outcome.address | event.iova & inside, outcome.mask & PAGE - 1)


def shrunk(found: Difference) -> Difference:
    """Leave out of a difference what it does not need."""
    left = [ATTEMPTS]
    best = found

    def same(events: list[Event]) -> bool:
        nonlocal best
        if left[0] <= 0:
            return False
        left[0] -= 1
        now = compare(found.config, events)
        if now is None or now.what != found.disagreement.what:
            return False
        best = replace(best, disagreement=now, events=events[: now.event + 1])
        return True

    _without(list(found.events), same)
    return best


def _without(items: list[Any], check: Callable[[list[Any]], bool]) -> None:
    size = len(items) // 2
    while size:
        at = len(items) - size
        while at >= 0 and items:
            tried = items[:at] + items[at + size :]
            if check(tried):
                items = tried
            at -= size
        size //= 2


def header(config: UnitConfig) -> Header:
    """Return the header of a trace of such a unit."""
    info = UnitInfo(
        version=config.version,
        capability=config.capability,
        extended_capability=config.extended_capability,
        host_address_width=config.host_address_width,
        virtual_commands=config.virtual_commands,
        updates=config.updates.word if config.updates else "",
    )
    return Header(
        dialect=config.dialect.name,
        memory=config.memory,
        units=(info,),
        switches=switches_of(config.dialect),
    )
