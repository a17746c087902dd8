"""The minimiser beside a plain ddmin, on traces that show a finding: what is left, and runs.

Both keep the same signature, and may show anything beside it (`minimise --loose`). "clean" is what
`minimise` does by itself: it leaves a trace that shows nothing new. Runs are those until no event
can be left out any more, the first of the whole trace with them; what ddmin has nothing to set
against, making values small, is a column of its own. "blind" is `--loose` with a judge that says
yes or no and nothing else, as a script does.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.minimise.engine import Options, Result, minimise
from harness.minimise.judges import ReplayJudge, Shown
from harness.minimise.trace import Trace
from harness.signature import Signature
from tools.bench.ratio import Ratio
from tools.bench.reproducers import Reproducer, reproducers

SHARE: Final = 0.3
"""Runs of the minimiser over those of ddmin, at most."""
QUEUE_EVENTS, QUEUE_RUNS = 7, 300
"""What has to be left of a queue, and in how many runs, at most."""
MOST_RUNS: Final = 3_000
"""Runs after which ddmin is ended; more only count against it."""


@dataclass(frozen=True, slots=True)
class Left:
    """What one of them left of a trace: events, runs for that, and runs for the values then."""

    events: int
    runs: int
    value_runs: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What one trace gave."""

    name: str
    before: int
    clean: Left
    loose: Left
    blind: Left
    plain: Left
    ended: bool
    """Whether ddmin was ended by MOST_RUNS."""

    def __str__(self) -> str:
        numbers = (
            *(self.clean.events, self.clean.runs, self.clean.value_runs),
            *(self.loose.events, self.loose.runs, self.loose.value_runs),
            *(self.blind.events, self.blind.runs),
            *(self.plain.events, self.plain.runs),
        )
        plain = "".join(f"{n:>7}" for n in numbers) + ("+" if self.ended else " ")
        return f"{self.name:<38}{self.before:>7}{plain}{share(self.loose, self.plain):>6.2f}"


TITLES: Final = (
    *("clean", "runs", "values", "loose", "runs", "values", "blind", "runs", "ddmin", "runs"),
)


def share(ours: Left, plain: Left) -> float:
    """Return our runs over those of ddmin."""
    return ours.runs / plain.runs


class Blind(ReplayJudge):
    """Say which signatures show, and nothing about the findings."""

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return the signatures."""
        return [Shown(one.signature) for one in super().__call__(trace)]


def ddmin(trace: Trace, target: Signature) -> tuple[Left, bool]:
    """Return what Zeller's ddmin leaves of the events, and whether it was ended early."""
    judge = ReplayJudge("native")
    seen: dict[tuple[int, ...], bool] = {}
    runs = 1  # that of the whole

    def shows(part: Sequence[int]) -> bool:
        nonlocal runs
        name = tuple(part)
        if name not in seen:
            runs += 1
            chosen = Trace(trace.header, tuple([trace.events[n] for n in part]))
            seen[name] = any(one.signature == target for one in judge(chosen))
        return seen[name]

    items, pieces = list(range(len(trace.events))), 2
    while len(items) >= 2 and runs < MOST_RUNS:
        size = -(-len(items) // pieces)
        chunks = [items[at : at + size] for at in range(0, len(items), size)]
        for chunk in chunks:
            if shows(chunk):
                items, pieces = chunk, 2
                break
        else:
            for chunk in chunks:
                gone = frozenset(chunk)
                rest = [one for one in items if one not in gone]
                if rest and shows(rest):
                    items, pieces = rest, max(pieces - 1, 2)
                    break
            else:
                if pieces >= len(items):
                    break
                pieces = min(2 * pieces, len(items))
    return Left(len(items), runs), runs >= MOST_RUNS


def measured(one: Reproducer) -> Row:
    """Run both on a trace."""
    judge = ReplayJudge("native")
    shown = judge(one.trace)
    target = shown[one.which].signature
    clean, loose, blind = (
        _left(minimise(one.trace, asked, Options(100_000, wanted=target.key, loose=may_show_more)))
        for asked, may_show_more in ((judge, False), (judge, True), (Blind("native"), True))
    )
    plain, ended = ddmin(one.trace, target)
    return Row(one.name, len(one.trace.events), clean, loose, blind, plain, ended)


def _left(result: Result) -> Left:
    return Left(len(result.trace.events), result.runs - result.value_runs, result.value_runs)


def run(_: list[Path]) -> list[Ratio]:
    """Measure all; print a table to standard error."""
    titles = "".join(f"{title:>7}" for title in TITLES)
    print(f"{'trace':<38}{'events':>7}{titles} share", file=sys.stderr, flush=True)
    rows = []
    for one in reproducers():
        rows.append(measured(one))
        print(rows[-1], file=sys.stderr, flush=True)
    shares = [share(row.loose, row.plain) for row in rows]
    sizes = [one.events / row.plain.events for row in rows for one in (row.loose, row.blind)]
    blind = [share(row.blind, row.plain) for row in rows]
    queues = [row.clean for row in rows if row.name.startswith("queue")]
    found = (
        ("events left over ddmin's, largest", max(sizes), 1),
        (f"runs over ddmin's, median of {len(rows)}", statistics.median(shares), SHARE),
        ("runs over ddmin's, largest", max(shares), SHARE),
        ("the same, clean, largest", max(share(row.clean, row.plain) for row in rows), SHARE),
        ("the same, blind, median", statistics.median(blind), SHARE),
        ("events left of a queue, most", max(one.events for one in queues), QUEUE_EVENTS),
        ("runs for a queue, values too", max(q.runs + q.value_runs for q in queues), QUEUE_RUNS),
    )
    return [
        Ratio(f"minimise: {name}", value, "minimise", "ddmin or one", limit, True)
        for name, value, limit in found
    ]
