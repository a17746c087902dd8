"""`dmarewind campaign DIR --coverage OUT`: which lines the kept inputs run, as pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from fuzzers.coverage.build import ROOT, Built, build, programs
from fuzzers.coverage.report import Part, Reporter, Share, table, total
from fuzzers.target import BARE, QEMU, target_named
from harness.errors import HarnessError
from harness.native.loading import CORE_VARIABLE
from harness.report import Report

HOW_TO_INSTALL: Final = "pip install 'dmarewind[fuzz]'"
_CORE, _PYTHON, _LCOV = "core", "python", "core.lcov"
_MARK: Final = ".dmarewind-coverage"
"""A file in each directory of pages: all beside it was written here, and may be removed."""

_GRACE: Final = 120.0
"""Seconds that a process may take beside its inputs."""


@dataclass(frozen=True, slots=True)
class Run:
    """Say what came of a target's inputs; trouble tells how its process ended early."""

    target: str
    inputs: int
    run: int = 0
    raised: int = 0
    trouble: str = ""

    def text(self) -> str:
        """Return one line."""
        trouble = f"; {self.trouble}" if self.trouble else ""
        return f"{self.target:<12} {self.run} of {self.inputs} inputs run{trouble}"


def cover(corpora: Path, names: Sequence[str], out: Path, seconds: float, report: Report) -> None:
    """Run the corpora of targets, and write pages of what they reach below a directory.

    Errors: HarnessError when there is nothing to run, a program is missing, a build fails, or
    pages would take the place of what was not written here.
    """
    corpora = corpora.resolve()
    there = [name for name in names if any((corpora / name).glob("*"))]
    if not there:
        raise HarnessError(f"{corpora}: has no inputs of {', '.join(names)}")
    if find_spec("coverage") is None:
        raise HarnessError(f"coverage of Python code needs coverage.py: {HOW_TO_INSTALL}")
    _refuse_foreign(out)
    tools = programs()
    if not report.quiet and not report.json:
        report.line("building the core with counters")
    built = build(tools)
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + seconds
    with TemporaryDirectory(prefix="dmarewind-coverage-") as scratch:
        place = Path(scratch)
        for number, name in enumerate(there):
            left = (ends - time.monotonic()) / (len(there) - number)
            one = _run(name, corpora / name, place, built, max(1.0, left))
            if report.json:
                report.emit(event="run", **asdict(one))
            elif not report.quiet:
                report.line(one.text())
        reporter = Reporter(tools, built, place)
        profiles = sorted(place.glob("*.profraw"))
        if not profiles:
            raise HarnessError("no input ran anything of the core")
        core = reporter.parts(merged := reporter.merge("all", profiles))
        reporter.write(merged)
        shutil.copytree(place / "html", _emptied(out / _CORE), dirs_exist_ok=True)
        shutil.move(place / "coverage.lcov", out / _LCOV)
        python = _python(place, out / _PYTHON)
    _tell(report, out, {_CORE: core, _PYTHON: python})


def _refuse_foreign(out: Path) -> None:
    foreign = [
        pages
        for pages in (out / _CORE, out / _PYTHON)
        if pages.is_symlink()
        or (pages.exists() and not pages.is_dir())
        or (pages.is_dir() and any(pages.iterdir()) and not (pages / _MARK).is_file())
    ]
    if not (out / _CORE / _MARK).is_file() and (out / _LCOV).exists():
        foreign.append(out / _LCOV)
    if foreign:
        raise HarnessError(
            f"{foreign[0]}: was not written by --coverage, and would be replaced;"
            " move it away, or name another directory"
        )


def _emptied(pages: Path) -> Path:
    """Return a directory of pages, with nothing in it but its mark, which is never missing."""
    pages.mkdir(exist_ok=True)
    (pages / _MARK).touch()
    for path in pages.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _MARK:
            path.unlink()
    return pages


def _run(name: str, corpus: Path, place: Path, built: Built, seconds: float) -> Run:
    """Run the inputs of a target in a process, which a crash may end."""
    target = target_named(name)
    against = next(one for one in target.against if one not in (QEMU, BARE))
    inputs = sum(path.is_file() for path in corpus.iterdir())
    environment = os.environ | {
        # %c keeps the counters in the file all the time: a crash loses none.
        "LLVM_PROFILE_FILE": str(place / f"{name}-%c%p.profraw"),
        CORE_VARIABLE: str(built.module),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    limit = min(seconds, 1e6)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "fuzzers.coverage.inputs", name, against, str(corpus)),
                *(str(limit), str(place / f"{name}.counted")),
            ],
            env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=limit + _GRACE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Run(name, inputs, trouble="it did not come to its end")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing said"]
        return Run(name, inputs, trouble=f"exit status {done.returncode}: {said[0]}")
    return Run(name, **json.loads(done.stdout.splitlines()[-1]))


def _python(place: Path, pages: Path) -> list[Part]:
    """Write the pages about Python code; return the shares of each file."""
    counted = sorted(map(str, place.glob("*.counted")))
    if not counted:
        return []
    counter: Any = import_module("coverage").Coverage(
        data_file=str(place / "combined"), config_file=False, branch=True
    )
    counter.combine(counted)
    counter.html_report(directory=str(_emptied(pages)), ignore_errors=True)
    counter.json_report(outfile=str(place / "python.json"), ignore_errors=True)
    files = json.loads((place / "python.json").read_text())["files"]
    return [
        Part(
            Path(name).resolve().relative_to(ROOT).as_posix(),
            Share(one["summary"]["covered_lines"], one["summary"]["num_statements"]),
            Share(one["summary"]["covered_branches"], one["summary"]["num_branches"]),
        )
        for name, one in sorted(files.items())
    ]


def _tell(report: Report, out: Path, found: dict[str, list[Part]]) -> None:
    for name, parts in found.items():
        page = out / name / "index.html"
        whole = total(name, parts)
        if report.json:
            report.emit(event="coverage", **asdict(whole), page=str(page), files=len(parts))
            continue
        if not report.quiet:
            report.line(f"\n{table(name, [*parts, whole])}")
        report.line(str(page))
