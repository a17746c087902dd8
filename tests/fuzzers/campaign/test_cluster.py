"""A campaign on workers of a Dask scheduler keeps what they bring, and goes on without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzers.campaign.executors import Cluster
from harness.errors import HarnessError
from tests.fuzzers.campaign.machines import Machine, needs_dask, two_machines
from tests.fuzzers.campaign.test_killed import ROOT, assert_there, kept

SLICES = 5
"""Slices that each worker has to bring."""


def test_without_dask_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HarnessError, match=r"pip install 'dmarewind\[cluster\]'"):
        Cluster("tcp://127.0.0.1:1", Path(), 0)


@needs_dask
@pytest.mark.parametrize("address", ["nonsense", "tcp://there", "other://there:8786", "inproc://1"])
def test_what_is_no_address_is_refused_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that could not be made says so when it is collected, half a minute later.
    client = "distributed.Client"
    monkeypatch.setattr(client, lambda *_, **__: pytest.fail("a client was made"))
    with pytest.raises(HarnessError, match=f"{address}: not the address of a Dask scheduler: "):
        Cluster(address, Path(), 0)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[str, list[Machine]]]:
    with two_machines(tmp_path, os.environ | {"PYTHONPATH": str(ROOT)}) as there:
        yield there


@needs_dask
@pytest.mark.optional
def test_two_workers_of_which_one_is_killed(
    machines: tuple[str, list[Machine]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    where, workers = machines
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
