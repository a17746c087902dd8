"""Look for each planted defect with each fuzz target that can reach it.

`python -m tools.bench defects` builds the core with defects (build/defects), fuzzes once for each
defect and target, from the target's own seeds, and prints a table. What was measured is kept: a run
that was ended goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from fuzzers import instrumented
from harness.errors import HarnessError
from tools.bench.defects.search import BUILD, INPUT, Searched, built, search
from tools.bench.defects.table import Row, failed, line, markdown, objects
from tools.bench.defects.worker import CONTROL

KEPT: Final = BUILD / "kept"
_RESULTS: Final = "results.jsonl"
_SHRINK_TIMEOUT: Final = 1800


def table_of(module: Path) -> list[Row]:
    """Return the defects that a bench build can make. Errors: HarnessError."""
    code = (
        "import json; from harness.native.loading import core; print(json.dumps(core().defects()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=instrumented.environment(module),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise HarnessError(f"{module} has no defects:\n{done.stderr[-2000:]}")
    rows = json.loads(done.stdout)
    return [Row(name, tuple(targets.split()), *rest) for name, targets, *rest in rows]


def main(argv: Sequence[str]) -> int:
    """Measure; return 1 when a defect was not found, or something was found without one."""
    args = _parser().parse_args(argv)
    if not args.minutes > 0 or args.jobs < 1:
        raise HarnessError("--minutes and --jobs are above 0")
    module = built()
    rows = table_of(module)
    unknown = set(args.only or ()) - {row.name for row in rows} - {CONTROL}
    if unknown:
        raise HarnessError(f"no defect {', '.join(sorted(unknown))}")
    targets = sorted({target for row in rows for target in row.targets})
    rows.append(Row(CONTROL, tuple(targets), "", "control: nothing is planted"))
    rows = [row for row in rows if not args.only or row.name in args.only]
    bench = _Bench(args, module)
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(bench.measure, rows))
    measured = list(zip(rows, done, strict=True))
    for said in objects(measured) if args.json else markdown(measured):
        print(said)
    return int(failed(measured))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.bench defects", description=__doc__)
    parser.add_argument("--only", action="append", metavar="ID", help="a defect (again for more)")
    parser.add_argument("--target", metavar="NAME", help="this fuzz target only")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of processor time, each (default %(default)s)"
    )
    parser.add_argument(
        "--first", action="store_true", help="leave out targets behind one that found the defect"
    )
    parser.add_argument(
        "--search-only", action="store_true", help="minimise what was found another time"
    )
    parser.add_argument("--show", action="store_true", help="what is kept, and measure nothing")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--keep", type=Path, default=KEPT, metavar="DIR",
        help="results and inputs; what is there is not measured again (default %(default)s)",
    )  # fmt: skip
    return parser


class _Bench:
    """Measure what has not been measured."""

    def __init__(self, args: argparse.Namespace, module: Path) -> None:
        self._args, self._module = args, module
        self._keep: Path = args.keep
        self._seconds = 60 * args.minutes
        self._keep.mkdir(parents=True, exist_ok=True)
        self._known = {(one.defect, one.target): one for one in self._read()}

    def _read(self) -> Iterator[Searched]:
        path = self._keep / _RESULTS
        for one in path.read_text().splitlines() if path.is_file() else ():
            try:
                yield Searched.from_json(json.loads(one))
            except (ValueError, TypeError):
                continue  # of a run that was ended while it wrote

    def measure(self, row: Row) -> list[Searched]:
        """Return what each target of a row did."""
        made = []
        for target in row.targets:
            known = (row.name, target) in self._known
            if self._args.target not in (None, target) or (self._args.show and not known):
                continue
            made.append(self._one(row.name, target))
            if made[-1].found and self._args.first:
                break
        return made

    def _one(self, defect: str, target: str) -> Searched:
        place = self._keep / f"{defect}-{target}"
        done = self._known.get((defect, target))
        shrunk = self._args.search_only or defect == CONTROL
        if done is not None and self._args.show:
            return done
        if done is not None and (done.found or done.budget >= self._seconds):
            if shrunk or done.unit or not done.found:
                return done
        else:
            done = search(defect, target, self._seconds, self._args.seed, place, self._module)
        if done.found and not shrunk:
            done = self._shrunk(done, place / INPUT)
        # One line in one write: several threads come here.
        with (self._keep / _RESULTS).open("a") as stream:
            stream.write(json.dumps(done.as_json()) + "\n")
        print(line(done), file=sys.stderr, flush=True)
        return done

    def _shrunk(self, done: Searched, path: Path) -> Searched:
        ran = self._shrinking(done, path, forks=done.crashed)
        if ran.returncode and not done.crashed:
            # What disagreed may crash with less.
            ran = self._shrinking(done, path, forks=True)
        if ran.returncode:
            print(f"{done.defect}: not minimised:\n{ran.stderr[-2000:]}", file=sys.stderr)
            return done
        return replace(done, **json.loads(ran.stdout.splitlines()[-1]))

    def _shrinking(
        self, done: Searched, path: Path, *, forks: bool
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "tools.bench.defects.shrinking"),
                *(done.defect, done.target, os.fspath(path), str(int(forks))),
            ],
            env=instrumented.environment(self._module),
            capture_output=True, text=True, timeout=_SHRINK_TIMEOUT, check=False,
        )  # fmt: skip
