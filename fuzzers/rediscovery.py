"""Find what a real VT-d unit does otherwise than specified, from nothing.

Nothing is known before: no deviation, no crash, no input. What was found becomes known by its
signature or its cause, so that the search goes on, and the commonest does not hide the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from random import Random
from typing import Final

from decoders.events import Event
from decoders.vtd import registers as vtd
from harness.differential.bare import Bare, Life, Shown
from harness.differential.cause import UNIT_ALONE, cause, explained, least_of
from harness.differential.evidence import Reproducer, reproducer
from harness.differential.naming import descriptor_name
from harness.findings import FindingKind
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE
from harness.signature import Signature
from harness.signature_words import without_numbers


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


LOOKS: Final = 3
"""Sequences in which a signature is looked at that is not settled by the first."""
SMALL: Final = 12
"""Events; a finding with more is looked at again where another sequence shows the same."""
OUTLIVES: Final = Signature(
    str(FindingKind.DIVERGENCE), "Reset", "what came before it counts behind it"
)
"""Name of what shows in a machine that was reset, and not in a new one."""


def turns(name: Signature) -> tuple[str, ...]:
    """Return what takes turns: kinds of events, of each its subjects, sorts of outcomes, and so on.

    One fault for another is one sort of outcome, whichever they are.
    """
    subject, sort = name.subject.partition(" ")[0], without_numbers(name.outcome)
    words = f"{name.kind} {name.event}", subject, sort, name.outcome, name.step
    return tuple(accumulate(words, "{}, {}".format))


class Rediscovery:
    """Search on machines in turn; `findings` is what was found, by name.

    Half of the time is for running sequences, half for finding out what they have shown.
    """

    def __init__(self, machines: Sequence[Bare]) -> None:
        self._machines = machines
        self._began = time.process_time()
        self._studied = 0.0
        self._turns: Counter[str] = Counter()
        self._looks: Counter[Signature] = Counter()
        self._unsettled: set[Signature] = set()
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
            if self._wants(one.signature):
                self._waiting[one.signature] = _Seen(
                    bare, one, life, seed, self.seconds, self.sequences, self.steps
                )
            if one.divergence is None and one.step < len(life.steps):
                # It costs a new QEMU, and says nothing new: it is not done again.
                self._ends |= set(list(triggers(life.steps[one.step]))[-1:])

    def _wants(self, name: Signature) -> bool:
        """Say whether a signature is to be looked at where a sequence shows it."""
        if name in self._waiting:
            return False
        if name not in self._known:
            return True
        found = self._known[name]
        large = found is not None and len(found.events) > SMALL
        return self._looks[name] < LOOKS and (large or name in self._unsettled)

    def study(self) -> Finding | None:
        """Look at one signature; return the finding if it is a new one.

        Each kind of event has its turn: there are far more ways for an access to go wrong. So has
        each subject of a kind, and what was not looked at comes first.
        """
        wanted = min(self._waiting, key=self._rank)
        seen = self._waiting.pop(wanted)
        self._turns.update(turns(wanted))
        count = len(self.findings)
        self._found(seen.shown, seen)
        return list(self.findings.values())[-1] if len(self.findings) > count else None

    def _rank(self, name: Signature) -> tuple[int, ...]:
        first, *rest = (self._turns[one] for one in turns(name))
        return first, self._looks[name], *rest

    def _found(self, shown: Shown, seen: _Seen) -> Finding | None:
        """Return the finding that something shown belongs to, which may be a new one."""
        name = shown.signature
        self._waiting.pop(name, None)
        self._looks[name] += 1
        self._unsettled.discard(name)
        found = self._learn(shown, seen)
        self._known[name] = found or self._known.get(name)
        if found is not None:
            found.raw.add(name)
        return found

    def _learn(self, shown: Shown, seen: _Seen) -> Finding | None:
        """Return what a signature belongs to; None when it did not show again."""
        bare = seen.bare
        name = explained(bare, shown, seen.life, list(self.findings))
        if name is not None:
            # Another sequence may show the same for another reason.
            self._unsettled.add(shown.signature)
            return self._smaller(self.findings[name], shown, seen)
        least = bare.least(shown, seen.life)
        small = None if least is None else bare.again(shown.signature, least.steps, least.slot)
        if least is None or small is None:
            self.unstable += 1
            self._unsettled.add(shown.signature)
            return None
        name = explained(bare, small, least, list(self.findings))
        if name is not None:
            return self._smaller(self.findings[name], small, replace(seen, life=least))
        first = bare.departed(small, least)
        if first is not None:
            self._unsettled.add(shown.signature)
            known = self._known.get(first.signature)
            return known or self._found(first, replace(seen, life=least))
        name = cause(bare, small, least) or shown.signature
        if name in self.findings:
            return self._smaller(self.findings[name], small, replace(seen, life=least))
        bare.qemu.restart()
        if bare.again(shown.signature, least.steps, least.slot) is None:
            self._unsettled.add(shown.signature)
            name = OUTLIVES
            if name in self.findings:
                return self.findings[name]
        elif name.event != shown.signature.event:
            least, small = least_of(bare, name, least) or (least, small)
        self.findings[name] = self._made(name, small, replace(seen, life=least))
        return self.findings[name]

    def _made(self, name: Signature, small: Shown, seen: _Seen) -> Finding:
        """Return a finding that the least sequence shows."""
        bare, least = seen.bare, seen.life
        events = bare.plain(small, least)
        small = bare.again(small.signature, least.steps, least.slot) or small
        made = reproducer(bare, small, [str(name)])
        if name == OUTLIVES:
            made = replace(made, checks=())  # no new QEMU shows it
        return Finding(
            name, bare, small, least, events, made, seen.seed, seen.seconds, seen.sequences,
            seen.steps,
        )  # fmt: skip

    def _smaller(self, found: Finding, shown: Shown, seen: _Seen) -> Finding:
        """Return a finding, shown by another sequence if that takes fewer events."""
        if len(found.events) <= SMALL or found.name == OUTLIVES:
            return found
        bare, life = seen.bare, replace(seen.life, steps=seen.life.steps[: shown.step + 1])
        if found.name.event == shown.signature.event:
            small = bare.again(shown.signature, life.steps, life.slot)
            less = None if small is None else (life, small)
        else:
            less = least_of(bare, found.name, life)
        if less is None:
            return found
        made = self._made(found.name, less[1], replace(seen, life=less[0]))
        if len(made.events) < len(found.events):
            found.bare, found.shown, found.life = made.bare, made.shown, made.life
            found.events, found.reproducer = made.events, made.reproducer
        return found

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
