"""The minimiser beside a plain ddmin, on traces that show a finding: what is left, and runs.

Both keep the same signature and pass the same gate: no finding may come up that was not there.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.minimise.engine import Options, minimise
from harness.minimise.gate import Gate, Journal
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace
from harness.signature import Signature
from tools.bench.ratio import Ratio
from tools.bench.reproducers import Reproducer, reproducers

SHARE: Final = 0.3
"""Runs of the minimiser over those of ddmin, at most, as the median over all."""
QUEUE_EVENTS, QUEUE_RUNS = 7, 300
"""What has to be left of a queue, and in how many runs, at most."""
MOST_RUNS: Final = 3_000
"""Runs after which ddmin is ended; more only count against it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one trace gave."""

    name: str
    before: int
    after: int
    runs: int
    plain: int
    plain_runs: int
    ended: bool
    """Whether ddmin was ended by MOST_RUNS."""


def ddmin(trace: Trace, target: Signature, allowed: frozenset[Signature]) -> tuple[int, int, bool]:
    """Return what Zeller's ddmin leaves of the events, its runs, and whether it was ended early."""
    judge = ReplayJudge("native")
    gate = Gate(judge, target, allowed, trace, Journal(None, []), MOST_RUNS)
    seen: dict[tuple[int, ...], bool] = {}
    runs = 0

    def shows(part: Sequence[int]) -> bool:
        nonlocal runs
        name = tuple(part)
        if name not in seen:
            runs += 1
            chosen = Trace(trace.header, tuple([trace.events[n] for n in part]))
            seen[name] = gate.wanted(judge(chosen))
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
    return len(items), runs, runs >= MOST_RUNS


def measured(one: Reproducer) -> Row:
    """Run both on a trace."""
    judge = ReplayJudge("native")
    shown = judge(one.trace)
    target = shown[one.which].signature
    result = minimise(one.trace, judge, Options(100_000, wanted=target.key))
    left, runs, ended = ddmin(one.trace, target, frozenset(each.signature for each in shown))
    return Row(
        one.name, len(one.trace.events), len(result.trace.events), result.runs, left, runs, ended
    )


def run(_: list[Path]) -> list[Ratio]:
    """Measure all; print a table to standard error."""
    print(f"{'trace':<42}{'events':>7}{'left':>6}{'runs':>6}{'ddmin left':>12}{'runs':>7}",
          file=sys.stderr, flush=True)  # fmt: skip
    rows = []
    for one in reproducers():
        row = measured(one)
        more = "+" if row.ended else ""
        print(
            f"{row.name:<42}{row.before:>7}{row.after:>6}{row.runs:>6}"
            f"{row.plain:>12}{row.plain_runs:>7}{more}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        rows.append(row)
    queues = [row for row in rows if row.name.startswith("queue")]
    shares = [row.runs / row.plain_runs for row in rows]
    larger = max(row.after / row.plain for row in rows)
    return [
        Ratio("minimise: events left over ddmin's, largest", larger, "minimise", "ddmin", 1, True),
        Ratio(f"minimise: runs over ddmin's, median of {len(rows)}", statistics.median(shares),
              "minimise", "ddmin", SHARE, True),
        Ratio("minimise: runs over ddmin's, largest", max(shares),
              "minimise", "ddmin", SHARE, True),
        Ratio("minimise: events left of a queue, most", max(row.after for row in queues), "events",
              "one", QUEUE_EVENTS, True),
        Ratio("minimise: runs for a queue, most", max(row.runs for row in queues), "runs", "one",
              QUEUE_RUNS, True),
    ]  # fmt: skip
