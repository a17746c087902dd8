"""Compare the model and the native core on what a real unit did: in step, and when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from decoders.events import Event
from harness.differential.deviation import Situation
from harness.differential.pair import BUDGETS, DisagreementError
from harness.differential.pair_vtd import VtdPair
from harness.findings import Finding, FindingKind
from harness.model.config import UnitConfig
from harness.targets import target_named
from harness.trace import Block
from harness.trace.codec import Encoder


class Followers:
    """Take in what happened, and say where the two part; they are their own guides."""

    def __init__(self, config: UnitConfig) -> None:
        self._pair = VtdPair(config)
        self._ended = False

    def apart(
        self, events: Sequence[Event], *, ended: bool = False
    ) -> tuple[Finding, Situation] | None:
        """Apply the events that are new; at the end compare registers and memory, too."""
        if self._ended:
            return None
        try:
            for event in islice(events, self._pair.events, None):
                self._pair.apply(event)
            if ended:
                self._pair.compare()
        except DisagreementError as error:
            self._ended = True
            one = error.disagreement
            number = min(one.event, len(events) - 1)
            finding = Finding(number, FindingKind.DIVERGENCE, one.what, None, ())
            said = frozenset((f"model: {one.model}", f"native: {one.native}"))
            return finding, Situation("disagreement", one.what, frozenset(), said)
        except BUDGETS:
            self._ended = True
        return None


def judged(name: str, events: Sequence[Event], config: UnitConfig) -> list[Finding]:
    """Return what a target finds in events."""
    target = target_named(name, config)
    encoder = Encoder()
    target.feed(Block(0, len(events), b"".join(map(encoder.encode, events))))
    target.finish()
    return target.findings()


def found_by_one(name: str, events: Sequence[Event], config: UnitConfig) -> list[Finding]:
    """Return the first thing that another target finds and the model does not, or the reverse."""
    theirs, ours = (judged(one, events, config) for one in (name, "model"))
    return [one for one in (*theirs, *ours) if (one in theirs) != (one in ours)][:1]
