"""Defects can be planted in a bench build only; each is asked for, and the fuzzers find them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzzers import instrumented
from fuzzers.target import MODEL, target_names
from fuzzers.worker import UNFIT
from harness.native.loading import core
from tools.bench.defects import command, search
from tools.bench.defects.worker import CONTROL

CORE = Path(__file__).parents[2] / "harness/native/core"
ROW = re.compile(
    r'X\((?P<name>\w+), "(?P<targets>[^"]+)", "(?P<source>[^"]+)",[\s\\]+"(?P<what>[^"]+)"\)'
)
ASKED = re.compile(r"Defect::(\w+)")
COMMIT = re.compile(r"[0-9a-f]{10,12}")

ROWS = [match.groupdict() for match in ROW.finditer((CORE / "defects.hpp").read_text())]
NAMES = [row["name"] for row in ROWS]


def asked() -> Counter[str]:
    """Count in how many places of the core each defect is asked for."""
    sources = [p for p in CORE.rglob("*.[ch]pp") if p.name != "defects.hpp"]
    return Counter(name for path in sources for name in ASKED.findall(path.read_text()))


def test_there_are_enough_and_each_is_asked_for() -> None:
    assert len(NAMES) >= 40
    assert sorted(set(NAMES)) == sorted(NAMES)
    assert set(asked()) == set(NAMES)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_row_is_whole(row: dict[str, str]) -> None:
    assert set(row["targets"].split()) <= set(target_names())
    assert row["source"] == "kind" or COMMIT.fullmatch(row["source"])
    assert row["what"][0].islower() or row["what"][0].isupper()
    assert not row["what"].endswith(".")


def test_a_normal_build_has_no_trace_of_them() -> None:
    module = core()
    assert not hasattr(module, "plant")
    assert not hasattr(module, "defects")
    content = Path(module.__file__).read_bytes()
    named = [row["name"] for row in ROWS if row["what"].encode() in content]
    named += [name for name in NAMES if name.encode() in content]
    assert named == []


@pytest.mark.clang
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed")
def test_a_worker_whose_changes_would_be_ignored_refuses(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzzers.worker", "virtio", MODEL, str(tmp_path), "-runs=1"],
        env=instrumented.environment(search.built()),
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, "they would be ignored" in done.stderr) == (UNFIT, True)


@pytest.mark.clang
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed")
def test_what_is_planted_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = {"fault_pasid_present": "disagreement", "virtio_domain_used_after_end": "crash"}
    words = [word for name in fast for word in ("--only", name)]
    assert command.main([*words, "--first", "--json", "--keep", str(tmp_path)]) == 0
    *found, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert {one["defect"]: one["signature"].split(",")[0] for one in found} == fast
    assert all(0 < one["least"] < 20 for one in found)
    assert (summary["found"], summary["missed"]) == (2, [])
    # What was measured is not measured again.
    command.main([*words, "--first", "--json", "--keep", str(tmp_path)])
    assert capsys.readouterr().err == ""
    nothing = search.search(CONTROL, "virtio", 2.0, 1, tmp_path / "control", search.built())
    assert not nothing.found
    assert nothing.executions > 0
    # Inputs were changed by the target, not by libFuzzer.
    log = (tmp_path / "control/log").read_text()
    changes = re.findall(r"MS: \d+ (\S+)", log)
    assert changes
    assert [made for made in changes if not made.startswith("Custom")] == []
