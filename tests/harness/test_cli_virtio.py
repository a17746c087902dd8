"""The verbs on a trace of a virtio-iommu: what people see, word for word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.trace import TraceWriter, UnitInfo, open_events, write_text
from tests.harness.virtio_story import DISK, EVENTS, HEADER, NIC, STALE, WRONG, write
from tests.writers.virtio_iommu import FEATURES, config, map_

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the story where the working directory is, so that no output names another one."""
    monkeypatch.chdir(tmp_path)
    path = Path("story.trace")
    write(path)
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("words", "code"),
    [(["show"], 0), (["info"], 0), (["stats"], 0), (["replay", "--target", "model"], 1)],
    ids=["show", "info", "stats", "replay"],
)
def test_text(trace: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> None:
    write_text(Path("story.txt"), HEADER, EVENTS)  # its size is always the same
    assert run(*words, "story.txt") == code
    golden = (GOLDEN / f"virtio-iommu-{words[0]}.txt").read_text(encoding="utf-8")
    assert capsys.readouterr().out.splitlines() == golden.splitlines()


# --- show ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Requests of domain 1 count for the one endpoint in it, those of domain 2 for the other.
        (["--device", "00:03.0"], [2, 3, 5, 7, 9, 10, 13, 14, 15, 16]),
        (["--device", f"{NIC:#x}", "--kind", "request"], [3, 5, 7, 9, 13, 15, 16]),
        (["--device", f"{DISK:#x}"], [6, 8, 11, 12]),
        (["--device", "00:04.0"], []),
        (["--device", f"{DISK:#x}", "--from", "7"], [8, 11, 12]),
        (["--iova", "0x1000"], [7, 8, 10, 11, 12, 13, 14]),
        (["--iova", "0x5000-0x5001", "--kind", "request"], [15]),
        (["--iova", "0x2000"], []),
        (["--kind", "fault-report", "--kind", "device-reset"], [12, 19]),
        (["--kind", "features", "--kind", "config", "--kind", "endpoint"], [0, 1, 2, 21]),
    ],
    ids=str,
)
def test_show_chooses(
    trace: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: list[int]
) -> None:
    assert run("show", "--json", trace, *options) == 0
    assert [event["event"] for event in objects(capsys)] == expected


def test_show_json_has_every_field(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "--json", trace) == 0
    shown = objects(capsys)
    assert [event["event"] for event in shown] == list(range(len(EVENTS)))
    assert shown[7] == {
        "event": 7,
        "microseconds": None,
        "type": "request",
        "data": map_(1, 0x1000, 0x1FFF, 0x80000).hex(),
        "room": 4,
        "answer": "00000000",
        "decoded": {
            "name": "MAP",
            "fields": {
                "type": 3, "reserved_head": 0, "domain": 1, "virt_start": 0x1000,
                "virt_end": 0x1FFF, "phys_start": 0x80000, "flags": 3,
            },
            "status": "OK",
            "flag_names": ["READ", "WRITE"],
        },
    }  # fmt: skip
    assert shown[18]["answer"] is None
    probed = shown[3]["decoded"]
    assert probed["regions"] == [
        {"subtype": 1, "start": 0xFEE00000, "end": 0xFEEFFFFF},
        {"subtype": 9, "start": 0x8000, "end": 0x8FFF},
    ]
    assert shown[2]["regions"] == [[1, 0xFEE00000, 0xFEEFFFFF], [9, 0x8000, 0x8FFF]]
    assert shown[12]["device"] == "0x10000"
    assert shown[12]["decoded"] == {
        "name": "MAPPING", "fields": {}, "flag_names": ["WRITE", "ADDRESS"],
    }  # fmt: skip
    assert shown[0]["decoded"]["offered_names"][-2:] == ["VERSION_1", "0x4000000000000"]
    assert shown[1]["data"] == config().hex()
    assert shown[1]["decoded"]["fields"]["probe_size"] == 64
    assert shown[21]["decoded"]["form"] == "v3"
    assert "bypass" not in shown[21]["decoded"]["fields"]


def test_entries_limits_what_stands_below(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", trace, "--kind", "config", "--entries", 1) == 0
    out = capsys.readouterr().out
    assert "granule 0x1000" in out
    assert "... 4 more (--entries)" in out
    assert "properties" not in out


# --- info, stats, replay -------------------------------------------------------------------------


def test_info_says_what_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bare.trace"
    units = (UnitInfo("virtio-iommu", base=0x4000_0000),)
    TraceWriter.create(path, replace(HEADER, units=units)).close()
    assert run("info", path) == 0
    out = capsys.readouterr().out
    assert "  unit virtio-iommu at 0x40000000\n    features not recorded\n" in out
    assert "    config space not recorded\n" in out


def test_info_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--json", trace) == 0
    (found,) = objects(capsys)
    assert found["header"]["units"][0]["config"] == config().hex()
    (unit,) = found["virtio"]
    assert unit["features"][-2:] == ["BYPASS_CONFIG", "VERSION_1"]
    assert "64 bytes of properties" in unit["config"]


def test_stats_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", "--json", trace) == 0
    (found,) = objects(capsys)
    assert found["requests"]["MAP"] == {"OK": 2, "INVAL": 2, "not captured": 1}
    assert found["requests"]["request of unknown type 0x9"] == {"nothing written": 1}
    assert (found["most_domains"], found["most_mappings"]) == (2, 2)
    assert found["domains_complete"] is True
    assert found["reports"] == {"0x02": 1}
    assert found["devices"]["0x10000"] == {"translations": 0, "faults": 1, "unanswered": 0}


def test_replay_json_names_the_findings(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("replay", "--json", "--target", "model", trace) == 1
    stale, wrong, result, summary = objects(capsys)
    assert (stale["event"], wrong["event"]) == (STALE, WRONG)
    assert wrong["observed"] == "04000000"
    assert (result["requests"], summary["requests"]) == (11, 11)


# --- convert -------------------------------------------------------------------------------------


def test_convert_there_and_back(trace: Path) -> None:
    assert run("convert", trace, "-o", "a.txt", "-q") == 0
    assert run("convert", "a.txt", "-o", "b.trace", "-q") == 0
    with open_events(Path("b.trace")) as reader:
        assert reader.header == HEADER
        assert list(reader) == EVENTS


def test_convert_says_what_the_unit_is(trace: Path) -> None:
    Path("bare.txt").write_text(
        'dmarewind-text 1\nheader {"created":"","dialect":"spec","memory":[],"source":{},'
        '"units":[],"version":1}\nreset\n',
        encoding="ascii",
    )
    words = ["--unit", "virtio-iommu", "--features", f"{FEATURES:#x}", "--config", config().hex()]
    assert run("convert", "bare.txt", "-o", "out.trace", "-q", *words) == 0
    with open_events(Path("out.trace")) as reader:
        assert reader.header.units == HEADER.units


def test_another_kind_of_unit_keeps_nothing(trace: Path) -> None:
    assert run("convert", trace, "-o", "out.trace", "-q", "--unit", "vtd") == 0
    with open_events(Path("out.trace")) as reader:
        assert reader.header.units == (UnitInfo(),)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--capability", "1"], "--capability is for a unit of kind vtd"),
        (["--unit", "vtd", "--features", "1"], "--features is for a unit of kind virtio-iommu"),
        (["--unit", "vtd", "--config", "00"], "--config is for a unit of kind virtio-iommu"),
    ],
    ids=str,
)
def test_options_of_another_kind_are_refused(
    trace: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    assert run("convert", trace, "-o", "out.trace", *options) == 2
    assert problem in capsys.readouterr().err
    assert not Path("out.trace").exists()


@pytest.mark.parametrize("octets", ["", "0", "xy", "00" * 4097])
def test_a_config_space_is_hexadecimal(
    trace: Path, capsys: pytest.CaptureFixture[str], octets: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run("convert", trace, "-o", "out.trace", "--config", octets)
    assert caught.value.code == 2
    assert "1 to 4096 bytes in hexadecimal" in capsys.readouterr().err
