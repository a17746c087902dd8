"""What a real intel-iommu does otherwise than specified is seen again from corpora/deviations."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from harness.cli import main
from harness.deviations import Crash
from harness.deviations_vtd import CRASHES, DEVIATIONS, crashes_of, known_crash, without_each
from harness.differential import given
from harness.differential.deviation import VtdDeviation
from harness.differential.given_vtd import descriptor_bytes, machine_named, steps_of
from harness.differential.vtd import Differential
from harness.errors import HarnessError
from harness.model.dialects import SPECIFICATION, Dialect, dialect_named
from harness.qemu.process import EndedError
from harness.qemu.vtd import MACHINES, VtdQemu
from harness.trace import Header, open_events, write_text

FOLDER: Final = Path(__file__).parents[3] / "corpora" / "deviations"
MOST_EVENTS: Final = 32


def name_of(row: VtdDeviation, condition: int = 0) -> str:
    """Return a row's id; the second of its conditions has .2 behind it."""
    return f"{row.id}.{condition + 1}" if condition else row.id


ROWS: Final = {
    name_of(row, condition): row for row in DEVIATIONS for condition in range(len(row.shows) or 1)
}
KNOWN_CRASHES: Final = {crash.id: crash for crash in CRASHES}


def header_at(path: Path) -> Header:
    with open_events(path) as source:
        return source.header


def header_of(name: str) -> Header:
    return header_at(FOLDER / f"{name}.txt")


def has_device_tlb(name: str) -> bool:
    return "device-iotlb" in MACHINES[machine_named(header_of(name))]


def has(row: VtdDeviation, version: tuple[int, ...], own: Dialect) -> bool:
    """Say whether a QEMU should show a row: as a part of its dialect, or as a version of it."""
    if row.members:
        return any(one is row for one, _ in without_each(own))
    return row.concerns(version)


def test_each_row_has_a_trace_and_each_trace_a_row() -> None:
    kept = {path.stem for path in FOLDER.glob("*.txt")}
    assert kept == {*ROWS, *KNOWN_CRASHES}


@pytest.mark.parametrize("name", [*ROWS, *KNOWN_CRASHES])
def test_a_trace_is_small(name: str) -> None:
    assert len(given.read(FOLDER / f"{name}.txt")) <= MOST_EVENTS


@pytest.mark.parametrize("name", [*ROWS, *KNOWN_CRASHES])
def test_a_plain_qemu_can_be_shown_what_needs_no_backend(name: str) -> None:
    script = FOLDER / f"{name}.sh"
    assert script.exists() != has_device_tlb(name)
    if script.exists():
        subprocess.run(["sh", "-n", str(script)], check=True)


class Machines:
    """Start each machine once."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self._found: dict[str, Differential] = {}

    def __getitem__(self, name: str) -> Differential:
        if name not in self._found:
            qemu = self._cleanup.enter_context(VtdQemu(name))
            own = dialect_named("qemu-{}.{}".format(*qemu.version))
            self._found[name] = Differential(qemu, ["model"], 1, own, SPECIFICATION)
        return self._found[name]

    def repeat(self, name: str) -> tuple[Differential, set[str]]:
        """Do what a trace says, and return the names of the rows that it shows."""
        differential = self[machine_named(header_of(name))]
        events = given.read(FOLDER / f"{name}.txt")
        steps = steps_of(events, differential.qemu, differential.scene)
        found = differential.run(0, steps, descriptor_bytes(events))
        shown = set()
        for one in found:
            row = differential.deviation(one)
            if row is not None and row in DEVIATIONS:
                condition = row.condition(one.facts, differential.qemu.version)
                shown.add(name_of(row, condition or 0))
        return differential, shown


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with ExitStack() as cleanup:
        yield Machines(cleanup)


@pytest.mark.qemu
@pytest.mark.parametrize(("name", "row"), ROWS.items(), ids=list(ROWS))
def test_a_deviation_shows_on_the_versions_that_have_it(
    machines: Machines, name: str, row: VtdDeviation
) -> None:
    differential, shown = machines.repeat(name)
    version = differential.qemu.version
    own = dialect_named("qemu-{}.{}".format(*version))
    if has(row, version, own):
        assert name in shown, f"QEMU {version} shows {shown or 'nothing'} instead of: {row.what}"
    else:
        assert name not in shown, f"QEMU {version} should not have it: {row.what}"


@pytest.mark.qemu
@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.id)
def test_a_crash_shows_on_the_versions_that_have_it(machines: Machines, crash: Crash) -> None:
    qemu = machines[machine_named(header_of(crash.id))].qemu
    if crash not in crashes_of(qemu.version):
        machines.repeat(crash.id)
        return
    with pytest.raises(EndedError) as caught:
        machines.repeat(crash.id)
    qemu.restart()
    assert known_crash(str(caught.value), qemu.version) is crash


@pytest.mark.qemu
def test_the_command_repeats_a_trace_and_names_its_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = str(FOLDER / "dirty-bit-lost.txt")
    assert main(["--json", "diff", "--unit", "vtd", "--no-deviations", trace]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.get("reason") for one in found[:-1]] == ["dirty-bit-lost"]
    assert found[-1]["sequences"] == 1 and trace in found[-1]["source"]
    assert main(["--json", "diff", "--unit", "vtd", trace]) == 0, "a known deviation was reported"


def test_a_trace_of_another_machine_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "guest.txt"
    with open_events(FOLDER / "dirty-bit-lost.txt") as source:
        write_text(trace, replace(source.header, source={}), list(source))
    with pytest.raises(HarnessError, match="names no machine"):
        machine_named(header_at(trace))
