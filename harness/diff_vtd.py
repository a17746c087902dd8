"""The diff verb for VT-d: made-up software on a real intel-iommu, and who judges it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from decoders.events import Event
from harness.deviations_vtd import known_crash
from harness.differential import given
from harness.differential.given_vtd import descriptor_bytes, machine_named, steps_of
from harness.differential.script import script
from harness.differential.sought import Sought
from harness.differential.vtd import MODEL, Differential, Divergence
from harness.errors import HarnessError
from harness.explain import explain
from harness.files import replacing
from harness.generate.vtd_steps import Step
from harness.model.dialects import SPECIFICATION, dialect_named
from harness.qemu.process import LOST, HungError
from harness.qemu.vtd import MACHINES, VtdQemu
from harness.report import Report
from harness.trace import open_events, write_text

SEQUENCE: Final = 80
"""Steps between two resets of the machine."""

_UNEXPLAINED: Final = "unexplained"


class _Run:
    """Count and print what one QEMU shows, with each machine in turn."""

    def __init__(self, args: argparse.Namespace, machines: Sequence[VtdQemu]) -> None:
        self._args = args
        self._report = Report(args)
        # The model follows a real unit step by step, whoever else judges.
        named = [MODEL, *(name for name in args.targets if name != "qemu")]
        judges = self._judges = list(dict.fromkeys(named))
        self._differentials = []
        for machine in machines:
            own = dialect_named("qemu-{}.{}".format(*machine.version))
            judged = own if args.deviations else SPECIFICATION
            self._differentials.append(Differential(machine, judges, SEQUENCE, own, judged))
        self.version = ".".join(map(str, machines[0].version))
        self.steps = self.divergences = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self._given: tuple[list[Step], int] | None = None

    def given(self, path: Path) -> None:
        """Run what a trace says."""
        differential = self._differentials[0]
        events = given.read(path)
        steps = steps_of(events, differential.qemu, differential.scene)
        self._given = steps, descriptor_bytes(events)
        self.sequence(0)

    def sequence(self, seed: int) -> None:
        """Run one sequence.

        Errors: HarnessError, which names it.
        """
        differential = self._differentials[seed % len(self._differentials)]
        before = differential.totals.steps
        steps, slot = self._given or (None, None)
        lost: HarnessError | None = None
        found: list[Divergence] = []
        try:
            found = differential.run(seed, steps, slot)
        except LOST as error:
            lost = error
        except HarnessError as error:
            raise HarnessError(f"seed {seed}: {error}") from error
        finally:
            self.steps += differential.totals.steps - before
        if lost is not None:
            self._crash(differential, seed, lost)
        for divergence in found:
            row = differential.deviation(divergence)
            reason = row.id if row else _UNEXPLAINED
            new = self._count(reason)
            if row is None or (new and not self._args.deviations):
                self._show(differential, divergence, reason)
            self.divergences += row is None or not self._args.deviations

    def _count(self, reason: str) -> bool:
        """Count a reason; say whether it is the first time."""
        self.reasons[reason] += 1
        if reason in self.first:
            return False
        self.first[reason] = self.steps
        return True

    def _show(self, differential: Differential, found: Divergence, reason: str) -> None:
        name = f"{reason}-{found.seed}"
        kept = self._write(differential, found.events, name)
        self._tell(differential, found, reason, kept)
        if kept is not None:
            self._shrink(differential, Sought(found, found.seed), name)

    def _tell(
        self, differential: Differential, found: Divergence, reason: str, kept: Path | None
    ) -> None:
        finding, events = found.finding, found.events
        if self._args.json:
            facts = dataclasses.asdict(found.facts)
            facts |= {name: sorted(facts[name]) for name in ("permitted", "notes")}
            self._report.emit(
                type="divergence", seed=found.seed, step=found.step, judge=found.judge,
                reason=reason, trace=kept and str(kept), facts=facts, after=self.steps,
            )  # fmt: skip
            return

        def event_at(number: int) -> Any:
            return events[number] if 0 <= number < len(events) else None

        self._report.heading(
            f"seed {found.seed}, step {found.step}, {found.judge}: {reason}, "
            f"after {self.steps} steps"
        )
        self._report.line(_table_words(found) or explain(finding, event_at))
        for note in sorted(found.facts.notes):
            self._report.line(f"  noted       {note}")
        if kept is not None:
            self._report.line(f"  kept        {kept}")

    def _crash(self, differential: Differential, seed: int, error: HarnessError) -> None:
        """Count and print a crash, or that QEMU hangs."""
        hangs = isinstance(error, HungError)
        known = None if hangs else known_crash(str(error), differential.qemu.version)
        reason = known.id if known else "hang" if hangs else "crash"
        new = self._count(reason)
        self.divergences += known is None or not self._args.deviations
        name = f"{reason}-{seed}"
        kept = None
        if known is None or new:
            kept = self._write(differential, differential.events, name)
            if self._args.json:
                self._report.emit(
                    type="hang" if hangs else "crash", seed=seed, reason=reason, said=str(error),
                    trace=kept and str(kept), after=self.steps,
                )  # fmt: skip
            else:
                self._report.heading(f"seed {seed}: {error}")
                what = f"a {reason} that is not known yet"
                self._report.line(f"  {known.what if known else what}")
                if kept is not None:
                    self._report.line(f"  kept        {kept}")
        differential.qemu.restart()
        # What hangs is not done again: each time takes as long as it took to find out.
        if kept is not None and not hangs:
            self._shrink(differential, Sought(None, seed, error), name)

    # -- keeping -----------------------------------------------------------------------------

    def _write(self, differential: Differential, events: Sequence[Event], name: str) -> Path | None:
        """Write events as a text trace, and what was done last as a script for plain QEMU."""
        folder: Path | None = self._args.keep
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.txt"
        with replacing(path) as draft:
            write_text(draft, differential.header, events)
        # A device with a TLB has no part in a script: it is a socket whose other end is here.
        if differential.qemu.device_tlb is None:
            with replacing(folder / f"{name}.sh") as draft:
                draft.write_text(script(differential.qemu))
        return path

    def _shrink(self, differential: Differential, sought: Sought, name: str) -> None:
        """Do again what was kept; if it shows the same, keep the least that does."""
        sys.stdout.flush()
        steps, slot = self._given or differential.made(sought.seed)
        events = sought.least(differential, steps, slot)
        if events is not None:
            self._write(differential, events, name)
        if self._args.json:
            self._report.emit(
                type="kept", seed=sought.seed, name=name, repeats=events is not None,
                events=None if events is None else len(events),
            )  # fmt: skip
        elif events is None:
            self._report.line("  done again, it did not show")
        else:
            self._report.line(f"  shrunk to   {len(events)} events")

    def summary(self, seconds: float, source: str, first: int | None = None) -> None:
        """Print one line, and the known deviations that were met."""
        totals = [differential.totals for differential in self._differentials]
        sequences = sum(one.sequences for one in totals)
        accesses = sum(one.accesses for one in totals)
        records = sum(one.records for one in totals)
        rate = self.steps / seconds if seconds else 0.0
        if self._args.json:
            seen: Counter[str] = Counter()
            for one in totals:
                seen += one.seen
            self._report.emit(
                type="summary", unit="vtd", answering=f"QEMU {self.version}", source=source,
                seed=first, sequences=sequences, steps=self.steps, accesses=accesses,
                reports=records, divergences=self.divergences, reasons=dict(self.reasons),
                first=self.first, seen=dict(seen), seconds=round(seconds, 3), rate=round(rate),
            )  # fmt: skip
            return
        if self.reasons:
            self._report.heading("reasons: how often, and the steps before the first")
            self._report.table(
                (count, self.first[reason], reason) for reason, count in self.reasons.most_common()
            )
        self._report.line(
            f"{sequences} sequences {source}, {self.steps} steps, {accesses} accesses, "
            f"{records} fault records of QEMU {self.version} judged by "
            f"{', '.join(self._judges)}: {self.divergences} divergences, {rate:.0f} steps/s"
        )


def _table_words(found: Divergence) -> str:
    """Put a finding about the content of a table into words; empty for others."""
    observed, permitted = found.finding.observed, found.finding.permitted
    if not isinstance(observed, bytes):
        return ""
    words = [f"entry at {int.from_bytes(observed[:8], 'big'):#x}"]
    words.append(f"  in memory   {int.from_bytes(observed[8:], 'big'):#x}")
    for one in permitted:
        if isinstance(one, bytes):
            words.append(f"  permitted   {int.from_bytes(one[8:], 'big'):#x}")
    return "\n".join(words)


def run(args: argparse.Namespace, first: int) -> int:
    """Compare; return 1 when anything diverged."""
    failed = False
    for program in args.qemu or [args.program]:
        failed |= _compare(args, program, first)
    return int(failed)


def _compare(args: argparse.Namespace, program: str, first: int) -> bool:
    with ExitStack() as stack:
        machines = [
            stack.enter_context(VtdQemu(name, program)) for name in args.machine or MACHINES
        ]
        running = _Run(args, machines)
        start, seed = time.perf_counter(), first
        hidden = args.quiet or args.json or not sys.stderr.isatty()
        try:
            with tqdm(total=args.steps, unit=" steps", leave=False, disable=hidden) as bar:
                while running.steps < args.steps:
                    before = running.steps
                    running.sequence(seed)
                    seed += 1
                    bar.update(running.steps - before)
        finally:  # also of a run that is interrupted
            running.summary(time.perf_counter() - start, f"from seed {first}", first)
        return bool(running.divergences)


def repeat(args: argparse.Namespace, path: Path) -> int:
    """Compare what a trace that was kept says; return 1 when anything diverged."""
    with open_events(path) as source:
        header = source.header
    failed = False
    for name in args.machine or [machine_named(header)]:
        for program in args.qemu or [args.program]:
            with VtdQemu(name, program) as machine:
                running = _Run(args, [machine])
                start = time.perf_counter()
                running.given(path)
                running.summary(time.perf_counter() - start, f"of {path}")
                failed |= bool(running.divergences)
    return int(failed)
