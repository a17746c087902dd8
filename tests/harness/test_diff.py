"""`dmarewind diff`: a real QEMU agrees with its dialect, not with the specification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from decoders.events import (
    Access,
    AccessKind,
    DeviceReset,
    Endpoint,
    Event,
    Features,
    RegWrite,
    Request,
    Reset,
)
from decoders.virtio_iommu.constants import Feature
from harness.cli import main
from harness.deviations import DEVIATIONS, Deviation
from harness.differential.engine import MODEL, Differential
from harness.differential.simulated import Simulated
from harness.findings import BROKEN
from harness.model.virtio.config import DEFAULT_CONFIG, DEFAULT_FEATURES
from harness.model.virtio.dialect import dialect_named
from harness.qemu.unit import POOL_START
from harness.trace import Header, UnitInfo, open_events, write_text
from tests.writers.virtio_iommu import FEATURES, attach, map_

STEPS = 1200


@pytest.mark.qemu
def test_qemu_does_what_its_dialect_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["diff", "--steps", str(STEPS), "--seed", "1", "--json"])
    (summary,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 0, summary
    assert summary["divergences"] == 0
    assert summary["steps"] >= STEPS
    assert summary["sequences"] == STEPS // 40
    # All that matters has happened.
    for kind in ("ATTACH OK", "MAP OK", "UNMAP OK", "UNMAP RANGE", "PROBE OK", "DETACH OK"):
        assert summary["seen"].get(kind), kind
    for kind in ("write translation", "write fault", "read translation", "read fault"):
        assert summary["seen"][kind] > 100, kind


@pytest.mark.qemu
def test_deviations_are_named_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diff", "--steps", "600", "--seed", "0", "--no-deviations", "--json"]
    assert main([*arguments, "--keep", str(tmp_path)]) == 1
    *found, summary = map(json.loads, capsys.readouterr().out.splitlines())
    known = {deviation.id for deviation in DEVIATIONS}
    reasons = {name for reason in summary["reasons"] for name in reason.split(", ")}
    assert reasons <= known, "something is unexplained"
    assert len(reasons) >= 5
    for each in found:
        with open_events(each["trace"]) as source:
            events = list(source)
        assert source.header.dialect.startswith("qemu-")
        assert len(events) == each["finding"]["event"] + 1
        # What was kept is a trace like any other, which QEMU, too, answers in the same way.
        assert main(["replay", "-q", "--target", "qemu", each["trace"]]) == 0, each
        capsys.readouterr()


@pytest.mark.qemu
def test_text_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--steps", "40", "--seed", "5", "--no-deviations"]) == 1
    text = capsys.readouterr().out
    assert "divergence: event" in text
    assert "sequences that ended early" in text
    assert "divergences," in text.splitlines()[-1]


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.id)
def test_each_deviation_changes_the_dialect(deviation: Deviation) -> None:
    dialect = dialect_named("qemu-10.0")
    assert deviation.without(dialect) != dialect
    assert deviation.without(deviation.without(dialect)) == deviation.without(dialect)


@pytest.mark.parametrize(
    "name", ["unknown-type", "attach-reserved", "endpoint-forgotten", "map-alignment"]
)
def test_a_defect_of_a_unit_is_found(name: str) -> None:
    """A simulated unit that does otherwise than it claims does not pass."""
    claimed = dialect_named("qemu-10.0")
    (deviation,) = (one for one in DEVIATIONS if one.id == name)
    unit = Simulated(deviation.without(claimed))
    assert all(Differential(unit, [MODEL], 40).run(seed) is None for seed in range(10))
    held = Differential(unit, [MODEL], 40, claimed)
    found = [each for seed in range(30) if (each := held.run(seed)) is not None]
    assert found, "30 sequences show no difference"
    assert all(each.events for each in found)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--targets", "model"], "two targets"),
        (["--targets", "model,abacus"], "'abacus' is none of"),
        (["--steps", "0"], "not a number of things"),
        (["--seed", "x"], "not a seed"),
        (["--unit", "abacus"], "invalid choice"),
    ],
)
def test_bad_arguments(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diff", *arguments])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--machine", "legacy"], "--qemu and --machine are for --unit vtd"),
        (["--targets", "model,native", "--qemu", "x"], "--qemu and --machine are for --unit vtd"),
        (["--targets", "model,native", "--program", "x"], "need qemu among the targets"),
        (["--jobs", "2"], "--jobs is for --unit vtd without qemu"),
        (["some.trace", "--seed", "1"], "--seed is for what is made up"),
        (["some.trace", "--unit", "vtd", "--machine", "nested"], "here there are legacy"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_trace_of_another_unit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    trace = Path(__file__).parents[2] / "corpora" / "deviations" / "empty-wait.txt"
    assert main(["diff", "--no-deviations", str(trace)]) == 2
    assert "--unit vtd" in capsys.readouterr().err


def test_a_missing_qemu_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--program", "no-such-qemu"]) == 2
    assert "cannot run no-such-qemu" in capsys.readouterr().err


STORY: list[Event] = [
    Reset(),
    Endpoint(0x20, ()),
    RegWrite(36, 1, 0),
    Request(attach(1, 0x20), 4, None),
    Request(map_(1, 0x8000_0000, 0x8000_0FFF, POOL_START), 4, None),
    Access(0x20, None, 0x8000_0040, AccessKind.WRITE, None),
    Access(0x20, None, 0x8000_0048, AccessKind.WRITE, None),
    DeviceReset(),
    Access(0x20, None, 0x8000_0040, AccessKind.WRITE, None),
]
"""What a driver and a device did; nobody has said what came of it."""


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    unit = UnitInfo("virtio-iommu", capability=DEFAULT_FEATURES, config=DEFAULT_CONFIG)
    write_text(path, Header(units=(unit,)), [*STORY, *STORY])
    return path


@pytest.mark.qemu
def test_a_given_trace(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(story), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["sequences"] == 2
    # The two writes are parts of one dump of 13 transfers; the mapping outlives the reset.
    assert summary["steps"] == 2 * 6
    assert summary["seen"]["write translation"] == 2 * 2 * 13
    assert "write fault" not in summary["seen"]


@pytest.mark.qemu
def test_a_given_trace_and_the_specification(
    story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(story), "--json", "--no-deviations"]) == 1
    *_, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary["reasons"] == {"reset-keeps-domains": 2}


@pytest.mark.qemu
def test_a_given_trace_may_break_the_device_and_ask_for_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.txt"
    unit = UnitInfo("virtio-iommu", capability=DEFAULT_FEATURES, config=DEFAULT_CONFIG)
    few = int(FEATURES & ~Feature.BYPASS_CONFIG)
    ask = Request(attach(1, 0x20), 4, None)
    events: list[Event] = [
        Reset(), Endpoint(0x20, ()),
        Request(b"", 0, None), Request(b"", 4, None), ask,
        DeviceReset(), Features(FEATURES, few), ask,
        RegWrite(36, 1, 0), ask,  # which takes the feature
        Reset(), Features(FEATURES, FEATURES), RegWrite(36, 1, 9), ask,
        DeviceReset(), replace(ask, data=ask.data + bytes(3000), room=1 << 31),
    ]  # fmt: skip
    write_text(path, Header(units=(unit,)), events)
    assert main(["diff", str(path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seen"]["ATTACH OK"] == 2
    assert summary["seen"]["ATTACH none"] == 3
    assert summary["seen"]["empty request none"] == 1
    assert main(["diff", str(path), "--json", "--no-deviations"]) == 1
    *found, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["finding"]["subject"] for one in found] == [BROKEN]
    assert summary["reasons"] == {"breaks": 2}


def test_a_given_trace_takes_qemu(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(story), "--targets", "model,native"]) == 2
    assert "takes qemu among the targets" in capsys.readouterr().err
