"""What a campaign is asked for is taken, or refused in words of the command line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fuzzers.campaign.command import chosen
from fuzzers.target import BARE
from harness.cli import main
from harness.errors import HarnessError


def test_targets_that_know_no_judge_are_left_out() -> None:
    assert chosen("viot,trace,viot", None).keys() == {"viot", "trace"}
    with pytest.raises(HarnessError, match="none of trace, viot can be compared with qemu with"):
        chosen("trace,viot", BARE)


@pytest.mark.parametrize("names", ["", ",", ",,"])
def test_no_target_is_told_as_such(names: str) -> None:
    with pytest.raises(HarnessError, match=f"--targets '{names}' names none; there are descriptor"):
        chosen(names, None)


@pytest.mark.parametrize("words", [("campaign", "DIR", "--targets", "trace"), ("fuzz", "trace")])
def test_only_options_that_there_are_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    there = [str(tmp_path / word) if word == "DIR" else word for word in words]
    assert main([*there, "--no-deviations"]) == 2
    told = capsys.readouterr().err
    assert "qemu with --no-deviations" in told
    assert BARE not in told


def test_a_database_that_another_holds_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def hasty(path: Path, **words: object) -> sqlite3.Connection:
        return connect(path, timeout=0, isolation_level=None) if words else connect(path)

    monkeypatch.setattr("sqlite3.connect", hasty)
    (holder := connect(tmp_path / "state.db")).execute("BEGIN EXCLUSIVE")
    assert main(["campaign", str(tmp_path), "--targets", "viot", "--minutes", "0.01"]) == 2
    holder.close()
    assert "state.db: database is locked" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.damaged*")), "it was put aside under the other one's hands"
