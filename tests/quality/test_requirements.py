"""A skip says why; where everything is required it is a failure, unless marked optional."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

@pytest.mark.qemu
def test_needs_qemu():
    pass

@pytest.mark.{marker}
def test_skips_itself():
    pytest.skip("no moon tonight")

@pytest.mark.xfail(reason="known")
def test_known_failure():
    assert False
"""
CONFIGURATION = """
[pytest]
addopts = -ra -p no:cacheprovider
markers =
    qemu: x
    optional: x
    usual: x
"""


def run(folder: Path, marker: str, require: str) -> subprocess.CompletedProcess[str]:
    """Run the suite in its own folder on a PATH without QEMU."""
    (folder / "pytest.ini").write_text(CONFIGURATION)
    (folder / "conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (folder / "test_suite.py").write_text(SUITE.format(marker=marker))
    environment = {
        "PATH": str(folder),
        "PYTHONPATH": str(ROOT),
        "DMAREWIND_REQUIRE": require,
        "COLUMNS": "200",
        "HOME": os.environ.get("HOME", "/"),
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "usual", "")
    assert done.returncode == 0, done.stdout
    assert "qemu-system-x86_64 is not installed" in done.stdout
    assert "2 skipped, 1 xfailed" in done.stdout


@pytest.mark.parametrize(
    ("marker", "summary"),
    [("usual", "1 failed, 1 xfailed, 1 error"), ("optional", "1 skipped, 1 xfailed, 1 error")],
)
def test_nothing_may_be_missing(tmp_path: Path, marker: str, summary: str) -> None:
    done = run(tmp_path, marker, "all")
    assert done.returncode == 1
    assert "with DMAREWIND_REQUIRE=all: qemu-system-x86_64 is not installed" in done.stdout
    assert summary in done.stdout
