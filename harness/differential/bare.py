"""Hold a real VT-d unit to the specification, without a list of what it is known to do otherwise.

The model that follows the unit follows the specification, too; no crash is kept away from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from decoders.events import Event, Fault, RegRead
from harness.differential.given_vtd import steps_of
from harness.differential.naming import TABLE, signature
from harness.differential.shrink import shrunk
from harness.differential.vtd import MODEL, Differential, Divergence
from harness.errors import HarnessError
from harness.generate.vtd import Generator
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import Spot
from harness.model.dialects import SPECIFICATION
from harness.qemu.process import LOST, EndedError
from harness.qemu.vtd import VtdQemu
from harness.signature import CRASH, Signature, of_crash
from harness.trace import Header


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold what a sequence has shown: a divergence, or how QEMU ended; step is where."""

    signature: Signature
    step: int
    events: Sequence[Event]
    divergence: Divergence | None = None
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """Hold a sequence, the bytes of a descriptor in it, and where its tables are."""

    steps: Sequence[Step]
    slot: int
    spots: Sequence[Spot]


class Bare:
    """Run sequences on a QEMU and name what it does otherwise than the specification says."""

    def __init__(self, qemu: VtdQemu, length: int) -> None:
        self.qemu, self._length = qemu, length
        spec = SPECIFICATION
        self.differential = Differential(qemu, (MODEL,), length, spec, spec, avoided=())

    @property
    def header(self) -> Header:
        """Return the header of its traces."""
        return self.differential.header

    def made(self, random: Random) -> Life:
        """Return a sequence."""
        generator = Generator(self.differential.scene, random)
        steps = generator.sequence(self._length)
        return Life(steps, generator.slot, generator.tables.spots)

    def run(self, steps: Sequence[Step], slot: int) -> list[Shown]:
        """Run steps; return what was shown, up to where nobody knows which state the unit is in."""
        differential = self.differential
        before = differential.totals.steps
        try:
            found = differential.run(0, steps, slot)
        except LOST as error:
            at = differential.totals.steps - before
            self.qemu.restart()
            return [Shown(of_end(error), at, differential.events, None, str(error))]
        return [Shown(signature(one), one.step, one.events, one) for one in found]

    def least(self, shown: Shown, life: Life) -> Life | None:
        """Return the least part of a sequence that shows the same; None when the whole does not."""

        def again(part: Sequence[Step]) -> bool:
            return self.again(shown.signature, part, life.slot) is not None

        steps = life.steps[: shown.step + 1]
        if not again(steps):
            return None
        return replace(life, steps=shrunk(steps, life.slot, again))

    def again(self, wanted: Signature, steps: Sequence[Step], slot: int) -> Shown | None:
        """Run steps; return what they show of a signature."""
        return next((one for one in self.run(steps, slot) if one.signature == wanted), None)

    def departed(self, shown: Shown, life: Life) -> Shown | None:
        """Return where the unit has left the specification before, in what nothing can be left out.

        What it then shows follows from that. A fault for a fault leads nowhere else.
        """
        for one in self.run(life.steps, life.slot):
            found = one.divergence
            # What tables hold is looked at behind the last step.
            if found is None or (one.step >= shown.step and shown.signature.subject != TABLE):
                break
            sides = (found.finding.observed, *found.finding.permitted)
            if one.signature.event == "Access" and not all(isinstance(x, Fault) for x in sides):
                return one if one.signature != shown.signature else None
        return None

    def plain(self, shown: Shown, life: Life) -> Sequence[Event]:
        """Return the events without reads that say nothing, where these still show the same."""
        found = shown.divergence
        wanted = found.finding.event if found is not None else -1
        beside = {one.event for one in found.beside} if found is not None else set()
        events = [
            event for number, event in enumerate(shown.events)
            if not isinstance(event, RegRead) or number == wanted or number in beside
        ]  # fmt: skip
        steps = steps_of(events, self.qemu, self.differential.scene)
        again = self.again(shown.signature, steps, life.slot)
        return shown.events if again is None else events


def of_end(error: HarnessError) -> Signature:
    """Return the signature of a QEMU that ended or hangs."""
    made = of_crash(str(error))
    named = made.kind == CRASH and isinstance(error, EndedError)
    return Signature(CRASH, _QEMU, made.subject, made.outcome, made.step) if named else made


_QEMU: Final = "QEMU"
