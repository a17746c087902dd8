"""`dmarewind diff --unit vtd` without a QEMU: what becomes of processes that share the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness import diff_pair
from harness.differential.in_step import Totals
from harness.errors import HarnessError

_FIRST = 25


def dies(machines: Sequence[str], seeds: tuple[int, int]) -> diff_pair.Found:
    """Stand for sequences of which those behind the first part kill their process."""
    if seeds[0] >= _FIRST:
        os.kill(os.getpid(), signal.SIGKILL)
    return Totals(), []


def test_a_process_that_dies_is_reported_with_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_pair, "_part", dies)
    with pytest.raises(HarnessError, match=r"a process died .* seeds .*\b\d+-\d+"):
        list(diff_pair._results(2, ["legacy"], 0, 100))


def test_processes_end_with_the_one_that_is_killed() -> None:
    words = ["diff", "--unit", "vtd", "--targets", "model,native", "--steps", "1000000"]
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "--quiet", *words, "--jobs", "2"],
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:  # fmt: skip
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
        wait_until(lambda: len(children.read_text().split()) >= 2)
        first.kill()
    wait_until(lambda: not alive(first.pid))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(group: int) -> bool:
    """Say whether there is a process in a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
