"""Fuzzers on two machines of a cluster find what they find on one, and losing either loses nothing.

"Machines" are what tests.fuzzers.campaign.machines starts here.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzers.campaign.files import Files
from fuzzers.campaign.places import Place, name_of
from tests.fuzzers.campaign.fuzzing import (
    PATIENCE,
    Running,
    Told,
    command,
    needs_fuzzers,
    reached,
    surroundings,
    until,
)
from tests.fuzzers.campaign.machines import Machine, needs_dask, two_machines
from tests.fuzzers.campaign.test_killed import assert_there, kept

TARGETS = "planted,descriptors"
BOTH = "stateful,descriptors"
"""Each finds something, and does not wait for hangs."""

SLICES = 4
"""Slices that each machine has to bring."""

NEAR = (b"DMRhh", b"DMRuu")
"""One change away from what chance alone may find in one campaign and not in the other."""

ROUNDS = 6
REACHED = 0.95
"""Share of what both corpora reach that each of them has to."""

pytestmark = [pytest.mark.clang, pytest.mark.optional, needs_fuzzers, needs_dask]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[str, list[Machine]]]:
    with two_machines(tmp_path, surroundings()) as there:
        yield there


def brought(running: Running) -> Counter[str]:
    """Count the slices that ended on each machine, by the process of its worker."""
    return Counter(
        event["worker"].rpartition(":")[2]
        for event in running.events()
        if event["event"] == "slice" and event["target"]
    )


def until_it_has(running: Running, directory: Path, wanted: set[str], pids: list[str]) -> None:
    """Wait until a campaign has found what is wanted, and each worker has brought slices."""

    def there(told: Told) -> bool:
        done = brought(running)
        enough = told.slices >= 2 * SLICES and all(done[pid] >= SLICES for pid in pids)
        return enough and wanted <= {*kept(directory)[1]}

    until(running, there, f"{directory.name}: {wanted}")


def test_two_machines_find_what_one_does(
    machines: tuple[str, list[Machine]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    where, workers = machines
    spread, alone = tmp_path / "spread", tmp_path / "alone"
    ways = {spread: ("--scheduler", where), alone: ("--workers", "2")}
    told: dict[Path, set[str]] = {spread: set(), alone: set()}
    for directory in ways:
        Files(directory).add_inputs("planted", NEAR)
    # Chance decides what is found first: each goes on until it has found what the other has.
    for number in range(ROUNDS):
        directory = (spread, alone)[number % 2]
        words = command(directory, "--slice", "4", *ways[directory], targets=TARGETS)
        running = Running(words, tmp_path / f"run{number}.log")
        pids = [str(worker.pid) for worker in workers] if directory == spread else []
        try:
            until_it_has(running, directory, set().union(*told.values()), pids)
        finally:
            running.end()
        told[directory] = {*kept(directory)[1]}
        if number and told[spread] == told[alone]:
            break
    assert told[spread] == told[alone] != set()
    for directory in (spread, alone):
        assert_there(directory)
        records = {path.stem for path in (directory / "records").iterdir()}
        assert records == told[directory], "a signature was kept twice, or without a record"
    database = sqlite3.connect(spread / "state.db")
    (often,) = database.execute("SELECT max(times) FROM findings").fetchone()
    database.close()
    assert often >= 2, "no finding was found twice: this says nothing of deduplication"

    both = {
        one.name: reached(one, "descriptors", kept(one)[0], tmp_path / f"of {one.name}")
        for one in ways
    }
    union = tmp_path / "union"
    for directory in ways:
        for path in (directory / "corpus" / "descriptors").iterdir():
            (union / "corpus/descriptors").mkdir(parents=True, exist_ok=True)
            (union / "corpus/descriptors" / path.name).write_bytes(path.read_bytes())
    names = {f"descriptors/{path.name}" for path in (union / "corpus/descriptors").iterdir()}
    whole = reached(union, "descriptors", names, tmp_path / "of both")
    assert min(both.values()) >= REACHED * whole, f"{both}, together {whole}"
    record_property(
        "summary",
        f"two Dask workers and one machine: the same {len(told[alone])} signatures, each once "
        f"(the most frequent was seen {often} times); edges reached by descriptors "
        f"{both['spread']} and {both['alone']}, together {whole}",
    )


def found_at(machine: Machine) -> tuple[set[str], set[str]]:
    """Return inputs and findings that are whole on the disk of a machine."""
    inputs, findings = set(), set()
    for path in machine.places():
        place = Place(path)
        kind, target, _ = place.about()
        if kind == "fuzz":
            inputs |= {f"{target}/{name_of(data)}" for data in place.new_inputs()}
            findings |= {f"{target}-{seen.signature.key}" for seen in place.seen()}
    return inputs, findings


def waiting(directory: Path, inputs: set[str], findings: set[str]) -> bool:
    """Say whether some of what was found has not come to the campaign."""
    now, known = kept(directory)
    return not (inputs <= now and findings <= known.keys())


@pytest.mark.parametrize("victim", [0, 1])
def test_what_a_destroyed_machine_had_found_is_kept(
    machines: tuple[str, list[Machine]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    victim: int,
) -> None:
    where, workers = machines
    directory = tmp_path / "campaign"
    # A slice that is longer than the test waits: what is kept was handed over before its end.
    words = command(directory, "--slice", "600", "--scheduler", where, targets=BOTH)
    running = Running(words, tmp_path / "log")
    machine, other = workers[victim], workers[1 - victim]
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(found_at(machine)):
            assert time.monotonic() < deadline, running.errors()
            time.sleep(0.2)
        inputs, findings = found_at(machine)

        def handed_over(_: Told) -> bool:
            # libFuzzer puts shorter inputs in the place of longer ones meanwhile.
            return not waiting(directory, inputs & found_at(machine)[0], findings)

        until(running, handed_over, f"{inputs} and {findings} are not handed over")
        inputs &= kept(directory)[0]
        assert inputs, "all were replaced before they were handed over"
        assert not brought(running)[str(machine.pid)], "its slice came to its end"
        machine.destroy()
    finally:
        running.end()
    # What nobody was told to stop is still at work there; the next slices come without waiting.
    other.off()
    other.start()
    words = command(directory, "--slice", "4", "--scheduler", where, targets=BOTH)
    running = Running(words, tmp_path / "again")
    try:
        until(running, lambda _: brought(running)[str(other.pid)] >= 2, "it does not go on")
    finally:
        running.end()
    assert not waiting(directory, inputs, findings)
    assert_there(directory)
    record_property(
        "summary",
        f"{machine.directory.name} of two Dask workers destroyed in its slice: its {len(inputs)} "
        f"inputs and {len(findings)} findings are kept, the other one goes on",
    )


def test_what_a_killed_worker_had_found_is_kept_to_the_last(
    machines: tuple[str, list[Machine]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    where, workers = machines
    directory = tmp_path / "campaign"
    words = command(directory, "--slice", "8", "--scheduler", where, targets=BOTH)
    running = Running(words, tmp_path / "log")
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(found_at(workers[0])):
            assert time.monotonic() < deadline, running.errors()
            time.sleep(0.05)
        workers[0].kill()
        inputs, findings = found_at(workers[0])
        workers[0].start()  # As Dask's nanny does.
        until(running, lambda _: inputs <= kept(directory)[0], "inputs of the killed worker")
        until(running, lambda _: findings <= {*kept(directory)[1]}, "its findings")
        until(running, lambda _: bool(brought(running)[str(workers[0].pid)]), "it does not go on")
        assert_there(directory)
    finally:
        running.end()
    record_property(
        "summary",
        f"one of two Dask workers killed and begun again: {len(inputs)} inputs and "
        f"{len(findings)} findings that it had at that moment are kept",
    )
