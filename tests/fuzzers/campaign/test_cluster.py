"""A campaign on workers of a Dask scheduler finds and keeps what one here does.

Scheduler, workers and campaign are processes of their own; each worker has its own directory for
temporary files, as on a machine of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzzers.campaign.executors import Cluster
from harness.errors import HarnessError
from tests.fuzzers.campaign.test_killed import ROOT, assert_there, kept

SLICES = 5
"""Slices that each worker has to bring."""

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed")


def test_without_dask_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HarnessError, match=r"pip install 'dmarewind\[cluster\]'"):
        Cluster("tcp://127.0.0.1:1", Path(), 0)


def spawn(stack: ExitStack, directory: Path, *words: str) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT, stdout=log, stderr=log,
            env=os.environ | {"TMPDIR": str(directory), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and two workers of one thread each."""
    note = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        spawn(
            stack, tmp_path / "scheduler", "distributed.cli.dask_scheduler", "--port", "0",
            "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(note),
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not note.exists() or not note.read_text():
            assert time.monotonic() < deadline, (tmp_path / "scheduler/log").read_text()
            time.sleep(0.2)
        where = json.loads(note.read_text())["address"]
        workers = [
            spawn(
                stack,
                tmp_path / f"worker{number}",
                "distributed.cli.dask_worker",
                where,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--name",
                f"worker{number}",
                "--local-directory",
                str(tmp_path / f"worker{number}"),
            )
            for number in range(2)
        ]
        yield where, workers


@needs_dask
@pytest.mark.optional
def test_two_workers_of_which_one_is_killed(
    address: tuple[str, list[subprocess.Popen[bytes]]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    where, workers = address
    directory = tmp_path / "campaign"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzzers.campaign.chores", str(directory), "600", where],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    pids = [str(worker.pid) for worker in workers]
    done: Counter[str] = Counter()
    before: tuple[set[str], dict[str, str]] | None = None
    try:
        for text in process.stdout:
            event = json.loads(text)
            if event["event"] == "slice" and event["target"]:
                done[event["worker"].rpartition(":")[2]] += 1
            if before is None and all(done[pid] >= SLICES for pid in pids):
                before = kept(directory)
                workers[0].kill()
                done.clear()
            if before is not None and done[pids[1]] >= SLICES:
                break
        assert before is not None, "a worker did nothing"
    finally:
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == -signal.SIGTERM, err
    now, known = kept(directory)
    assert before[0] <= now
    assert before[1].keys() <= known.keys()
    assert_there(directory)
    signatures = list((directory / "records").iterdir())
    assert len(signatures) == len(known) >= 1, "a signature was kept twice"
    record_property(
        "summary",
        f"two Dask workers, one killed: {len(before[0])} inputs and {len(before[1])} findings "
        f"before, {len(now)} and {len(known)} after, none lost",
    )
