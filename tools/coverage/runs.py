"""What exercises the core: a table of runs, each a process whose counters are kept apart."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzzers.coverage.build import BUILD, ROOT, Built
from harness.errors import HarnessError
from harness.native.loading import CORE_VARIABLE

PROFILES: Final = BUILD / "profiles"
LOGS: Final = BUILD / "logs"
OPERATIONS: Final = 30_000
"""Operations that each seeded comparison of model and core makes."""
_TIME_LIMIT: Final = 900
_NATIVE: Final = ("-k", "native")
"""Of tests that both engines pass by themselves only those of the core are of use here."""


@dataclass(frozen=True, slots=True)
class Run:
    """Describe one run: a name, and a Python module with its arguments or the C++ tests.

    compares tells whether each answer is compared with one of the model or of the decoders.
    """

    name: str
    arguments: tuple[str, ...] = ()
    compares: bool = True

    def command(self, built: Built) -> list[str]:
        """Return what is run."""
        if not self.arguments:
            return [str(built.tests)]
        return [sys.executable, "-m", *self.arguments]


@dataclass(frozen=True, slots=True)
class Done:
    """Hold how long a run took, and the files it left."""

    run: Run
    seconds: float
    profiles: list[Path]


def _tests(name: str, *paths: str, only: Sequence[str] = (), compares: bool = True) -> Run:
    quiet = ("-q", "-p", "no:cacheprovider", "--hypothesis-seed=1")
    return Run(name, ("pytest", *quiet, *only, *(f"tests/{path}" for path in paths)), compares)


RUNS: Final = (
    _tests(
        "translation and invalidation",
        "harness/test_equality.py",
        "harness/differential/test_pair.py",
    ),
    _tests(
        "interrupts, page requests, virtio",
        "harness/test_interrupt_equality.py",
        "harness/test_page_request_equality.py",
        "harness/virtio/test_equality.py",
    ),
    _tests(
        "replays of made-up lives and events",
        "harness/test_replay_equality.py",
        "harness/test_reader_equality.py",
        "harness/virtio/test_replay_equality.py",
    ),
    _tests("replays of recordings", "harness/replay", only=_NATIVE, compares=False),
    _tests("a rule each", "harness/unit", "harness/virtio", only=_NATIVE, compares=False),
    _tests(
        "translation in batches",
        "harness/test_translate.py",
        "harness/test_warm_invalidation.py",
    ),
    _tests("inputs of fuzz targets", "fuzzers/test_scaffold.py", "fuzzers/test_targets.py"),
    _tests("ACPI tables", "harness/acpi", only=_NATIVE),
    Run("changed ACPI tables", ("tools.mutate_acpi", "--count", "20000")),
    Run("C++ tests", compares=False),
)


def _run(one: Run, number: int, built: Built) -> Done:
    """Do one run; raise HarnessError with the end of its output when it fails."""
    # %c keeps the counters in the file all the time, %p gives each process one of its own. A
    # forked process goes on counting in its parent's.
    pattern = PROFILES / f"{number}-%c%p.profraw"
    environment = os.environ | {
        "LLVM_PROFILE_FILE": str(pattern),
        CORE_VARIABLE: str(built.module),
        "DMAREWIND_EQUALITY_OPERATIONS": str(OPERATIONS),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("DMAREWIND_REQUIRE", None)  # what is skipped here is run by the test suite
    log = LOGS / f"{number}.log"
    began = time.monotonic()
    try:
        with log.open("wb") as output:
            status = subprocess.run(
                one.command(built),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_TIME_LIMIT,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{one.name}: not done after {_TIME_LIMIT} s ({log})") from error
    if status:
        text = log.read_text(encoding="utf-8", errors="replace")
        raise HarnessError(f"{one.name}: exit status {status}\n{text[-4000:]}({log})")
    profiles = sorted(PROFILES.glob(f"{number}-*.profraw"))
    if not profiles:
        raise HarnessError(f"{one.name} ran nothing of the core ({log})")
    return Done(one, time.monotonic() - began, profiles)


def run_all(built: Built, jobs: int) -> list[Done]:
    """Do all runs, some at the same time, and return them in their order."""
    for folder in (PROFILES, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(_run, one, number, built) for number, one in enumerate(RUNS)]
        try:
            return [future.result() for future in started]
        except HarnessError:
            pool.shutdown(cancel_futures=True)
            raise
