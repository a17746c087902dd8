"""Say how a campaign goes: lines, one per target that stays on a terminal, JSON, and a page."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tqdm import tqdm

from fuzzers.campaign.files import PAGE
from fuzzers.campaign.page import render
from fuzzers.campaign.slices import Result, Slice
from fuzzers.campaign.state import State
from harness.files import replacing
from harness.report import Report

_PAGE_EVERY: Final = 10.0
_TROUBLE_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Line:
    """Hold what is said of one target."""

    target: str
    against: str
    per_second: float
    executions: int
    coverage: int
    features: int
    corpus: int
    findings: int
    open: int
    running: int
    trouble: str

    def text(self) -> str:
        """Return one line."""
        doing = f"{self.running} running" if self.running else "waiting"
        trouble = f"; {self.trouble.splitlines()[0][:80]}" if self.trouble else ""
        return (
            f"{self.target:<12} {self.per_second:>9.0f}/s {self.executions:>12} executions "
            f"cov {self.coverage:>6} ft {self.features:>6} corpus {self.corpus:>6} "
            f"findings {self.open}/{self.findings}  {doing}{trouble}"
        )


class Teller:
    """Tell a person or a machine; names are the targets that run."""

    def __init__(self, args: argparse.Namespace, directory: Path, names: Sequence[str]) -> None:
        self._report = Report(args)
        self._directory, self._names = directory, tuple(names)
        self._full = False
        self._page_written = 0.0
        shown = not self._report.quiet and not self._report.json and sys.stderr.isatty()
        self._bars = [
            tqdm(total=0, bar_format="{desc}", position=number, leave=False)
            for number, _ in enumerate(self._names if shown else ())
        ]

    def _line(self, text: str) -> None:
        with tqdm.external_write_mode(sys.stdout):
            self._report.line(text)
            sys.stdout.flush()

    def _say(self, event: str, text: str, **members: object) -> None:
        if self._report.json:
            self._report.emit(event=event, **members)
            sys.stdout.flush()
        elif text and not self._report.quiet:
            self._line(text)

    def building(self) -> None:
        """Tell that the core is built, which takes minutes."""
        self._say("building", "building the instrumented core")

    def reconciled(self, done: dict[str, int]) -> None:
        """Tell what did not fit when the campaign began."""
        changed = any(done.values())
        text = f"{done['taken']} files had no row, {done['lost']} rows have no file"
        self._say("reconciled", text if changed else "", **done)

    def full(self, problem: str) -> None:
        """Tell, once, that nothing can be written."""
        if not self._full:
            self._full = True
            text = f"{self._directory}: {problem}; what is there is kept, waiting for room"
            self._say("full", text, problem=problem)

    def room(self) -> None:
        """Tell that it can be written again."""
        if self._full:
            self._full = False
            self._say("room", f"{self._directory}: there is room again")

    def lost_worker(self, task: Slice, error: BaseException) -> None:
        """Tell that a slice did not come back."""
        problem = f"{type(error).__name__}: {error}"[:_TROUBLE_SHOWN]
        text = f"a worker was lost at {task.kind} {task.target}: {problem}"
        self._say("lost", text, kind=task.kind, target=task.target, problem=problem)

    def finding(self, row: sqlite3.Row, report: Path) -> None:
        """Tell of a finding that this campaign has not told of."""
        signature = json.loads(row["signature"])
        words = ", ".join(v for k, v in signature.items() if k != "key" and v)
        painted = self._report.paint("found" if row["state"] != "regressed" else "back", "red")
        text = f"{painted} {row['target']} {row['key']}: {words}\n      {report}"
        self._say(
            "finding", text, target=row["target"], state=row["state"], signature=signature,
            input=row["input"], report=str(report),
        )  # fmt: skip

    def slice(self, result: Result) -> None:
        """Tell of a slice; people are told when it did not go well."""
        text = ""
        if result.trouble:
            first = result.trouble.splitlines()[0][:_TROUBLE_SHOWN]
            text = f"{result.kind} {result.target}: {first}"
        self._say(
            "slice", text, kind=result.kind, target=result.target, worker=result.worker,
            seconds=result.seconds, executions=result.executions, coverage=result.coverage,
            features=result.features, inputs=len(result.inputs), findings=len(result.findings),
            trouble=result.trouble,
        )  # fmt: skip

    def show(self, state: State, running: Sequence[Slice]) -> None:
        """Show where each target stands, and write the page now and then. Errors: OSError."""
        lines = lines_of(state, self._names, running)
        for bar, line in zip(self._bars, lines, strict=False):
            bar.set_description_str(line.text())
        if time.monotonic() - self._page_written >= _PAGE_EVERY:
            self.write_page(state, running)
            self._page_written = time.monotonic()

    def write_page(self, state: State, running: Sequence[Slice]) -> None:
        """Write the page. Errors: OSError."""
        samples = {name: state.samples(name) for name in self._names}
        lines = lines_of(state, self._names, running)
        text = render(lines, samples, state.findings(), time.time())
        with replacing(self._directory / PAGE) as draft:
            draft.write_text(text, encoding="utf-8")

    def end(self, state: State, found: int) -> None:
        """Sum up."""
        for bar in self._bars:
            bar.close()
        for line in lines_of(state, self._names, ()):
            self._say(
                "target", line.text(), target=line.target, against=line.against,
                executions=line.executions, per_second=round(line.per_second, 1),
                coverage=line.coverage, features=line.features, corpus=line.corpus,
                findings=line.findings, open=line.open, trouble=line.trouble,
            )  # fmt: skip
        rows = state.findings()
        text = f"{found} findings seen, {len(rows)} kept in {self._directory}"
        self._say("end", text, found=found, findings=len(rows))


def lines_of(state: State, names: Sequence[str], running: Sequence[Slice]) -> list[Line]:
    """Return where each target stands."""
    rows = {row["name"]: row for row in state.targets()}
    findings = state.findings()
    made = []
    for name in names:
        row = rows.get(name)
        if row is None:
            continue
        samples = state.last_sample(name)
        own = [one for one in findings if one["target"] == name]
        made.append(
            Line(
                name,
                row["against"],
                samples["per_second"] if samples else 0.0,
                row["executions"],
                row["coverage"],
                row["features"],
                state.count(name),
                len(own),
                sum(one["state"] not in ("known", "gone") for one in own),
                sum(task.target == name for task in running),
                row["trouble"],
            )
        )
    return made
