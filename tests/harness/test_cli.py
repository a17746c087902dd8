"""Tests of the verbs, their output and their exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from decoders.events import Access, AccessKind, Clock, Event, Fault, Translation
from harness import cli, selection
from harness.errors import HarnessError
from harness.trace import TraceWriter, open_events, write_text
from tests.harness.trace.samples import EVENTS, HEADER, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "small.trace"
    write(path)
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def program(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def shown(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Give the numbers of the events that show printed."""
    lines = capsys.readouterr().out.splitlines()
    return [int(line[:8]) for line in lines if line[:8].strip().isdigit()]


def numbers(*kinds: str) -> list[int]:
    return [n for n, event in enumerate(EVENTS) if type(event).__name__ in kinds]


# --- show ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], list(range(17))),
        (["--kind", "access"], numbers("Access")),
        (["--kind", "reset", "--kind", "gap"], numbers("Reset", "Gap")),
        (["--device", "00:03.0"], [8, 9, 12]),
        (["--device", "0000:00:04.0"], [10]),
        (["--iova", "0xfffff123"], [8, 9, 12]),
        (["--iova", "0x0-0xfff"], []),
        (["--iova", "0x1000+1"], [10]),
        (["--device", "00:03.0", "--kind", "access", "--iova", "0xfffff000"], [8, 9]),
        (["--from", "14"], [14, 15, 16]),
        (["--to", "2"], [0, 1, 2]),
        (["--from", "5", "--to", "7"], [5, 6, 7]),
        (["--from", "1.5s", "--to", "2s"], list(range(1, 7))),
        (["--from", "2500ms"], list(range(7, 17))),
        (["--from", "1500001us", "--kind", "access"], [8, 9, 10]),
        (["--from", "99"], []),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["trace", "text"])
def test_show_chooses(
    trace: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: list[int],
    form: str,
) -> None:
    if form == "text":
        write_text(trace, HEADER, EVENTS)
    assert run("show", trace, *options) == 0
    assert shown(capsys) == expected


def test_show_decodes(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", trace) == 0
    out = capsys.readouterr().out
    assert "reg.write 0x020 8 0x1234400  ; RTADDR ttm=0x1 rta=0x1234000" in out
    assert "snapshot 0x7f001000 second-stage 1 (1 entries)" in out
    assert "[0x0] SecondStageEntry r=0x1 w=0x1 addr=0x12345000" in out
    assert "; SecondStageEntry[0x1] level 1 r=0x1 w=0x1 addr=0x12345000" in out
    assert "; LGN.3 no read permission" in out
    assert "; IotlbInvalidation type=0x2 g=0x1 did=0x1" in out
    assert "sid=0x18 fr=0x6" in out
    assert "    1.500000  clock 1500000" in out
    assert "\x1b" not in out


def test_a_store_is_decoded_wherever_showing_begins(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", trace, "--from", 6, "--to", 6) == 0
    assert "SecondStageEntry[0x1] level 1" in capsys.readouterr().out


def test_show_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", trace, "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["event"] for item in objects] == list(range(17))
    assert objects[8] == {
        "event": 8,
        "microseconds": 2_500_000,
        "type": "access",
        "sid": 0x18,
        "pasid": None,
        "iova": 0xFFFFF000,
        "kind": "read",
        "outcome": {"address": 0xFDCE3000, "mask": 0xFFF},
        "device": "00:03.0",
    }
    assert objects[5]["role"] == "second-stage"
    assert objects[5]["entries"][0]["fields"]["addr"] == 0x12345000
    assert objects[2]["decoded"]["name"] == "RTADDR"


def test_show_limits_the_entries_of_a_page(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", trace, "--kind", "snapshot", "--entries", 0) == 0
    assert "... 1 more (--entries)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--device", "3"], ["--device", "00:03.9"], ["--kind", "walk"], ["--iova", "x"],
        ["--iova", "0x2-0x1"], ["--iova", "0x0+0"], ["--from", "1.5"], ["--from", "-1"],
        ["--to", "1m"], ["--color", "always"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_options(trace: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("show", trace, *options)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_ranges_and_places() -> None:
    assert selection.address_range("0x1234") == (0x1000, 0x1FFF)
    assert selection.address_range("0x1000-0x2fff") == (0x1000, 0x2FFF)
    assert selection.address_range("0x1000+0x2000") == (0x1000, 0x2FFF)
    assert selection.place("0.25s").microseconds == 250_000
    assert selection.place("12").event == 12
    with pytest.raises(argparse.ArgumentTypeError):
        selection.place("\u0661")


def test_a_large_page_is_found_by_an_address_inside() -> None:
    event = Access(8, None, 0x200000, AccessKind.READ, Translation(0x400000, 0x1FFFFF))
    assert selection.Selection(iova=(0x3FF000, 0x3FFFFF)).wants(event)
    assert not selection.Selection(iova=(0x400000, 0x400FFF)).wants(event)


# --- info and stats ------------------------------------------------------------------------------


def test_info(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", trace, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["events"] == len(EVENTS)
    assert found["blocks"] == 3
    assert found["header"]["dialect"] == "qemu-10.0"
    assert found["bytes"] == trace.stat().st_size
    assert run("info", trace) == 0
    out = capsys.readouterr().out
    assert "unit vtd at 0xfed90000, version 0x10" in out
    assert "CAP 0xd2008c22260206: nd=0x6" in out


def test_info_without_index_counts_by_reading(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = trace.read_bytes()
    trace.write_bytes(content[:-1])
    assert run("info", trace, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["events"] == len(EVENTS)
    assert found["index"] is False


def test_what_a_stranger_wrote_reaches_no_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.trace"
    source = {"\x1b]0;name": "\x1b[31m\u202e"}
    TraceWriter.create(path, replace(HEADER, source=source)).close()
    assert run("info", path) == 0
    out = capsys.readouterr().out
    assert "31m" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_stats(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", trace, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["events"] == len(EVENTS)
    assert (found["translations"], found["faults"]) == (1, 1)
    assert found["kinds"]["reg.read"] == 2
    assert sum(found["kinds"].values()) == len(EVENTS)
    assert found["devices"] == {
        "00:03.0": {"translations": 1, "faults": 1, "unanswered": 0},
        "00:04.0": {"translations": 0, "faults": 0, "unanswered": 1},
    }
    assert found["reasons"] == {"0x06": 1}
    assert found["registers"] == {"read GSTS": 2, "write RTADDR": 1}
    # The first event comes before any time is known.
    assert sum(found["time"]["events"]) == len(EVENTS) - 1
    assert run("stats", trace) == 0
    assert "1 translations, 1 faults" in capsys.readouterr().out


def test_histogram_keeps_its_sum_as_time_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter.create(path, HEADER) as writer:
        for number in range(1000):
            writer.append(Clock(number * number))
    assert run("stats", path, "--json") == 0
    time = json.loads(capsys.readouterr().out)["time"]
    expected = [0] * 32
    for number in range(1000):
        expected[number * number // time["bin_microseconds"]] += 1
    assert time["events"] == expected
    assert time["bin_microseconds"] * 16 <= 999 * 999 < time["bin_microseconds"] * 32


# --- convert -------------------------------------------------------------------------------------

LOG = """\
vtd_reset_exit
vtd_reg_write addr 0x20 size 0x8 value 0x1000
vtd_dmar_translate dev 00:03.0 iova 0xfffff000 -> gpa 0x2000 mask 0xfff
vtd_dmar_fault sid 0x18 fault 6 addr 0x5000 write 0
what is this
"""


def test_convert_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "qemu.log", tmp_path / "out.trace"
    log.write_text(LOG)
    words = ["--capability", "0x1234", "--memory", "0x0:0x1000", "--dialect", "qemu-9.2"]
    assert run("convert", log, "-o", out, *words) == 0
    printed = capsys.readouterr().out
    assert "4 events, 1 translations, 1 faults" in printed
    assert "1 unknown lines\n" in printed
    with open_events(out) as reader:
        assert len(list(reader)) == 4
        assert reader.header.units[0].capability == 0x1234
        assert reader.header.memory == ((0, 0x1000),)
        assert reader.header.dialect == "qemu-9.2"
        assert reader.header.source["format"] == "qemu-log"


def test_convert_says_nothing_of_unknown_lines_when_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "qemu.log"
    log.write_text(LOG.replace("what is this\n", ""))
    assert run("convert", log, "-o", tmp_path / "out.trace") == 0
    assert "unknown" not in capsys.readouterr().out


def test_convert_puts_a_gap_where_an_event_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "qemu.log", tmp_path / "out.txt"
    log.write_text(LOG.replace("fault 6", "fault 999"))
    assert run("convert", log, "-o", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["events"], found["faults"]) == (4, 0)
    # Whoever refuses it, the decoder or convert, the place is marked.
    assert found["events_out_of_bounds"] + found["malformed_lines"] == 1
    assert found["kinds"]["Gap"] == 1


def test_convert_there_and_back_gives_the_same_bytes(trace: Path, tmp_path: Path) -> None:
    text, first, second = (tmp_path / name for name in ("a.txt", "a.trace", "b.trace"))
    assert run("convert", trace, "-o", first, "-q") == 0
    assert run("convert", first, "-o", text, "-q") == 0
    assert run("convert", text, "-o", second, "-q") == 0
    assert second.read_bytes() == first.read_bytes()
    with open_events(second) as reader:
        assert list(reader) == EVENTS


def test_convert_onto_its_input(trace: Path) -> None:
    assert run("convert", trace, "-o", trace, "-q") == 0
    with open_events(trace) as reader:
        assert list(reader) == EVENTS


@pytest.mark.parametrize("name", ["out", "out.log"])
def test_convert_needs_a_known_form(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run("convert", trace, "-o", tmp_path / name) == 2
    assert ".trace or .txt" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_failed_convert_leaves_the_output_alone(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.trace"
    out.write_bytes(b"precious")
    assert run("convert", tmp_path / "absent", "-o", out) == 2
    assert run("convert", trace, "-o", out, "--memory", "5:0") == 2
    assert out.read_bytes() == b"precious"
    assert capsys.readouterr().err.count("error: ") == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.trace", "small.trace"]


# --- exit codes ----------------------------------------------------------------------------------


def test_errors_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("show", "info", "stats"):
        assert run(verb, tmp_path / "absent") == 2
        err = capsys.readouterr().err
        assert err == f"error: {tmp_path / 'absent'}: No such file or directory\n"
        assert run(verb, tmp_path) == 2
        assert "not a regular file" in capsys.readouterr().err


def test_verbose_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-v", "show"], ["show", "-v"]):
        assert run(*words, tmp_path / "absent") == 2
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert "\nerror: " in err


def test_an_unexpected_exception_is_not_hidden(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(args: object) -> int:
        raise KeyError("a defect")

    monkeypatch.setattr("harness.show.run", broken)
    with pytest.raises(KeyError):
        run("show", trace)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (HarnessError("no"), 2), (OSError(5, "io"), 2)]
)
def test_exit_codes(
    trace: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr("harness.show.run", fail)
    assert run("show", trace) == code


def test_the_verbs_own_code_is_passed_on(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.show.run", lambda args: 1)
    assert run("show", trace) == 1


def test_no_verb_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (([], 2), (["walk"], 2), (["--help"], 0), (["show", "--help"], 0)):
        with pytest.raises(SystemExit) as caught:
            run(*words)
        assert caught.value.code == code
    out = capsys.readouterr().out
    for verb in cli.VERBS:
        assert f"\n    {verb}" in out


def test_as_a_program(trace: Path) -> None:
    done = program("info", trace, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["events"] == len(EVENTS)
    done = program("show", "/nonexistent")
    assert done.returncode == 2
    assert done.stderr == "error: /nonexistent: No such file or directory\n"


def long_trace(path: Path) -> None:
    with TraceWriter.create(path, HEADER) as writer:
        for number in range(50_000):
            writer.append(Clock(number))


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "long.trace"
    long_trace(path)
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "show", str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_control_c(tmp_path: Path) -> None:
    path = tmp_path / "long.trace"
    long_trace(path)
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "show", str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A background job ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # it is at work, and waits for the pipe to be emptied
        os.kill(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
        assert process.wait(30) == 130


def test_a_terminal_that_cannot_show_everything(trace: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "stats", str(trace)],
        cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_only_the_chosen_verb_is_loaded() -> None:
    code = "import sys; from harness.cli import main; main(['info', '-q', sys.argv[1]]); "
    code += "print('harness.replay' in sys.modules, 'harness.recording.record' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "/nonexistent"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "False False\n"


def test_colour_only_on_request_of_a_terminal(
    trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.report._wants_colour", lambda: True)
    assert run("show", trace) == 0
    assert "\x1b[31m" in capsys.readouterr().out
    assert run("show", trace, "--color", "never") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_samples_hold_what_these_tests_assume() -> None:
    faults: list[Event] = [e for e in EVENTS if isinstance(e, Access) and e.outcome == Fault(6)]
    assert len(faults) == 1


@pytest.mark.parametrize(
    "options", [("--entries", "-1"), ("--entries", "x"), ("--device", "0x100000000")]
)
def test_show_refuses_numbers_that_cannot_be(
    tmp_path: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["show", *options, str(tmp_path / "any.trace")])
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err
    assert cli.main(["show", "--form", "v1", str(tmp_path / "any.trace")]) == 2
    assert "--form means nothing for a trace" in capsys.readouterr().err
