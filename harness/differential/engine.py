"""Run made-up sequences on a unit that answers by itself, and have targets judge every answer.

What the unit did becomes events, as if it had been recorded: a sequence that one of the targets
does not accept is a trace that can be kept and replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from decoders.events import Access, DeviceReset, Event, FaultReport, RegWrite, Request
from harness.decoded_virtio import request_name, status_name
from harness.findings import BROKEN, UNANSWERED, Finding, FindingKind
from harness.generate.virtio import Generator, Scene, Step
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.dialect import VirtioDialect
from harness.targets import target_named
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Block, Header
from harness.trace.codec import Encoder

MODEL: Final = "model"


@dataclass(frozen=True, slots=True)
class Divergence:
    """Hold a sequence that a target, the judge, did not accept; events end where it did not."""

    seed: int
    step: int
    judge: str
    finding: Finding
    events: list[Event]


@dataclass(slots=True)
class Totals:
    """Count what was run; seen counts requests by answer and accesses by outcome."""

    sequences: int = 0
    steps: int = 0
    accesses: int = 0
    reports: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, events: Sequence[Event]) -> None:
        """Count the events of a step."""
        self.steps += 1
        for event in events:
            match event:
                case Request(data, _, answer):
                    said = "none" if answer is None else status_name(answer)
                    self.seen[f"{request_name(data)} {said}"] += 1
                case Access(kind=kind, outcome=outcome):
                    self.accesses += 1
                    self.seen[f"{kind.name.lower()} {type(outcome).__name__.lower()}"] += 1
                case FaultReport():
                    self.reports += 1
                case RegWrite():
                    self.seen["bypass written"] += 1
                case DeviceReset():
                    self.seen["device reset"] += 1
                case _:
                    pass


class UnexplainedError(Exception):
    """Report what DMA did beyond what accesses can say; events are those of the step so far."""

    def __init__(self, subject: str, seen: bytes | FaultReport, events: list[Event]) -> None:
        super().__init__(subject)
        self.subject, self.seen, self.events = subject, seen, events


class Unit(Protocol):
    """Do what steps say, and say what happened."""

    version: tuple[int, ...]
    dialect: VirtioDialect
    header: Header
    scene: Scene

    def begin(self) -> list[Event]:
        """Reset the whole machine and say what it is."""
        ...

    def step(self, step: Step, guide: VirtioModelReplay) -> list[Event]:
        """Do one step and return what happened; the guide is told of each event.

        A request without an answer was not given back.
        Errors: EndedError when the unit did not survive, UnexplainedError.
        """
        ...

    def restart(self) -> None:
        """Start a unit that has ended anew."""

    def needs_reset(self) -> bool:
        """Say whether the unit asks to be reset."""
        ...


class Judge(VirtioModelReplay):
    """Judge as the model does, and take a request without an answer for one not given back."""

    def __init__(self, config: VirtioConfig, unit: Unit) -> None:
        super().__init__(config)
        self._judged = unit

    def _unanswered(self, permitted: tuple[bytes, ...]) -> None:
        if not self.unit.broken:
            subject = BROKEN if self._judged.needs_reset() else UNANSWERED
            number = self._counters.events
            self._report(Finding(number, FindingKind.DIVERGENCE, subject, None, permitted))


class Differential:
    """Run sequences on a unit and have targets judge them; the model does so step by step.

    dialect is the one that the unit is held to, if not its own.
    """

    def __init__(
        self, unit: Unit, judges: Sequence[str], length: int, dialect: VirtioDialect | None = None
    ) -> None:
        self.unit, self._length = unit, length
        self._others = [name for name in judges if name != MODEL]
        self._dialect = dialect or unit.dialect
        self.totals = Totals()
        self.events: list[Event] = []

    def config(self, dialect: VirtioDialect) -> VirtioConfig:
        """Return what the unit is for the model, with a dialect."""
        info = self.unit.header.units[0]
        return VirtioConfig(info.capability, info.config, True, dialect)

    def made_up(self, seed: int) -> list[Step]:
        """Return the sequence of a seed."""
        return Generator(self.unit.scene, Random(seed)).sequence(self._length)

    def run(self, seed: int, given: Sequence[Step] | None = None) -> Divergence | None:
        """Run the sequence of a seed, or a given one, up to the first thing not accepted.

        `events` is what happened so far. Errors: EndedError when the unit did not survive.
        """
        self.totals.sequences += 1
        # Where an access led that shows nowhere is told by the unit's own dialect.
        guide = Judge(self.config(self.unit.dialect), self.unit)
        strict = Judge(self.config(self._dialect), self.unit)
        models = [guide] if self._dialect == self.unit.dialect else [guide, strict]
        events = self.events = []
        for event in self.unit.begin():
            events.append(event)
            for model in models:
                model.apply(event)
        sequence = self.made_up(seed) if given is None else given
        for number, step in enumerate(sequence):
            try:
                done = self.unit.step(step, guide)
            except UnexplainedError as error:
                events += error.events
                finding = Finding(
                    len(events) - 1, FindingKind.DIVERGENCE, error.subject, error.seen, ()
                )
                return Divergence(seed, number, MODEL, finding, events)
            events += done
            self.totals.add(done)
            for model in models[1:]:
                for event in done:
                    model.apply(event)
                model.finish()
            for model in models:
                for finding in model.findings():
                    return Divergence(seed, number, MODEL, finding, events[: finding.event + 1])
        for name in self._others:
            for finding in self.judged(name, self._dialect, events):
                shown = events[: finding.event + 1]
                return Divergence(seed, len(sequence) - 1, name, finding, shown)
        return None

    def judged(self, name: str, dialect: VirtioDialect, events: Sequence[Event]) -> list[Finding]:
        """Return what a target finds in events when the unit is taken to follow a dialect."""
        config = self.config(dialect)
        target = Judge(config, self.unit) if name == MODEL else target_named(name, config)
        encoder = Encoder()
        target.feed(Block(0, len(events), b"".join(map(encoder.encode, events))))
        target.finish()
        return target.findings()
