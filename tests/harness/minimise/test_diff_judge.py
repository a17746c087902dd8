"""What `dmarewind diff` sees of a real unit, and a replay does not, can be minimised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.trace import open_events

FOLDER = Path(__file__).parents[3] / "corpora" / "deviations"


@pytest.mark.qemu
def test_what_tables_show_is_minimised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, small = FOLDER / "dirty-bit-lost.txt", tmp_path / "small.txt"
    words = ["--json", "minimise", str(trace), "-o", str(small), "--target", "diff"]
    assert main(words) == 2, "it is a known deviation"
    capsys.readouterr()
    assert main([*words, "--no-deviations"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["signature"]["subject"] == "table"
    assert said["cause"].startswith("The unit does otherwise than it should: divergence, table")
    assert said["shown"] == [5, 5]
    with open_events(trace) as before, open_events(small) as after:
        assert len([*after]) == said["after"] < len([*before])


def test_a_trace_of_another_machine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = FOLDER.parent / "traces" / "passthrough.trace"
    out = tmp_path / "small.txt"
    assert main(["minimise", str(trace), "-o", str(out), "--target", "diff"]) == 2
    assert "names no machine of `dmarewind diff`" in capsys.readouterr().err


def test_the_specification_alone_is_for_that_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, out = FOLDER / "dirty-bit-lost.txt", tmp_path / "small.txt"
    assert main(["minimise", str(trace), "-o", str(out), "--no-deviations"]) == 2
    assert "--no-deviations is for --target diff" in capsys.readouterr().err
