"""Find the least that shows again what a sequence has shown on a real VT-d unit."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from decoders.events import Event
from harness.deviations_vtd import known_crash
from harness.differential.deviation import VtdDeviation
from harness.differential.shrink import shrunk
from harness.differential.vtd import MODEL, Differential, Divergence
from harness.errors import HarnessError
from harness.generate.vtd_steps import Step
from harness.qemu.process import LOST, EndedError


@dataclass(frozen=True, slots=True)
class Sought:
    """Hold what the sequence of a seed showed: a divergence, or how QEMU ended."""

    found: Divergence | None
    seed: int
    ended: HarnessError | None = None

    def least(
        self, differential: Differential, steps: Sequence[Step], slot: int
    ) -> list[Event] | None:
        """Return the events of the least part of a sequence that shows the same.

        None when the whole does not show it again. The totals stay as they were.
        """
        found = self.found
        if found is not None and found.judge == MODEL:
            steps = steps[: found.step + 1]
        row = None if found is None else differential.deviation(found)
        totals = deepcopy(differential.totals)
        try:
            if self._again(differential, steps, slot, row) is None:
                return None
            least = shrunk(
                steps, slot, lambda part: self._again(differential, part, slot, row) is not None
            )
            return self._again(differential, least, slot, row)
        finally:
            differential.totals = totals

    def _again(
        self,
        differential: Differential,
        steps: Sequence[Step],
        slot: int,
        row: VtdDeviation | None,
    ) -> list[Event] | None:
        """Do steps; return the events up to where the same shows, None when it does not."""
        try:
            again = differential.run(self.seed, steps, slot)
        except LOST as error:
            differential.qemu.restart()
            return differential.events if self._same_end(error, differential) else None
        if self.found is None:
            return None
        subject = self.found.facts.subject
        for one in again:
            if one.facts.subject == subject and differential.deviation(one) == row:
                return one.events
        return None

    def _same_end(self, error: HarnessError, differential: Differential) -> bool:
        """Say whether QEMU ended as it did before."""
        if not (isinstance(error, EndedError) and isinstance(self.ended, EndedError)):
            return False
        version = differential.qemu.version
        known = known_crash(str(error), version), known_crash(str(self.ended), version)
        return known[0] == known[1] and error.status == self.ended.status
