"""What a QEMU answers is put beside what is expected, and how it ends is said."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import HarnessError
from harness.export.asked import ask
from harness.export.program import Command, Program

DEVIATIONS = Path(__file__).parents[3] / "corpora" / "deviations"
READ = "readl 0xfed90034"


def program() -> Program:
    return Program(commands=[
        Command("writel 0xfed90034 0x1"), Command("", "a note"), Command(READ, "", 0x2, 0x2),
        Command("readl 0xfed90000"),
    ])  # fmt: skip


def qemu(path: Path, answers: str, end: str = "exit 0") -> str:
    """Return a program that answers like this, whatever it is told."""
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 10.0.2 (x)" && exit\n'
        f"read line\nprintf '{answers}'\necho 'it broke' >&2\n{end}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_answers_stand_beside_what_is_expected(tmp_path: Path) -> None:
    made = program()
    said = "OK little\\nOK\\nIRQ raise 2\\nOK 0x6\\nOK 0x10\\nOK\\n"
    asked = ask(made, qemu(tmp_path / "qemu", said))
    assert (asked.name, asked.died) == ("QEMU 10.0.2", "")
    assert [one.answer for one in made.commands] == [None, None, 6, 16]
    assert [one.as_expected for one in made.commands] == [None, None, True, None]


def test_another_answer_is_not_as_expected(tmp_path: Path) -> None:
    made = program()
    ask(made, qemu(tmp_path / "qemu", "OK little\\nOK\\nOK 0x1\\nOK 0x10\\nOK\\n"))
    assert made.commands[2].as_expected is False


@pytest.mark.parametrize(
    ("answers", "at"), [("OK little\\n", "writel"), ("OK little\\nOK\\n", READ)], ids=["1", "2"]
)
def test_a_qemu_that_ends_is_said_to(tmp_path: Path, answers: str, at: str) -> None:
    asked = ask(program(), qemu(tmp_path / "qemu", answers, "kill -ABRT $$"))
    assert asked.died.startswith(f"ended at {at}")
    assert asked.died.endswith("(SIGABRT): it broke")


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ("", "does not start .exit status 0.: it broke"),
        ("OK little\\nFAIL Unknown command\\n", "writel 0xfed90034 0x1: FAIL Unknown command"),
    ],
    ids=["no answer", "a command it does not know"],
)
def test_what_is_no_qemu_is_refused(tmp_path: Path, answers: str, error: str) -> None:
    with pytest.raises(HarnessError, match=error):
        ask(program(), qemu(tmp_path / "qemu", answers))


def test_a_program_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.export.asked.SECONDS", 2.0)
    talks = qemu(tmp_path / "talks", "OK\\nOK 0x2\\n", "exec yes OK")
    began = time.monotonic()
    # It is ended for what it has written, or for the time that it takes.
    assert ask(program(), talks).name
    assert time.monotonic() - began < 30


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot run"):
        ask(program(), str(tmp_path / "none"))
    with pytest.raises(HarnessError, match="does not say which QEMU"):
        ask(program(), "/bin/echo")


def test_what_is_exported_does_not_replace_its_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "a.txt"
    trace.write_bytes((DEVIATIONS / "empty-wait.txt").read_bytes())
    (tmp_path / "b.txt").symlink_to(trace)
    for out in (trace, tmp_path / "b.txt"):
        assert main(["export", str(trace), "--as", "qtest", "-o", str(out)]) == 2
        assert "is the input" in capsys.readouterr().err
    assert trace.read_bytes() == (DEVIATIONS / "empty-wait.txt").read_bytes()


def test_a_pytest_file_asks_no_qemu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = str(DEVIATIONS / "empty-wait.txt"), str(tmp_path / "test_a.py")
    assert main(["export", trace, "--as", "pytest", "-o", out, "--ask"]) == 2
    assert "--ask: a pytest file" in capsys.readouterr().err


@pytest.mark.qemu
def test_a_real_qemu_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = str(DEVIATIONS / "queue-does-not-resume.txt"), tmp_path / "a.sh"
    assert main(["export", trace, "--as", "qtest", "-o", str(out), "--ask", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["asked"].startswith("QEMU ")
    assert [one["answer"] for one in said["answers"]] == [0x10, 0]
    text = out.read_text()
    assert f"# {said['asked']}\n# answered: {READ} = 0x10\n# answered: {READ} = 0x0\n" in text
    assert "left out" not in text  # a reset at the beginning is how a machine begins
