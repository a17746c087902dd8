"""A real intel-iommu under made-up software: known deviations are told from everything else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from decoders.events import RegWrite, Store
from decoders.vtd import registers as vtd
from harness.deviations_vtd import DEVIATIONS, explanation, known_crash
from harness.differential.deviation import Situation
from harness.differential.follow import judged
from harness.differential.shrink import relocated, shrunk
from harness.differential.vtd import JUDGED, Differential
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE
from harness.model.config import UnitConfig
from harness.model.dialects import SPECIFICATION, dialect_named
from harness.native import available
from harness.qemu.process import EndedError, HungError
from harness.qemu.vtd import VtdQemu
from harness.replay import unit_config
from harness.trace import open_events, write_text

qemu_only = pytest.mark.qemu
STEPS = 60
FINDINGS = Path(__file__).parents[3] / "docs" / "findings"


@pytest.fixture(scope="module", params=["legacy", "second-stage", "first-stage", "extended"])
def machine(request: pytest.FixtureRequest) -> Iterator[VtdQemu]:
    with VtdQemu(request.param) as found:
        yield found


def held_to(machine: VtdQemu, specification: bool = False) -> Differential:
    own = dialect_named("qemu-{}.{}".format(*machine.version))
    return Differential(machine, ["model"], STEPS, own, SPECIFICATION if specification else own)


@qemu_only
def test_what_qemu_does_is_known(machine: VtdQemu) -> None:
    differential = held_to(machine)
    for seed in range(8):
        for found in differential.run(seed):
            row = differential.deviation(found)
            assert row is not None, f"seed {seed}, step {found.step}: {found.facts}"
    totals = differential.totals
    assert totals.accesses > 250 and totals.records > 60, totals


@qemu_only
def test_the_specification_alone_is_not_what_qemu_does(machine: VtdQemu) -> None:
    differential = held_to(machine, specification=True)
    met = set()
    for seed in range(15):
        try:
            found = differential.run(seed)
        except EndedError as error:
            known = known_crash(str(error), machine.version)
            assert known is not None, str(error)
            met.add(known.id)
            machine.restart()
            continue
        rows = [differential.deviation(one) for one in found]
        assert None not in rows, f"seed {seed}: {[one.facts for one in found]}"
        met |= {row.id for row in rows if row is not None}
    assert len(met) >= 3, met


@qemu_only
@pytest.mark.parametrize("specification", [False, True])
def test_a_trace_says_who_judged(
    machine: VtdQemu, specification: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the unit may have fetched early, or kept of a stale entry, is in no event.
    for latitude in ("fetch", "keep"):
        monkeypatch.setattr(f"harness.differential.teller.{latitude}", lambda *_: None)
    differential = held_to(machine, specification)
    path = tmp_path / "kept.txt"
    compared = 0
    for seed in range(40, 46):
        try:
            found = differential.run(seed)
        except EndedError:
            machine.restart()
            continue
        # What memory holds at the end is in no event.
        one = next((one for one in found if not isinstance(one.finding.observed, bytes)), None)
        if one is None:
            continue
        write_text(path, differential.header, one.events)
        with open_events(path) as source:
            config = unit_config(source.header)
            read = list(source)
        assert isinstance(config, UnitConfig)
        for name in ("model", "native") if available() else ("model",):
            again = [each for each in judged(name, read, config) if each.kind in JUDGED]
            places = [(each.event, each.subject) for each in again[:1]]
            expected = [(one.finding.event, one.finding.subject)]
            assert places == expected, f"{name}, seed {seed}: {again[:3]}"
            compared += 1
    assert compared or not specification


@qemu_only
def test_what_a_unit_did_not_survive_is_kept(machine: VtdQemu) -> None:
    differential = held_to(machine)
    last = RegWrite(vtd.IECTL.offset, 8, 1)
    try:
        differential.run(0, [Step("register", ()), Step("register", (), (last,))], 16)
    except EndedError:
        machine.restart()
    else:
        assert machine.version >= (11,), "an 8-byte write to IECTL aborts up to 10.0"
        return
    assert differential.events[-1] == last


@qemu_only
def test_a_unit_that_hangs_is_started_anew(
    machine: VtdQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.qemu.qtest.TIMEOUT", 1.0)
    machine.restart()
    differential = held_to(machine)
    last = RegWrite(vtd.FECTL.offset, 4, 0)
    begin = machine.begin

    def stopped(*arguments: Any) -> None:
        machine.machine.process.send_signal(signal.SIGSTOP)
        begin(*arguments)

    monkeypatch.setattr(machine, "begin", stopped)
    with pytest.raises(HungError, match="does not answer"):
        differential.run(0, [Step("register", (), (last,))], 16)
    assert differential.events[-1] == last
    monkeypatch.undo()
    machine.restart()
    assert differential.run(0, [Step("register", (), (last,))], 16) == []


@qemu_only
def test_a_kept_case_is_small_and_is_seen_again_by_plain_qemu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "--json", "diff", "--unit", "vtd", "--targets"]
    command += ["model,qemu", "--machine", "second-stage", "--steps", "200", "--seed", "1"]
    done = subprocess.run(
        [*command, "--no-deviations", "--keep", str(tmp_path)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[-1]["type"] == "summary" and found[-1]["divergences"] > 0
    traces = [Path(line["trace"]) for line in found if line.get("trace")]
    assert traces, done.stdout
    for trace in traces:
        assert len(trace.read_text().splitlines()) < 200, f"{trace.name} is not small"
        script = trace.with_suffix(".sh").read_text()
        assert script.startswith("#!/bin/sh\n") and "-qtest stdio" in script


@qemu_only
def test_a_level_that_there_is_not_ends_qemu() -> None:
    with VtdQemu("second-stage") as machine:
        version, option = machine.version, machine.option
    scalable = "x-scalable-mode" if "x-scalable-mode" in option else "scalable-mode"
    done = subprocess.run(
        ["sh", str(FINDINGS / "vtd-level-assertion.sh")], capture_output=True, text=True,
        env=os.environ | {"SCALABLE": scalable}, check=False,
    )  # fmt: skip
    known = known_crash(done.stderr, version)
    assert known is not None and known.id == "level-assertion", done.stderr


def test_every_deviation_says_what_it_is_and_how_it_is_known() -> None:
    for row in DEVIATIONS:
        assert row.what and row.source and row.section, row
        assert bool(row.members) != bool(row.shows), f"{row.id} is known by both or neither"


def test_a_deviation_ends_with_the_version_that_fixed_it() -> None:
    fence = Situation(
        "IQH", "0x0", frozenset({"0x10"}), frozenset({"stopped at a wait that only fences"})
    )
    row = explanation(fence, (10, 0, 2))
    assert row is not None and row.id == "fence-only-wait"
    assert explanation(fence, (11, 1, 3)) is None


@pytest.mark.parametrize(
    ("subject", "observed", "permitted", "notes"),
    [
        ("access", "lost", "translation", "read just before"),
        ("access", "translation", "fault 0x06", "cached without the right"),
        ("access", "fault 0x80", "translation", "context entry is cached"),
        ("access", "translation", "fault 0x59", "FPD of a PASID structure"),
        ("access", "lost", "translation", "tag left"),
        ("table", "entry", "entry", "PASID-cache descriptor is wrong"),
        ("GSTS", "0x0", "0x80000000", "message written by DMA"),
        ("IQH", "0x0", "0x20", "tail written"),
        ("update", "translation", "translation", "tag left"),
        ("permission", "translation", "fault 0x06", "tag left"),
        ("interrupt-request", "Message", "fault 0x25", "message written by DMA"),
        ("fault-record", "FaultRecord", "FaultRecord", "message written by DMA"),
    ],
)
@pytest.mark.parametrize("version", [(10, 0, 2), (11, 1, 3)])
def test_what_comes_near_a_deviation_is_none(
    version: tuple[int, ...], subject: str, observed: str, permitted: str, notes: str
) -> None:
    found = Situation(subject, observed, frozenset({permitted}), frozenset({notes}))
    assert explanation(found, version) is None


def test_descriptors_move_up_when_steps_are_left_out() -> None:
    def step(slot: int, value: int) -> Step:
        stores = (Store(QUEUE + 16 * slot, 8, value), Store(QUEUE + 16 * slot + 8, 8, 0))
        return Step("flush", stores, (RegWrite(vtd.IQT.offset, 8, 16 * (slot + 1)),))

    steps = [step(0, 1), step(1, 2), step(2, 3)]
    moved = relocated([steps[0], steps[2]], 16)
    assert moved == [step(0, 1), step(1, 3)]

    def has_three(left: Sequence[Step]) -> bool:
        return any(store.value == 3 for step in left for store in step.stores)

    assert shrunk(steps, 16, has_three) == [Step("flush", (Store(QUEUE, 8, 3),), reads=())]


def test_what_needs_no_step_of_its_own_is_joined() -> None:
    steps = [Step("edit", (Store(8 * n, 8, n),), (RegWrite(8 * n, 4, n),)) for n in range(4)]

    def has_one_and_three(left: Sequence[Step]) -> bool:
        values = [write.value for step in left for write in step.writes]
        return 1 in values and values[-1:] == [3]

    writes = (RegWrite(8, 4, 1), RegWrite(24, 4, 3))
    assert shrunk(steps, 16, has_one_and_three) == [Step("edit", (), writes, ())]
