"""Find what a real VT-d unit does otherwise than specified, from nothing.

Nothing is known before: no deviation, no crash, no input. What was found becomes known by its
signature or its cause, so that the search goes on, and the commonest does not hide the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from decoders.events import Event, Fault, RegRead
from decoders.vtd import registers as vtd
from harness.differential.bare import Bare, Life, Shown
from harness.differential.cause import UNIT_ALONE, cause, explained, least_of
from harness.differential.evidence import Reproducer, reproducer
from harness.differential.given_vtd import steps_of
from harness.differential.naming import descriptor_name
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE
from harness.signature import Signature


@dataclass(slots=True)
class Finding:
    """Hold one finding: the least sequence that shows it, and when it was found.

    raw are the signatures that were taken for it. seconds are those of this process.
    """

    name: Signature
    bare: Bare
    shown: Shown
    life: Life
    events: Sequence[Event]
    reproducer: Reproducer
    seed: int
    seconds: float
    sequences: int
    steps: int
    raw: set[Signature] = field(default_factory=set)


Trigger = tuple[str, int]
"""A register and the size of a write to it, or a kind of descriptor and how many are queued."""

ODD: Final = "odd descriptor"
"""Label of a step that queues one descriptor and nothing behind it."""

_QUEUE_BYTES: Final = 4096
_USUAL: Final = (vtd.GCMD.offset, vtd.IQT.offset)


def triggers(step: Step) -> dict[Trigger, None]:
    """Return what may end a unit in a step, that which comes last at the end."""
    found = {
        (f"write to {write.offset:#x}", write.size): None
        for write in step.writes if write.offset not in _USUAL
    }  # fmt: skip
    queued = [store.value for store in step.stores if QUEUE <= store.address < QUEUE + _QUEUE_BYTES]
    if step.label == ODD and queued:
        found[descriptor_name((*queued, 0)), 1] = None
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """Hold where a signature was seen first."""

    bare: Bare
    shown: Shown
    life: Life
    seed: int
    seconds: float
    sequences: int
    steps: int


class Rediscovery:
    """Search on machines in turn; `findings` is what was found, by name.

    Half of the time is for running sequences, half for finding out what they have shown.
    """

    def __init__(self, machines: Sequence[Bare]) -> None:
        self._machines = machines
        self._began = time.process_time()
        self._studied = 0.0
        self._turns: Counter[str] = Counter()
        self._ends: set[Trigger] = set()
        self._known: dict[Signature, Finding | None] = {}
        self._waiting: dict[Signature, _Seen] = {}
        self.seen: Counter[Signature] = Counter()
        self.findings: dict[Signature, Finding] = {}
        self.sequences = self.steps = self.unstable = 0

    @property
    def seconds(self) -> float:
        """Return the processor time spent here; what QEMU takes comes on top."""
        return time.process_time() - self._began

    @property
    def waiting(self) -> int:
        """Return how many signatures nobody has looked at yet."""
        return len(self._waiting)

    def count(self, finding: Finding) -> int:
        """Return how often a finding was seen."""
        return sum(self.seen[name] for name in finding.raw)

    def go_on(self, seed: int) -> Finding | None:
        """Run the sequence of a seed, or look at what was seen; return what is new."""
        if self._studied * 2 < self.seconds and self._waiting:
            began = self.seconds
            found = self.study()
            self._studied += self.seconds - began
            return found
        self.run(seed)
        return None

    def run(self, seed: int) -> None:
        """Run the sequence of a seed."""
        bare = self._machines[seed % len(self._machines)]
        life = bare.made(Random(seed))
        life = replace(
            life, steps=[one for one in life.steps if self._ends.isdisjoint(triggers(one))]
        )
        before = bare.differential.totals.steps
        shown = bare.run(life.steps, life.slot)
        self.sequences += 1
        self.steps += bare.differential.totals.steps - before
        for one in shown:
            self.seen[one.signature] += 1
            if one.signature not in self._known and one.signature not in self._waiting:
                self._waiting[one.signature] = _Seen(
                    bare, one, life, seed, self.seconds, self.sequences, self.steps
                )
            if one.divergence is None and one.step < len(life.steps):
                # It costs a new QEMU, and says nothing new: it is not done again.
                self._ends |= set(list(triggers(life.steps[one.step]))[-1:])

    def study(self) -> Finding | None:
        """Look at one signature; return the finding if it is a new one.

        Each kind of event has its turn: there are far more ways for an access to go wrong.
        """
        wanted = min(self._waiting, key=lambda one: self._turns[f"{one.kind} {one.event}"])
        seen = self._waiting.pop(wanted)
        self._turns[f"{wanted.kind} {wanted.event}"] += 1
        count = len(self.findings)
        self._found(seen.shown, seen)
        return list(self.findings.values())[-1] if len(self.findings) > count else None

    def _found(self, shown: Shown, seen: _Seen) -> Finding | None:
        """Return the finding that something shown belongs to, which may be a new one."""
        if shown.signature not in self._known:
            self._waiting.pop(shown.signature, None)
            found = self._known[shown.signature] = self._learn(shown, seen)
            if found is not None:
                found.raw.add(shown.signature)
        return self._known[shown.signature]

    def _learn(self, shown: Shown, seen: _Seen) -> Finding | None:
        """Return what a signature that is new belongs to; None when it did not show again."""
        bare = seen.bare
        name = explained(bare, shown, seen.life, list(self.findings))
        if name is not None:
            return self.findings[name]
        least = bare.least(shown, seen.life)
        small = None if least is None else bare.again(shown.signature, least.steps, least.slot)
        if least is None or small is None:
            self.unstable += 1
            return None
        first = self._before(bare, small, least)
        if first is not None:
            return self._found(first, replace(seen, life=least))
        name = cause(bare, small, least) or shown.signature
        if name in self.findings:
            return self.findings[name]
        if (
            name.event != shown.signature.event
            and (less := least_of(bare, name, least)) is not None
        ):
            least, shown = less
            small = shown
        events = self._plain(bare, small, least)
        small = bare.again(shown.signature, least.steps, least.slot) or small
        made = reproducer(bare, small, [str(name)])
        self.findings[name] = Finding(
            name, bare, small, least, events, made, seen.seed, seen.seconds, seen.sequences,
            seen.steps,
        )  # fmt: skip
        return self.findings[name]

    def merge(self) -> None:
        """Count findings for a cause that explains them and was found behind them.

        What the unit does not look at is no such cause: much is not looked at once the unit is
        elsewhere.
        """
        for name, found in list(self.findings.items()):
            others = [one for one in self.findings if one != name and one.subject == UNIT_ALONE]
            better = explained(found.bare, found.shown, found.life, others)
            if better is not None:
                self.findings[better].raw |= found.raw
                del self.findings[name]

    def _before(self, bare: Bare, shown: Shown, life: Life) -> Shown | None:
        """Return where the unit has left the specification before, in what nothing can be left out.

        What it then shows follows from that. A fault for a fault leads nowhere else.
        """
        for one in bare.run(life.steps, life.slot):
            found = one.divergence
            if found is None or one.step >= shown.step:
                break
            sides = (found.finding.observed, *found.finding.permitted)
            if one.signature.event == "Access" and not all(isinstance(x, Fault) for x in sides):
                return one if one.signature != shown.signature else None
        return None

    def _plain(self, bare: Bare, shown: Shown, life: Life) -> Sequence[Event]:
        """Return the events without reads that say nothing, where these still show the same."""
        found = shown.divergence
        wanted = found.finding.event if found is not None else -1
        beside = {one.event for one in found.beside} if found is not None else set()
        events = [
            event for number, event in enumerate(shown.events)
            if not isinstance(event, RegRead) or number == wanted or number in beside
        ]  # fmt: skip
        steps = steps_of(events, bare.qemu, bare.differential.scene)
        again = bare.again(shown.signature, steps, life.slot)
        return shown.events if again is None else events
