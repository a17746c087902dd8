"""The coverage of a campaign is that of the inputs it keeps, shown in the source."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fuzzers import instrumented
from fuzzers.campaign import covering
from fuzzers.campaign.covering import cover
from fuzzers.campaign.files import CORPUS, Files
from fuzzers.coverage.build import Built, programs
from fuzzers.target import target_named
from harness.errors import HarnessError
from harness.native.loading import core
from harness.report import Report

QUIET = Report(argparse.Namespace(json=False, quiet=True, color="never"))

needs_coverage = pytest.mark.skipif(
    find_spec("coverage") is None, reason="coverage.py is not installed"
)


def keep(directory: Path, target: str, count: int) -> Path:
    """Let a campaign have kept some inputs; return its corpora."""
    seeds = tuple(islice(target_named(target).seeds(), count))
    Files(directory).add_inputs(target, seeds)
    return directory / CORPUS


def test_without_inputs_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="has no inputs of viot, acpi"):
        cover(tmp_path, ["viot", "acpi"], tmp_path / "out", 60, QUIET)
    assert not (tmp_path / "out").exists()


@needs_coverage
def test_without_llvm_cov_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if "llvm-cov" in name else which(name))
    corpora = keep(tmp_path, "viot", 1)
    with pytest.raises(HarnessError, match=r"needs clang, clang\+\+, llvm-profdata, llvm-cov"):
        cover(corpora, ["viot"], tmp_path / "out", 60, QUIET)


def test_without_coverage_py_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covering, "find_spec", lambda name: None)
    corpora = keep(tmp_path, "viot", 1)
    with pytest.raises(HarnessError, match=r"pip install 'dmarewind\[fuzz\]'"):
        cover(corpora, ["viot"], tmp_path / "out", 60, QUIET)


@needs_coverage
@pytest.mark.parametrize("mine", ["core/notes.txt", "python/notes.txt", "core", "core.lcov"])
def test_what_it_did_not_write_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str
) -> None:
    monkeypatch.setattr(covering, "programs", lambda: pytest.fail("not refused"))
    corpora = keep(tmp_path, "viot", 1)
    notes = tmp_path / "out" / mine
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(HarnessError, match=r"not written by --coverage.*another directory"):
        cover(corpora, ["viot"], tmp_path / "out", 60, QUIET)
    assert notes.read_text() == "mine"


@needs_coverage
def test_a_campaign_may_be_named_relative_to_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A core without counters does for which inputs are found.
    built = Built(Path(str(core().__file__)))
    monkeypatch.setattr(covering, "programs", lambda: None)
    monkeypatch.setattr(covering, "build", lambda tools: built)
    monkeypatch.chdir(tmp_path)
    os.mkfifo(keep(Path("mine"), "viot", 3) / "viot" / "fifo")
    told = Report(argparse.Namespace(json=True, quiet=False, color="never"))
    with pytest.raises(HarnessError, match="no input ran anything of the core"):
        cover(Path("mine") / CORPUS, ["viot"], Path("out"), 60, told)
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["inputs"], said["trouble"]) == (3, 3, "")


def measured(directory: Path, out: Path, *words: str) -> list[dict[str, Any]]:
    # As with .venv/bin/dmarewind: what pip has installed beside it is not on the search path.
    beside = str(Path(sys.executable).parent)
    paths = os.pathsep.join(one for one in os.get_exec_path() if one != beside)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "harness", "--json", "campaign", str(directory)),
            *("--coverage", str(out), *words),
        ],
        env=os.environ | {"PYTHONPATH": str(instrumented.ROOT), "PATH": paths},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_coverage
@pytest.mark.clang
@pytest.mark.optional
def test_pages_show_what_the_inputs_run(tmp_path: Path) -> None:
    try:
        programs()
    except HarnessError as error:
        pytest.skip(str(error))
    directory, out = tmp_path / "campaign", tmp_path / "out"
    keep(directory, "viot", 3)
    run, core, python = measured(directory, out)
    assert (run["target"], run["run"], run["inputs"], run["trouble"]) == ("viot", 3, 3, "")
    assert "viot.cpp" in (out / "core/index.html").read_text()
    (page,) = (out / "core").rglob("walk.cpp.html")
    assert "uncovered-line" in page.read_text(), "tables of pages were walked"
    assert "viot_rules.py" in (out / "python/index.html").read_text()
    (out / "core/an-old-page.html").touch()
    assert (out / "core.lcov").read_text().count("end_of_record") == core["files"]

    keep(directory, "descriptors", 5)
    *runs, more, more_python = measured(directory, out)
    assert [one["target"] for one in runs] == ["descriptors", "viot"]
    assert [one["run"] for one in runs] == [5, 3]
    assert core["lines"]["covered"] < more["lines"]["covered"] < more["lines"]["count"]
    assert core["branches"]["covered"] < more["branches"]["covered"]
    assert python["lines"]["covered"] < more_python["lines"]["covered"]
    assert not (out / "core/an-old-page.html").exists(), "pages of before are there"
    assert more["page"] == str(out / "core/index.html")
