"""Fuzz one target in a program of its own, which PyInstaller packs (fuzzers/oss-fuzz/build.sh).

What a worker (fuzzers.worker) is told by its environment, a program that starts by itself sees to;
a difference or an exception ends it as a crash does, for somebody else keeps its input.
"""

from __future__ import annotations

import sys

from fuzzers import allocator, worker
from fuzzers.target import target_named

COVERAGE = "coverage"
"""What OSS-Fuzz sets for SANITIZER where inputs are run to be counted, without a runtime."""


def main(name: str, sanitizer: str) -> None:
    """Fuzz a target until libFuzzer ends; leave with an exit code when that cannot begin."""
    allocator.use_malloc()
    # A target's own changes of inputs are not looked for: what the program starts with is not yet
    # an interpreter, so that the hooks of Atheris cannot be preloaded.
    problem = None if sanitizer == COVERAGE else worker.unfit()
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(worker.UNFIT)
    target = target_named(name)
    # libFuzzer runs argv[0] again for a merge; here that is the program itself.
    against = target.against[0]
    worker.fuzz(target, against, worker.runner_of(target, against), sys.argv)
