"""Merge counters, sum them up per file, and write the reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fuzzers.coverage.build import ROOT, Built, Programs, called

CORE: Final = ROOT / "harness" / "native" / "core"
_OTHERS: Final = r"(/native/(bind|tests|bench)/|/nanobind/|/include/)"
"""What else is compiled in: the binding, the tests, and headers of others."""


@dataclass(frozen=True, slots=True)
class Share:
    """Hold how many of something there are, and how many were run."""

    covered: int
    count: int

    @property
    def percent(self) -> float:
        """Return the share in percent; of nothing everything was run."""
        return 100 * self.covered / self.count if self.count else 100.0

    def __add__(self, other: Share) -> Share:
        return Share(self.covered + other.covered, self.count + other.count)


@dataclass(frozen=True, slots=True)
class Part:
    """Hold the shares of one file, of one run or of all."""

    name: str
    lines: Share
    branches: Share


def read_summary(text: str, core: Path = CORE) -> list[Part]:
    """Read what `llvm-cov export -summary-only` printed: the files below core, by name."""
    (data,) = json.loads(text)["data"]
    parts = []
    for file in data["files"]:
        # Names are those given to the compiler: with the way up from the build directory.
        path = Path(file["filename"]).resolve()
        if path.is_relative_to(core):
            name = path.relative_to(core).as_posix()
            summary: dict[str, Any] = file["summary"]
            lines, branches = (
                Share(summary[kind]["covered"], summary[kind]["count"])
                for kind in ("lines", "branches")
            )
            parts.append(Part(name, lines, branches))
    return sorted(parts, key=lambda part: part.name)


def total(name: str, parts: Iterable[Part]) -> Part:
    """Add parts up."""
    lines, branches = Share(0, 0), Share(0, 0)
    for part in parts:
        lines, branches = lines + part.lines, branches + part.branches
    return Part(name, lines, branches)


def table(heading: str, parts: Iterable[Part]) -> str:
    """Return a line per part: how many lines and branches, how many not run, percent run."""
    rows = [f"{heading:<44}{'lines':>8}{'missed':>8}{'':>9}{'branches':>10}{'missed':>8}"]
    for part in parts:
        cells = "".join(
            f"{share.count:>{width}}{share.count - share.covered:>8}{share.percent:>8.2f}%"
            for share, width in ((part.lines, 8), (part.branches, 10))
        )
        rows.append(f"{part.name:<44}{cells}")
    return "\n".join(rows)


class Reporter:
    """Ask llvm-profdata and llvm-cov about what was built; a directory is for what they say."""

    def __init__(self, tools: Programs, built: Built, directory: Path) -> None:
        self.tools, self.built, self.directory = tools, built, directory

    def merge(self, name: str, profiles: Iterable[Path]) -> Path:
        """Merge the counters of processes into one file."""
        merged = self.directory / f"{name}.profdata"
        inputs = [str(profile) for profile in profiles]
        called([self.tools.profdata, "merge", "-o", str(merged), *inputs], "coverage")
        return merged

    def _ask(self, verb: str, merged: Path, *options: str) -> str:
        return called(
            [
                self.tools.cov,
                verb,
                *self.built.objects,
                f"-instr-profile={merged}",
                f"-ignore-filename-regex={_OTHERS}",
                *options,
            ],
            "coverage",
        )

    def parts(self, merged: Path) -> list[Part]:
        """Return the shares of each file of the core."""
        return read_summary(self._ask("export", merged, "-summary-only"))

    def write(self, merged: Path) -> list[Path]:
        """Write every line and branch: as pages, for lcov's tools, and as JSON."""
        pages, trace, whole = (
            self.directory / name for name in ("html", "coverage.lcov", "coverage.json")
        )
        shutil.rmtree(pages, ignore_errors=True)
        self._ask("show", merged, "-format=html", f"-output-dir={pages}", "-show-branches=count")
        trace.write_text(self._ask("export", merged, "-format=lcov"), encoding="utf-8")
        whole.write_text(self._ask("export", merged), encoding="utf-8")
        return [pages / "index.html", trace, whole]
