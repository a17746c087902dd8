"""A campaign of real fuzzers that is killed at any moment, or has no room, loses nothing.

DMAREWIND_KILLS says how many kills there are, DMAREWIND_SEED when they come.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from fuzzers.campaign.files import Files
from fuzzers.campaign.places import Place
from fuzzers.campaign.rows import COVERED, LIVE
from fuzzers.campaign.schedule import MERGE_FROM
from fuzzers.target import target_named
from harness.trace import open_events
from tests.fuzzers.campaign.fuzzing import PATIENCE, Running, command, needs_fuzzers, reached, until
from tests.fuzzers.campaign.test_killed import assert_there, kept, unacknowledged

KILLS = int(os.environ.get("DMAREWIND_KILLS", "3"))
SEED = int(os.environ.get("DMAREWIND_SEED", "5"))
LONGEST = 30.0
"""Seconds until a kill that comes at any moment."""
HOLDS = 60.0
"""Seconds until a kill that waits for a slice with something new, which may not come."""
ENOUGH = 8
"""Kills of which one at least must meet such a slice."""

pytestmark = [pytest.mark.clang, pytest.mark.optional, needs_fuzzers]


def waiting_findings(directory: Path) -> set[str]:
    """Return findings that slices have written and nobody has taken in yet.

    A place that says no target any more was being removed: what it holds is kept.
    """
    places = [Place(path) for path in directory.glob("work/*")]
    return {
        f"{target}-{seen.signature.key}"
        for place in places
        if (target := place.about()[1])
        for seen in place.left()
    }


def held(directory: Path) -> set[str]:
    """Return inputs and findings that slices have found, and that are not kept yet.

    What is at work is looked at first: what is taken in meanwhile counts as kept.
    """
    inputs, findings = unacknowledged(directory), waiting_findings(directory)
    now, known = kept(directory)
    return (inputs - now) | (findings - known.keys())


def wait_for_news(running: Running, directory: Path, seconds: float, old: set[str]) -> None:
    """Wait until a slice holds something beside what is old, but no longer than so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.5)
        assert running.process.poll() is None, running.errors()
        with contextlib.suppress(FileNotFoundError):  # A place goes while it is looked at.
            if held(directory) - old:
                return


def assert_told_of(directory: Path, findings: dict[str, str]) -> None:
    """Check that what is said of each finding is there, and whole."""
    for name, path in findings.items():
        record = json.loads((directory / "records" / f"{name}.json").read_text())
        assert "OSError" not in record["signature"]["outcome"], "a full disk is no finding"
        assert name == f"{record['target']}-{record['signature']['key']}"
        assert (directory / "reports" / f"{name}.txt").read_text().endswith("\n")
        assert (directory / "findings" / path).is_file()


def executions(directory: Path) -> int:
    database = sqlite3.connect(directory / "state.db", timeout=30)
    try:
        (found,) = database.execute("SELECT sum(executions) FROM targets").fetchone()
    finally:
        database.close()
    return int(found or 0)


def test_kill_9_while_fuzzers_run_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    directory, chance = tmp_path / "campaign", Random(SEED)
    words = command(directory, "--slice", "8", "--workers", "2")
    inputs: set[str] = set()
    findings: dict[str, str] = {}
    left: set[str] = set()
    left_findings: set[str] = set()
    slices = salvaged = caught = 0
    for number in range(KILLS):
        where = f"seed {SEED}, kill {number}"
        running = Running(words, tmp_path / f"run{number}.log")
        try:
            if number % 3:
                wait_for_news(running, directory, HOLDS, left | left_findings)
            else:
                time.sleep(chance.uniform(0.3, LONGEST))
                assert running.process.poll() is None, running.errors()
            running.kill(everything=bool(number % 2))
        except BaseException:
            running.end()
            raise
        told = running.told()
        slices += told.slices
        now, known = kept(directory)
        assert inputs <= now, f"{where}: inputs were lost"
        assert findings.keys() | told.findings <= known.keys(), f"{where}: findings were lost"
        assert_there(directory)
        assert_told_of(directory, known)
        salvaged += len(left & now - inputs) + len(left_findings & known.keys() - findings.keys())
        waiting, waiting_ones = unacknowledged(directory), waiting_findings(directory)
        caught += bool((waiting | waiting_ones) - left - left_findings - now - known.keys())
        assert left <= now | waiting, f"{where}: what a killed slice had reached was lost"
        assert left_findings <= known.keys() | waiting_ones, f"{where}: what it had found was lost"
        inputs, findings, left, left_findings = now, known, waiting, waiting_ones
    assert caught or KILLS < ENOUGH, "no kill met a slice that held something new"
    before = executions(directory)
    running = Running([*words, "--minutes", "0.7"], tmp_path / "last.log")
    try:
        running.process.wait(PATIENCE)
    finally:
        running.end()
    assert running.process.returncode in (0, 1), running.errors()
    now, known = kept(directory)
    assert inputs | left <= now
    assert findings.keys() | left_findings <= known.keys()
    salvaged += len(left - inputs) + len(left_findings - findings.keys())
    assert_there(directory)
    assert executions(directory) > before, "it did not go on"
    assert not [*directory.rglob(".*.tmp")], "half-written files stay"
    record_property(
        "summary",
        f"fuzzers, {KILLS} times kill -9 (seed {SEED}): {len(now)} inputs and {len(known)} "
        f"findings kept, none lost; {caught} kills met slices that held something new, {salvaged} "
        "inputs and findings of these were kept then; "
        f"{slices + running.told().slices} slices ended",
    )


# --- a full disk ---------------------------------------------------------------------------------


class Disk:
    """Hold a small file system, which can be filled and made larger."""

    def __init__(self, mounted: Path, size: int) -> None:
        self.path, self._size = mounted, size

    def mount(self) -> str | None:
        """Mount it; return why not."""
        mount = shutil.which("mount")
        if mount is None or os.geteuid() != 0:
            return "only root can mount a small file system"
        return self._mount(f"size={self._size}")

    def _mount(self, options: str) -> str | None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return f"no tmpfs can be mounted here: {done.stderr}" if done.returncode else None

    def fill(self, leaving: int) -> None:
        """Leave some bytes: whoever writes next runs into the end somewhere."""
        there = os.statvfs(self.path)
        with (self.path / f"ballast{there.f_bavail}").open("wb") as stream:
            stream.write(bytes(max(0, there.f_bavail * there.f_frsize - leaving)))

    def grow(self, more: int) -> None:
        """Make room."""
        self._size += more
        assert self._mount(f"remount,size={self._size}") is None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    disk = Disk(mounted, 8 << 20)
    problem = disk.mount()
    if problem is not None:
        pytest.skip(problem)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_fuzzers_on_a_full_disk_wait_for_room(
    disk: Disk, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    directory = disk.path / "campaign"
    words = command(directory, "--slice", "3", "--workers", "2")
    running = Running(words, tmp_path / "first.log")
    try:
        until(running, lambda told: told.slices >= 2 and bool(told.findings), "a finding")
        disk.fill(64 << 10)
        until(running, lambda told: "full" in told.kinds, "a full disk")
        time.sleep(8)  # Slices that still run end there, and cannot be kept.
        assert running.process.poll() is None, running.errors()
        inputs, findings = kept(directory)
        assert_there(directory)
        slices = running.told().slices
        disk.grow(8 << 20)
        until(running, lambda told: "room" in told.kinds and told.slices >= slices + 3, "room")
        now, known = kept(directory)
        assert inputs <= now and findings.keys() | running.told().findings <= known.keys()
        assert_there(directory)

        disk.fill(16 << 10)
        time.sleep(15)
        running.kill(everything=True)
        told = running.told()
        inputs, findings = kept(directory)
        assert now <= inputs and known.keys() | told.findings <= findings.keys()
        left, left_findings = unacknowledged(directory), waiting_findings(directory)
    finally:
        running.end()
    disk.grow(8 << 20)
    before = executions(directory)
    running = Running([*words, "--minutes", "0.7"], tmp_path / "second.log")
    try:
        running.process.wait(PATIENCE)
    finally:
        running.end()
    assert running.process.returncode in (0, 1), running.errors()
    now, known = kept(directory)
    assert inputs | left <= now
    assert findings.keys() | left_findings <= known.keys()
    assert_there(directory)
    assert_told_of(directory, known)
    assert executions(directory) > before, "it did not go on"
    record_property(
        "summary",
        f"fuzzers on a full disk, twice, once killed there: {len(now)} inputs and {len(known)} "
        f"findings kept, none lost, {len(left)} inputs taken from what had no room",
    )


# --- what comes of inputs and findings ----------------------------------------------------------


def test_a_finding_ends_as_a_small_trace(tmp_path: Path) -> None:
    directory = tmp_path / "campaign"
    words = command(directory, "--slice", "3", targets="descriptors")
    running = Running(words, tmp_path / "log")
    try:
        until(running, lambda told: bool([*directory.glob("reports/*.trace.txt")]), "a trace")
        until(running, lambda told: "minimised" in states(directory).values(), "its row")
    finally:
        running.end()
    done = [name for name, state in states(directory).items() if state == "minimised"]
    assert done, running.errors()
    for name in done:
        path = directory / "reports" / f"{name}.trace.txt"
        remarks = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert remarks[0].startswith("# The model and the native core part at"), remarks
        with open_events(path) as trace:
            assert len([*trace]) < 40, f"{path.name} was not made small"


def states(directory: Path) -> dict[str, str]:
    database = sqlite3.connect(directory / "state.db", timeout=30)
    try:
        return dict(database.execute("SELECT target || '-' || key, state FROM findings").fetchall())
    finally:
        database.close()


def test_a_large_corpus_is_merged_and_reaches_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "campaign"
    seeds = [*target_named("viot").seeds()]
    # Bytes behind a table say nothing: the merge has to leave most of these.
    made = tuple(
        seed + bytes(size) for seed in seeds for size in range(MERGE_FROM // len(seeds) + 2)
    )
    Files(directory).add_inputs("viot", made)
    running = Running(command(directory, "--slice", "3", targets="viot"), tmp_path / "log")
    try:
        until(running, lambda _: "merge" in [e.get("kind") for e in running.events()], "a merge")
    finally:
        running.end()
    rows = inputs_of(directory)
    stay = {name for name, state in rows.items() if state == LIVE}
    assert len(stay) < len(rows) / 2, "the merge left what says nothing"
    assert COVERED in rows.values()
    assert_there(directory)
    edges = [reached(directory, "viot", names, tmp_path / f"of{len(names)}")
             for names in (stay, {*rows})]  # fmt: skip
    assert edges[0] == edges[1]


def inputs_of(directory: Path) -> dict[str, str]:
    database = sqlite3.connect(directory / "state.db", timeout=30)
    try:
        return dict(database.execute("SELECT target || '/' || name, state FROM inputs").fetchall())
    finally:
        database.close()
