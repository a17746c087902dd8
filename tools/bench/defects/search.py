"""Let one fuzz target look for one defect: a process, and what came of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from fuzzers import instrumented
from fuzzers.command import plant, write_dictionary
from fuzzers.findings import Findings
from fuzzers.jobs import crash_in
from fuzzers.target import target_named
from harness.errors import HarnessError
from tools.bench.defects.worker import BEGAN, FOUND, SPENT

BUILD: Final = instrumented.ROOT / "build/defects"
INPUT: Final = "found"
"""The file that a search leaves in its place."""

_HANG_SECONDS: Final = 10
_MOST_WALL: Final = 40.0
"""Seconds that may pass for one of processor time, on a machine that does other things."""
_START_WALL: Final = 300.0
_DONE: Final = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.M)
_ARTIFACTS: Final = ("crash-*", "timeout-*", "oom-*")


@dataclass(frozen=True, slots=True)
class Searched:
    """Say what one search did; seconds are processor time behind the start of fuzzing."""

    defect: str
    target: str
    budget: float
    found: bool
    seconds: float
    startup: float
    """Seconds of processor time until fuzzing began: imports, scaffolds, instrumentation."""

    executions: int
    signature: str = ""
    crashed: bool = False
    size: int = 0
    """Bytes of the input that was found."""

    least: int = 0
    """Size of the reproducer, minimised: of events where there are some, else of bytes."""

    unit: str = ""
    """What `least` counts."""

    @property
    def smallest(self) -> str:
        """Return `least` with its unit; empty where nothing was minimised."""
        unit = self.unit.removesuffix("s") if self.least == 1 else self.unit
        return f"{self.least} {unit}" if unit else ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return what as_json() gave."""
        return cls(**plain)


def built() -> Path:
    """Return the module of the bench build, built when it is stale. Errors: HarnessError."""
    if instrumented.stale(BUILD):
        options = () if (BUILD / "CMakeCache.txt").is_file() else ("-DDMAREWIND_DEFECTS=ON",)
        return instrumented.build(("_core",), *options, directory=BUILD)
    found = instrumented.module(BUILD)
    assert found is not None
    return found


def search(
    defect: str, target_name: str, seconds: float, seed: int, place: Path, module: Path
) -> Searched:
    """Fuzz until something is found, or the seconds are spent; keep the input in a place.

    Errors: HarnessError when fuzzing could not begin, or ended in a way that says nothing.
    """
    target = target_named(target_name)
    shutil.rmtree(place, ignore_errors=True)
    corpus, findings = place / "corpus", Findings(place / "findings")
    plant(target, corpus)
    words = write_dictionary(target, place / "words")
    command = [
        *(sys.executable, "-m", "tools.bench.defects.worker", defect, str(seconds)),
        *(target.name, target.against[0], str(findings.directory)),
        *(f"-max_len={target.max_size}", f"-seed={seed}", f"-timeout={_HANG_SECONDS}"),
        *(f"-artifact_prefix={place}/", "-print_final_stats=1", "-print_funcs=0"),
        *("-rss_limit_mb=2048", "-reload=0", *words, str(corpus)),
    ]
    environment = instrumented.with_hooks(
        instrumented.environment(module), target, target.against[0]
    )
    log, taken = _run(command, environment, place / "log", seconds)
    began = _said(log, BEGAN)
    if began is None:
        raise HarnessError(f"{defect}, {target_name}: fuzzing did not begin:\n{log[-4000:]}")
    startup = began[1]
    found = _said(log, FOUND)
    if found is not None:
        kept = next(iter(findings))
        shutil.copy(kept.path, place / INPUT)
        return Searched(
            defect, target_name, seconds, True, found[1], startup, found[0],
            str(kept.signature), False, kept.path.stat().st_size,
        )  # fmt: skip
    artifact = next((one for kind in _ARTIFACTS for one in place.glob(kind)), None)
    if artifact is not None:
        signature, _ = crash_in(log)
        done = _DONE.search(log)
        shutil.copy(artifact, place / INPUT)
        return Searched(
            defect, target_name, seconds, True, max(0.0, taken - startup), startup,
            int(done[1]) if done else 0, str(signature), True, artifact.stat().st_size,
        )  # fmt: skip
    spent = _said(log, SPENT)
    if spent is None:
        raise HarnessError(f"{defect}, {target_name}: fuzzing ended early:\n{log[-4000:]}")
    return Searched(defect, target_name, seconds, False, spent[1], startup, spent[0])


def _run(
    command: list[str], environment: Mapping[str, str], log: Path, seconds: float
) -> tuple[str, float]:
    """Run a worker to its end; return what it said, and its processor time."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    watchdog = threading.Timer(_START_WALL + _MOST_WALL * seconds, process.kill)
    watchdog.start()
    try:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0  # it has been waited for
    finally:
        watchdog.cancel()
        if process.returncode is None:
            process.kill()
            process.wait()
    return log.read_text(errors="replace"), used.ru_utime + used.ru_stime


def _said(log: str, what: str) -> tuple[int, float] | None:
    """Return executions and seconds of the first line of a kind."""
    found = re.search(rf"^{what} (\d+) ([\d.]+)$", log, re.M)
    return None if found is None else (int(found[1]), float(found[2]))
