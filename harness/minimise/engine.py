"""Minimise a trace: what it depends on, then pieces, then single events, then values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import HarnessError
from harness.minimise import values, virtio_values
from harness.minimise.closure import at_the_end, closed
from harness.minimise.deletion import shortened, without_pieces
from harness.minimise.gate import BudgetSpentError, Gate, Journal, Reliability
from harness.minimise.judges import Judge, Shown
from harness.minimise.pieces import Cut
from harness.minimise.trace import Trace, checked
from harness.model.config import UnitConfig
from harness.replay import unit_config
from harness.signature import Signature

DEFAULT_BUDGET: Final = 2000
"""Runs of the target."""
ATTEMPTS: Final = 5
"""Runs of the beginning and of the result, where a judge may say something else each time."""


@dataclass(frozen=True, slots=True)
class Options:
    """Say how to minimise; wanted is the beginning of a signature's key, empty for the first.

    loose lets the result show findings that the beginning does not.
    """

    budget: int = DEFAULT_BUDGET
    jobs: int = 1
    attempts: int = ATTEMPTS
    wanted: str = ""
    loose: bool = False
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what came of it: runs are those of the judge, complete that the budget sufficed.

    value_runs are those of them that came when the events that are left were known.
    """

    before: Trace
    trace: Trace
    target: Signature
    shown: Shown
    first: Reliability
    last: Reliability
    runs: int
    value_runs: int
    complete: bool


def _told(runs: int, events: int) -> None:
    """Tell nobody."""


def minimise(
    trace: Trace, judge: Judge, options: Options, told: Callable[[int, int], None] = _told
) -> Result:
    """Return the smallest trace that was found and still shows the finding.

    Errors: HarnessError when the trace shows nothing, or not what is wanted.
    """
    attempts = 1 if judge.repeatable else options.attempts
    seen = [judge(trace) for _ in range(attempts)]
    target = _chosen(seen, options.wanted, judge.name)
    first = _reliability(seen, target)
    runs = attempts
    allowed = frozenset(one.signature for shown in seen for one in shown)
    purpose = [
        trace.digest, *judge.identity, target.key, str(attempts), str(first.tries),
        str(options.loose),
    ]  # fmt: skip
    with Journal(options.state, purpose) as journal:
        gate = Gate(
            judge, target, None if options.loose else allowed, trace, journal, 0,
            first.tries, options.jobs, told,
        )  # fmt: skip
        shown = _of(seen, target)
        with gate.open():
            explicit = Cut(trace, explicit=True).trace
            if explicit.events != trace.events and checked(explicit) is not None:
                # Each descriptor is a store now, and every event may have another number.
                again = judge(explicit)
                runs += 1
                if gate.wanted(again):
                    gate.best, shown, gate.shown = explicit, _of([again], target), again
            # Those at the end say whether the result still shows it.
            gate.budget = max(0, options.budget - runs - attempts)
            complete, value_runs = _reduce(gate, shown)
        best = min(gate.best, trace, key=lambda one: one.order)
        runs += journal.runs
    last = gate.shown if best is gate.best else None
    if judge.repeatable and last is not None:
        seen = [last]  # it would say the same again
    else:
        seen = [judge(best) for _ in range(attempts)]
        runs += attempts
    return Result(
        trace, best, target, _of(seen, target, shown), first, _reliability(seen, target),
        runs, value_runs, complete,
    )  # fmt: skip


def _reduce(gate: Gate, shown: Shown) -> tuple[bool, int]:
    """Do all passes; say whether the budget sufficed, and the runs since no event went any more."""
    vtd = isinstance(unit_config(gate.best.header), UnitConfig)
    events, known = -1, 0
    try:
        if shown.finding is None:
            shortened(gate)
        closed(gate, shown.finding or at_the_end(gate.best))
        without_pieces(gate)
        events, known = len(gate.best.events), gate.runs
        (values if vtd else virtio_values).canonical(gate)
        # Equal values may have made more of them needless.
        without_pieces(gate)
    except BudgetSpentError:
        return False, gate.runs - known if len(gate.best.events) == events else 0
    return True, gate.runs - known if len(gate.best.events) == events else 0


def _chosen(seen: list[list[Shown]], wanted: str, name: str) -> Signature:
    """Return the signature to keep: the first one that shows, or the one that is wanted."""
    found = list(dict.fromkeys(one.signature for shown in seen for one in shown))
    if not found:
        raise HarnessError(f"{name}: nothing to minimise, the trace shows nothing there")
    fitting = [one for one in found if one.key.startswith(wanted)]
    if not fitting:
        keys = "; ".join(f"{one.key} ({one})" for one in found[:5])
        raise HarnessError(f"{name}: no signature begins with {wanted}; there are {keys}")
    return fitting[0]


def _reliability(seen: list[list[Shown]], target: Signature) -> Reliability:
    shown = sum(any(one.signature == target for one in each) for each in seen)
    return Reliability(shown, len(seen))


def _of(seen: list[list[Shown]], target: Signature, other: Shown | None = None) -> Shown:
    found = (one for shown in seen for one in shown if one.signature == target)
    return next(found, other or Shown(target))
