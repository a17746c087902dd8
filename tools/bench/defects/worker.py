"""Fuzz with one defect planted until the first finding, in this process.

`python -m tools.bench.defects.worker DEFECT SECONDS TARGET AGAINST FINDINGS [FLAG ...]` is
`fuzzers.worker` with two things more: the core makes the mistake from the start, and lines say in
processor time when fuzzing began, when something was found, and when the seconds were spent.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NoReturn

from fuzzers import worker
from fuzzers.target import Runner
from harness.native.loading import core

CONTROL: Final = "none"
"""In the place of a defect: none is planted."""

BEGAN, FOUND, SPENT = "defects: began", "defects: found", "defects: spent"
"""What lines begin with; executions and seconds follow."""


def main(argv: Sequence[str]) -> int:
    """Fuzz; return only when that cannot begin."""
    defect, seconds, *rest = argv
    if defect != CONTROL:
        core().plant(defect)
    return worker.main(rest, lambda runner: _watched(runner, float(seconds)))


def _watched(runner: Runner, seconds: float) -> Runner:
    """Return a runner that ends the process behind its first finding, or when time is spent."""
    began = time.process_time()
    runs, found = 0, False
    _say(BEGAN, 0, began)

    def run(data: bytes) -> None:
        nonlocal runs, found
        now = time.process_time() - began
        if found or now > seconds:
            _end(SPENT, runs, now)
        runs += 1
        try:
            runner(data)
        except Exception:
            # It is kept by who called; the next call ends the process.
            found = True
            _say(FOUND, runs, time.process_time() - began)
            raise

    return run


def _say(what: str, runs: int, seconds: float) -> None:
    print(f"{what} {runs} {seconds:.3f}", file=sys.stderr, flush=True)


def _end(what: str, runs: int, seconds: float) -> NoReturn:
    _say(what, runs, seconds)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
