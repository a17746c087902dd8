"""What a target counts and finds that compares a recording with a real unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.findings import Compared, Finding, FindingKind, Kept, StepTuple
from harness.targets.base import Counters


@dataclass(slots=True)
class Tally:
    """Count what was compared; nothing is judged while lost is set."""

    counters: Counters = field(default_factory=Counters)
    kept: Kept = field(default_factory=Kept)
    lost: bool = False

    def agreed(self) -> None:
        """Count something that is as it was recorded."""
        self.counters.agreed += 1

    def unjudged(self) -> None:
        """Count something that was recorded and cannot be compared."""
        self.counters.unjudged += 1

    def found(
        self, subject: str, recorded: Compared | None, *now: Compared, event: int | None = None,
        steps: Sequence[StepTuple] = (),
    ) -> None:  # fmt: skip
        """Report that something recorded, or expected, is not what the unit does now.

        event is the number of what caused it, if not that of the current one, steps the walk.
        """
        if self.lost:
            return
        self.counters.divergences += 1
        number = self.counters.events if event is None else event
        walk = tuple((int(role), level, address, value) for role, level, address, value in steps)
        self.kept.add(Finding(number, FindingKind.DIVERGENCE, subject, recorded, now, walk))
