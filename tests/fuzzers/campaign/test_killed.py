"""A campaign that is killed at any moment, or has no room, loses nothing that it has kept."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from fuzzers.campaign.places import Place, name_of
from fuzzers.campaign.slices import FUZZ
from tests.fuzzers.campaign.chores import Forked

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("DMAREWIND_KILLS", "8"))
ROOM = 4 << 20

Begin = Callable[[Path, float], "subprocess.Popen[str] | Forked"]
"""Starts a campaign in a directory, for some seconds."""


def start(directory: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzzers.campaign.chores", str(directory), str(seconds)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kept(directory: Path) -> tuple[set[str], dict[str, str]]:
    """Return inputs, and by signature findings, that the database has acknowledged."""
    if not (directory / "state.db").exists():
        return set(), {}
    database = sqlite3.connect(directory / "state.db", timeout=30)
    try:
        if not database.execute("PRAGMA user_version").fetchone()[0]:
            return set(), {}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        inputs = {row[0] for row in database.execute("SELECT target || '/' || name FROM inputs")}
        findings = dict(
            database.execute(
                "SELECT target || '-' || key, target || '/' || input FROM findings"
            ).fetchall()
        )
        lost = database.execute("SELECT count(*) FROM inputs WHERE state = 'lost'").fetchone()
        assert lost == (0,)
    finally:
        database.close()
    return inputs, findings


def assert_there(directory: Path) -> None:
    """Check that each row has its file, whole."""
    inputs, findings = kept(directory)
    for folder, names in (("corpus", inputs), ("findings", findings.values())):
        for name in names:
            path = directory / folder / name
            assert name_of(path.read_bytes()) == path.name


def unacknowledged(directory: Path) -> set[str]:
    """Return whole inputs that slices have found and nobody has taken in yet."""
    places = [Place(path) for path in directory.glob("work/*")]
    return {
        f"{place.about()[1]}/{name_of(data)}"
        for place in places
        if place.about()[0] == FUZZ
        for data in place.new_inputs()
    }


def assert_survives(directory: Path, begin: Begin, kills: int, longest: float) -> str:
    """Kill a campaign many times, looking at what is kept each time; return what came of it."""
    chance = Random(kills)
    inputs: set[str] = set()
    findings: dict[str, str] = {}
    left: set[str] = set()
    salvaged = 0
    for number in range(kills):
        process = begin(directory, 600)
        assert process.stdout is not None
        if number % 5:
            process.stdout.readline()  # It has begun; else it may be killed before.
        time.sleep(chance.random() * longest)
        process.kill()
        process.communicate()
        now, known = kept(directory)
        assert inputs <= now, f"kill {number}: inputs were lost"
        assert findings.keys() <= known.keys(), f"kill {number}: findings were lost"
        assert_there(directory)
        salvaged += len(left & now - inputs)
        waiting = unacknowledged(directory)
        assert left <= now | waiting, f"kill {number}: what a killed slice had found was lost"
        inputs, findings, left = now, known, waiting
    process = begin(directory, 2)
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 1), err
    now, known = kept(directory)
    assert inputs | left <= now
    assert findings.keys() <= known.keys()
    assert json.loads(out.splitlines()[-1])["event"] == "end"
    assert (directory / "status.html").exists()
    return (
        f"{kills} times kill -9: {len(now)} inputs and {len(known)} findings kept, none lost, "
        f"{salvaged} inputs taken from slices that were killed"
    )


def test_kill_9_at_any_moment_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("summary", assert_survives(tmp_path, Forked, KILLS, 1.5))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = [mount, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.optional
def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    directory = small_disk / "campaign"
    ballast = small_disk / "ballast"
    process = start(directory, 40)
    assert process.stdout is not None
    events = map(json.loads, process.stdout)
    next(one for one in events if one["event"] == "slice")
    with ballast.open("wb") as stream, pytest.raises(OSError, match="No space"):
        while True:
            os.write(stream.fileno(), bytes(1024))
    assert next(one for one in events if one["event"] == "full")["problem"]
    assert process.poll() is None
    inputs, findings = kept(directory)
    assert_there(directory)
    ballast.unlink()
    next(one for one in events if one["event"] == "room")
    # Killed on a full disk, and begun again there: what was kept stays.
    process.kill()
    process.communicate()
    now, known = kept(directory)
    assert inputs <= now
    assert findings.keys() <= known.keys()
    assert_there(directory)


def test_a_second_campaign_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, 600)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "harness", "campaign", str(tmp_path)),
                *("--targets", "empty", "--minutes", "0.1"),
            ],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    finally:
        process.kill()
        process.communicate()
    assert done.returncode == 2
    assert f"a campaign is running there (process {process.pid})" in done.stderr
