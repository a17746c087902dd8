"""The verb: forms of input and output, scripts that judge, and runs that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.minimise.judges import QemuJudge
from harness.minimise.trace import Trace, read
from harness.trace import write_text
from tools.bench.reproducers import refused, shipped, wrong_answer


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a recording with a wrong answer at its end."""
    path = tmp_path / "long.txt"
    _write(path, shipped("legacy-strict", 3000))
    return path


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Return a shorter one, for what starts a program in each run."""
    path = tmp_path / "short.txt"
    _write(path, wrong_answer("legacy", 0, 60))
    return path


def _write(path: Path, trace: Trace) -> None:
    write_text(path, trace.header, trace.events)


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".trace"])
def test_a_trace_becomes_small(
    trace: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / f"small{suffix}"
    assert main(["minimise", str(trace), "-o", str(small)]) == 0
    assert len(read(small).events) == 11
    said = capsys.readouterr().out
    assert "events became 11" in said
    assert "the walk ends at the second stage level 1 entry" in said.lower()
    assert not (tmp_path / f"small{suffix}.state").exists()
    assert main(["replay", str(small)]) == 1


def test_json(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.txt"
    assert main(["minimise", str(trace), "-o", str(small), "--target", "model", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["type"], said["after"], said["complete"]) == ("minimised", 11, True)
    assert said["signature"]["event"] == "Access"
    assert said["runs"] <= 60


def test_a_script_judges_what_it_is_given(tmp_path: Path) -> None:
    """The convention of C-Reduce: 0 is interesting; it runs in a directory of its own."""
    trace, small = tmp_path / "long.txt", tmp_path / "small.txt"
    _write(trace, refused(300, 1, False))
    # The queue's fourth quarter has the descriptor: its low quadword is 0x111.
    script = _script(
        tmp_path / "test.sh",
        'test "$#" = 1 && test "$PWD" != "' + str(tmp_path) + '" && test -f "$1" || exit 9\n'
        'touch here && grep -q "^writeq 0x[0-9a-f]* 0x111$" "$1" && '
        'grep -q "^writeq 0xfed90088" "$1"',
    )
    assert main(["minimise", str(trace), "-o", str(small), "--test", str(script)]) == 0
    assert len(read(small).events) == 2
    assert not (tmp_path / "here").exists()


def test_a_script_gets_the_form_it_asks_for(tmp_path: Path, short: Path) -> None:
    small = tmp_path / "small.txt"
    script = _script(tmp_path / "test.sh", 'head -1 "$1" | grep -q "^dmarewind-text" && '
                     'grep -q "^access" "$1"')  # fmt: skip
    words = ["minimise", str(short), "-o", str(small), "--test", str(script), "--form", ".txt"]
    assert main([*words, "--jobs", "2"]) == 0
    assert len(read(small).events) == 1


def test_a_script_that_hangs_has_not_said_0(tmp_path: Path, short: Path) -> None:
    script = _script(tmp_path / "test.sh", "sleep 100 & sleep 100")
    start = time.monotonic()
    words = ["minimise", str(short), "-o", str(tmp_path / "s.txt"), "--test", str(script)]
    assert main([*words, "--seconds", "0.2", "--attempts", "1"]) == 2
    assert time.monotonic() - start < 20


def test_how_often_it_shows_is_said(
    tmp_path: Path, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = tmp_path / "count"
    script = _script(
        tmp_path / "test.sh",
        f'echo >> "{counter}"; test $(($(wc -l < "{counter}") % 2)) = 0 && grep -q access "$1"',
    )
    small = tmp_path / "s.txt"
    words = ["minimise", str(short), "-o", str(small), "--test", str(script), "--form", ".txt"]
    assert main([*words, "--attempts", "4"]) == 0
    assert "shows in 2 of 4 runs (2 of 4 before)" in capsys.readouterr().out
    assert len(read(small).events) == 1


def test_a_budget_is_kept_and_a_larger_one_goes_on(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.txt"
    words = ["minimise", str(trace), "-o", str(small), "--json", "--budget"]
    assert main([*words, "6"]) == 0
    part = json.loads(capsys.readouterr().out)
    assert (part["complete"], small.with_name("small.txt.state").exists()) == (False, True)
    assert part["runs"] <= 6
    assert main([*words, "500"]) == 0
    assert len(read(small).events) == 11


def test_a_run_that_was_killed_goes_on(tmp_path: Path, short: Path) -> None:
    small, log = tmp_path / "small.txt", tmp_path / "log"
    last = next(line for line in reversed(short.read_text().splitlines()) if "access" in line)
    script = _script(tmp_path / "test.sh", f'echo >> "{log}"; grep -q "{last}" "$1"')
    words = ["minimise", str(short), "-o", str(small), "--test", str(script), "--form", ".txt",
             "--attempts", "1"]  # fmt: skip
    command = [sys.executable, "-m", "harness", *words]
    for _ in range(3):
        before = len(log.read_bytes()) if log.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and len(log.read_bytes()) > before + 4:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(words) == 0
    assert len(read(small).events) == 1
    asked = len(log.read_bytes())
    fresh = tmp_path / "fresh.txt"
    log.unlink()
    words[3] = str(fresh)
    assert main(words) == 0
    assert fresh.read_bytes() == small.read_bytes()
    # Each killed one had to ask for the beginning, and what it was just asking is lost.
    assert asked <= len(log.read_bytes()) + 3 * 3


def _asking(log: Path, words: str) -> str:
    """Return a script's body: nothing but that it is asked again is seen from outside."""
    return f'echo >> "{log}"; grep -q "{words}" "$1"'


@pytest.mark.parametrize("change", ["script", "seconds", "attempts"])
def test_verdicts_of_another_judge_do_not_count(
    tmp_path: Path, short: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small, log = tmp_path / "small.txt", tmp_path / "log"
    script = _script(tmp_path / "test.sh", _asking(log, "^access"))
    words = ["minimise", str(short), "-o", str(small), "--test", str(script), "--form", ".txt",
             "--attempts", "1"]  # fmt: skip
    assert main([*words, "--budget", "6"]) == 0
    state = tmp_path / "small.txt.state"
    before = state.read_bytes().splitlines()
    assert len(before) > 1, "no verdict was kept"
    assert main([*words, "--budget", "6"]) == 0
    assert state.read_bytes().splitlines() == before, "the same judge goes on from its verdicts"
    if change == "script":
        _script(script, _asking(log, "^reg.write"))
    elif change == "seconds":
        words += ["--seconds", "9"]
    else:
        words[-1] = "2"
    assert main([*words, "--budget", "8"]) == 0
    assert state.read_bytes().splitlines()[0] != before[0], "verdicts of another judge counted"
    capsys.readouterr()


def test_another_program_of_the_same_name_is_another_judge(tmp_path: Path) -> None:
    qemu = _script(tmp_path / "qemu", "echo version 1")
    first = QemuJudge(str(qemu)).identity
    assert first == QemuJudge(str(qemu)).identity
    assert QemuJudge("no-such-qemu").identity != first
    newer = tmp_path / "version"
    newer.write_text("1")
    _script(qemu, f'cat "{newer}"')
    wrapped = QemuJudge(str(qemu)).identity
    assert wrapped != first, "its content is another"
    newer.write_text("2")
    assert QemuJudge(str(qemu)).identity != wrapped, "it starts another version"


def test_what_cannot_be_is_refused(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["-o", str(tmp_path / "x.pdf")], "to say which form it gets"),
        (["-o", str(tmp_path / "x.txt"), "--test", str(tmp_path / "no")], "chmod"),
        (["-o", str(tmp_path / "x.txt"), "--signature", "zz"], "no signature begins"),
        (["-o", str(tmp_path / "x.txt"), "--jobs", "0"], "begin at 1"),
        (["-o", str(tmp_path / "x.txt"), "--state", str(trace)], "is the input"),
        (["-o", str(tmp_path / "x.txt"), "--state", str(tmp_path / "x.txt")], "is OUT"),
        (["-o", str(tmp_path / "x.txt"), "--state", str(tmp_path)], "not a journal"),
        (["-o", str(trace)], "is the input"),
    ):
        assert main(["minimise", str(trace), *words]) == 2
        assert said in capsys.readouterr().err
    assert read(trace).events


@pytest.mark.parametrize("text", ["nan", "-1", "0", "inf", "1e9", "long"])
def test_a_time_that_is_none_is_refused(
    trace: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["minimise", str(trace), "-o", str(tmp_path / "x.txt"), f"--seconds={text}"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is not a time" in capsys.readouterr().err


def test_what_a_script_started_ends_with_a_killed_run(tmp_path: Path, short: Path) -> None:
    said = tmp_path / "said"
    script = _script(tmp_path / "test.sh", f'sleep 60 & echo $! $$ > "{said}"; wait')
    command = [sys.executable, "-m", "harness", "minimise", str(short),
               "-o", str(tmp_path / "x.txt"), "--test", str(script)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert _within_seconds(lambda: said.exists() and said.read_text().endswith("\n"))
    process.kill()
    process.wait()
    started = [Path("/proc") / number for number in said.read_text().split()]
    assert _within_seconds(lambda: not any(one.exists() for one in started)), "still runs"


def _within_seconds(is_so: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


ASKING_QEMU = """
import re, shlex, subprocess, sys
lines = open(sys.argv[1]).read().splitlines()
# These go with the trace's unit, and have other names since 11.0.
command = re.sub(r",x-[a-z-]*=on", "", lines[0].removeprefix("# ").removesuffix(" < THIS"))
lines = [line for line in lines if line[:1] != "#"] + ["readl 0xfed90034"]
words = ["timeout", "30", *shlex.split(command)]
qemu = subprocess.Popen(words, stdin=-1, stdout=-1, stderr=-3, text=True)
qemu.stdin.write("\\n".join(lines) + "\\n")
qemu.stdin.flush()
answers = [qemu.stdout.readline() for _ in lines]
qemu.terminate()
qemu.communicate()
sys.exit(not int(answers[-1].split()[1], 16) & 0x10)
"""
"""Exits with 0 where FSTS.IQE is set behind the commands: the unit has refused a descriptor."""


@pytest.mark.qemu
def test_a_plain_qemu_judges(tmp_path: Path) -> None:
    trace, small = tmp_path / "long.txt", tmp_path / "small.qtest"
    _write(trace, refused(12, 1, False))
    (tmp_path / "ask.py").write_text(ASKING_QEMU)
    script = _script(tmp_path / "test.sh", f'exec {sys.executable} {tmp_path}/ask.py "$1"')
    words = ["minimise", str(trace), "-o", str(small), "--test", str(script), "--attempts", "1"]
    assert main([*words, "--budget", "30", "--jobs", "2"]) == 0
    left = [line for line in small.read_text().splitlines() if line.startswith("write")]
    assert len(left) <= 6, left
    assert any(line.startswith("writeq 0xfed90088 ") for line in left), left


@pytest.mark.qemu
def test_a_running_qemu_judges(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recording claims what a QEMU does not do; one machine answers all candidates."""
    small = tmp_path / "small.txt"
    words = ["minimise", str(trace), "-o", str(small), "--target", "qemu", "--attempts", "2"]
    assert main([*words, "--budget", "120"]) == 0
    said = capsys.readouterr().out
    assert "runs of qemu" in said
    assert "shows in 2 of 2 runs" in said
    assert len(read(small).events) <= 11
    assert main(["replay", "--target", "qemu", str(small)]) == 1


def test_a_qemu_that_does_not_start_is_no_finding(
    tmp_path: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'bad luck' >&2\nexit 3\n")
    program.chmod(0o755)
    words = ["-o", str(tmp_path / "x.txt"), "--target", "qemu", "--program", str(program)]
    assert main(["minimise", str(trace), *words]) == 2
    said = capsys.readouterr().err
    assert "does not start" in said and "bad luck" in said
    assert not (tmp_path / "x.txt").exists()
