"""Tests of the scripts for shells: complete, and accepted by the shells that are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import cli

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_option_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for verb in cli.VERBS:
        assert verb in text
    for name in ("device", "iova", "output", "color", "capability", "target", "keep-log",
                 "unit", "features", "config"):  # fmt: skip
        assert (f"-l {name}" if shell == "fish" else f"--{name}") in text


@pytest.mark.parametrize("shell", SHELLS)
def test_no_placeholder_is_left(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "%(" not in script(shell, capsys)


@pytest.mark.optional
@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_it(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(shell, capsys))
    subprocess.run([shell, "-n", str(path)], check=True, timeout=30)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sh"], ["show"]),
        (["c"], ["campaign", "check", "completion", "convert"]),
        (["show", "--ki"], ["--kind"]),
        (["show", "--kind", "reg"], ["reg.read", "reg.write"]),
        (["show", "--kind", "fea"], ["features"]),
        (["show", "--kind", "device-"], ["device-reset", "device-tlb"]),
        (["convert", "--unit", "vi"], ["virtio-iommu"]),
        (["show", "--color", ""], ["auto", "never"]),
        (["completion", ""], sorted(SHELLS)),
        (["replay", "--target", "mo"], ["model"]),
        (["show", "--device", ""], []),
        (["show", "x"], []),
    ],
    ids=str,
)
def test_bash_completes(
    words: list[str],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "script"
    path.write_text(script("bash", capsys))
    program = (
        'source "$1"; shift; COMP_WORDS=(dmarewind "$@"); COMP_CWORD=$#; '
        "_dmarewind; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", str(path), *words],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == expected
    assert done.stderr == ""
