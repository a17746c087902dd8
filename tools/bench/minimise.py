"""The minimiser beside a plain ddmin, on traces that show a finding: what is left, and runs.

Both keep the same signature, and may show anything beside it (`minimise --loose`). The first two
columns are what `minimise` does by itself: it leaves a trace that shows nothing new.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.minimise.engine import Options, minimise
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
    clean: int
    clean_runs: int
    after: int
    runs: int
    plain: int
    plain_runs: int
    ended: bool
    """Whether ddmin was ended by MOST_RUNS."""


def ddmin(trace: Trace, target: Signature) -> tuple[int, int, bool]:
    """Return what Zeller's ddmin leaves of the events, its runs, and whether it was ended early."""
    judge = ReplayJudge("native")
    seen: dict[tuple[int, ...], bool] = {}
    runs = 0

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
    return len(items), runs, runs >= MOST_RUNS


def measured(one: Reproducer) -> Row:
    """Run both on a trace."""
    judge = ReplayJudge("native")
    shown = judge(one.trace)
    target = shown[one.which].signature
    clean, loose = (
        minimise(one.trace, judge, Options(100_000, wanted=target.key, loose=loose))
        for loose in (False, True)
    )
    left, runs, ended = ddmin(one.trace, target)
    return Row(
        one.name, len(one.trace.events), len(clean.trace.events), clean.runs,
        len(loose.trace.events), loose.runs, left, runs, ended,
    )  # fmt: skip


def run(_: list[Path]) -> list[Ratio]:
    """Measure all; print a table to standard error."""
    titles = ("clean", "runs", "loose", "runs", "ddmin", "runs")
    print(f"{'trace':<42}{'events':>7}" + "".join(f"{title:>7}" for title in titles),
          file=sys.stderr, flush=True)  # fmt: skip
    rows = []
    for one in reproducers():
        row = measured(one)
        numbers = (row.clean, row.clean_runs, row.after, row.runs, row.plain, row.plain_runs)
        more = "+" if row.ended else ""
        print(f"{row.name:<42}{row.before:>7}" + "".join(f"{n:>7}" for n in numbers) + more,
              file=sys.stderr, flush=True)  # fmt: skip
        rows.append(row)
    shares = [row.runs / row.plain_runs for row in rows]
    larger = max(row.after / row.plain for row in rows)
    queues = [row for row in rows if row.name.startswith("queue")]
    left, runs = (max(numbers) for numbers in zip(
        *((row.clean, row.clean_runs) for row in queues), strict=True
    ))  # fmt: skip
    found = (
        ("events left over ddmin's, largest", larger, 1),
        (f"runs over ddmin's, median of {len(rows)}", statistics.median(shares), SHARE),
        ("runs over ddmin's, largest", max(shares), SHARE),
        ("events left of a queue, most", left, QUEUE_EVENTS),
        ("runs for a queue, most", runs, QUEUE_RUNS),
    )
    return [
        Ratio(f"minimise: {name}", value, "minimise", "ddmin or one", limit, True)
        for name, value, limit in found
    ]
