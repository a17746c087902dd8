"""Measure the coverage of the C++ core: `python -m tools.coverage`.

The core is built with counters, the comparisons with the model are run on it, and a table says of
each file how many of its lines and branches were run. Both all runs and those that compare each
answer have to keep the bounds. Reports are left in build/coverage: html/, coverage.lcov,
coverage.json, summary.txt and summary.json. Exit status: 0, 1 when a bound is missed, 2 when
something could not be built or a run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from fuzzers.coverage.build import BUILD, build, programs
from fuzzers.coverage.report import Part, Reporter, table, total
from harness.errors import HarnessError
from tools.coverage.bounds import BOUNDS, missed
from tools.coverage.runs import run_all


def _plain(part: Part) -> dict[str, Any]:
    shares = {"lines": part.lines, "branches": part.branches}
    return {"name": part.name} | {
        kind: asdict(share) | {"percent": round(share.percent, 2)} for kind, share in shares.items()
    }


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def measure(jobs: int) -> tuple[list[Part], list[Part], list[Part]]:
    """Build, run and write the reports; return shares of each run, of each file, and of all.

    The last are two: those of the runs that compare, and of every run.
    """
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s: {what}", file=sys.stderr, flush=True)

    tools = programs()
    say("building the core with counters")
    built = build(tools, tests=True)
    say("running the comparisons")
    done = run_all(built, jobs)
    say("merging the counters")
    reporter = Reporter(tools, built, BUILD)
    runs = []
    for number, one in enumerate(done):
        parts = reporter.parts(reporter.merge(str(number), one.profiles))
        runs.append(total(f"{one.run.name} ({one.seconds:.0f} s)", parts))
    compared = [profile for one in done if one.run.compares for profile in one.profiles]
    merged = reporter.merge("compared", compared)
    judged = [total("all that compare with the model", reporter.parts(merged))]
    merged = reporter.merge("all", (profile for one in done for profile in one.profiles))
    files = reporter.parts(merged)
    judged.append(total("all", files))
    reporter.write(merged)
    say(f"reports are in {BUILD}")
    return runs, files, judged


def main() -> int:
    """Print a table per run and per file; return 1 when a bound is missed, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tools.coverage", description=__doc__)
    parser.add_argument(
        "--jobs", type=_positive, default=os.cpu_count() or 1, help="runs at the same time"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    try:
        runs, files, judged = measure(args.jobs)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = [one for part in judged for one in missed(part)]
    tables = f"{table('file', files)}\n\n{table('run', [*runs, *judged])}\n"
    groups = {"all": judged, "runs": runs, "files": files}
    plain = {name: [_plain(part) for part in parts] for name, parts in groups.items()}
    summary = json.dumps({"bounds": BOUNDS, "missed": failed} | plain)
    (BUILD / "summary.txt").write_text(tables, encoding="utf-8")
    (BUILD / "summary.json").write_text(f"{summary}\n", encoding="utf-8")
    print(summary if args.json else tables, flush=True)
    for one in failed:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
