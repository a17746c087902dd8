"""The diff verb: made-up software on several targets at once, and where they disagree."""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from harness import diff_pair, diff_vtd
from harness.deviations import known_crash, without_each
from harness.differential import given
from harness.differential.engine import MODEL, Differential, Divergence, Unit
from harness.differential.real import Qemu
from harness.differential.simulated import Simulated
from harness.errors import HarnessError
from harness.explain import explain
from harness.files import replacing
from harness.generate.virtio import Step
from harness.generate.vtd_machines import MACHINES as SIMULATED
from harness.model.virtio.dialect import SPECIFICATION, dialect_named
from harness.options import add_deviations
from harness.qemu.pc import PROGRAM
from harness.qemu.process import EndedError
from harness.qemu.unit import QemuUnit, devices_for
from harness.qemu.vtd import MACHINES
from harness.report import Report
from harness.targets.qemu import endpoints_of
from harness.trace import VIRTIO, VTD, open_events, write_text

QEMU: Final = "qemu"
TARGETS: Final = (MODEL, "native", QEMU)
UNITS: Final = (VIRTIO, VTD)
SEQUENCE: Final = 40
"""Steps between two resets of the machine."""

SHOWN: Final = 10
_SIMULATED: Final = "qemu-10.0"
_UNEXPLAINED: Final = "unexplained"
_NEEDS_QEMU: Final = "a trace takes qemu among the targets; `dmarewind replay` judges it"


def _targets(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in TARGETS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(TARGETS)}")
    if len(names) < 2:
        raise argparse.ArgumentTypeError("it takes two targets to differ")
    return names


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number < 1 << 48:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number of things")
    return number


def _seed(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number < 1 << 48:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a seed")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind diff`."""
    parser.add_argument(
        "traces",
        nargs="*",
        type=Path,
        metavar="TRACE",
        help="do what these say instead of making something up; needs qemu",
    )
    parser.add_argument(
        "--targets",
        type=_targets,
        default=[MODEL, QEMU],
        metavar="NAME,NAME",
        help=f"which to compare, of {', '.join(TARGETS)}; qemu answers and the model judges, with"
        " the others; without qemu the model answers (default model,qemu)",
    )
    parser.add_argument(
        "--unit", choices=UNITS, default=VIRTIO, help="kind of IOMMU (default %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=_count,
        default=10_000,
        metavar="N",
        help="requests, each with DMA behind it (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, metavar="S", help="of the first sequence (default: by chance)"
    )
    add_deviations(parser)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="write what diverged there, as text traces"
    )
    parser.add_argument(
        "--qemu",
        action="append",
        metavar="PROGRAM",
        help="with --unit vtd: the QEMU to run, may be repeated",
    )
    parser.add_argument(
        "--machine",
        action="append",
        choices=(*MACHINES, *(name for name in SIMULATED if name not in MACHINES)),
        metavar="NAME",
        help="with --unit vtd: which unit to have, may be repeated (default: all in turn); with "
        f"qemu {', '.join(MACHINES)}, else {', '.join(SIMULATED)}",
    )
    parser.add_argument(
        "--jobs",
        type=_count,
        default=1,
        metavar="N",
        help="with --unit vtd and without qemu: processes that share the work (default 1)",
    )
    parser.add_argument(
        "--program", default=PROGRAM, metavar="FILE", help="the QEMU to run (default %(default)s)"
    )


@contextmanager
def _unit(args: argparse.Namespace, named: Collection[int] = ()) -> Iterator[Unit]:
    """Give the unit that answers, with the endpoints that are named."""
    if QEMU in args.targets:
        with QemuUnit(args.program, devices_for(named)) as unit:
            yield Qemu(unit)
    else:
        yield Simulated(dialect_named(_SIMULATED))


class _Run:
    """Count and print what one run finds."""

    def __init__(self, args: argparse.Namespace, unit: Unit) -> None:
        self._args, self._unit = args, unit
        self._report = Report(args)
        # The model follows a real unit step by step, whoever else judges.
        answering = QEMU if QEMU in args.targets else MODEL
        named = [MODEL, *args.targets] if answering == QEMU else args.targets
        self.judges = [name for name in dict.fromkeys(named) if name != answering]
        # How wide ids are is a fact about the machine.
        strict = dataclasses.replace(SPECIFICATION, endpoint_bits=unit.dialect.endpoint_bits)
        dialect = unit.dialect if args.deviations else strict
        self.differential = Differential(unit, self.judges, SEQUENCE, dialect)
        self.divergences = 0
        self.reasons: Counter[str] = Counter()

    def sequence(self, seed: int, steps: Sequence[Step] | None = None) -> None:
        """Run one sequence; a crash that is known is counted as such."""
        try:
            found = self.differential.run(seed, steps)
        except EndedError as error:
            self._crash(seed, error)
            return
        if found is None:
            return
        self.divergences += 1
        reason = self._reason(found)
        self.reasons[reason] += 1
        # Of each known deviation one example is enough.
        if reason == _UNEXPLAINED or self.reasons[reason] == 1:
            self._show(found, reason)

    def _reason(self, found: Divergence) -> str:
        """Return the known deviations that a divergence from the specification goes back to."""
        if self._args.deviations or found.judge != MODEL:
            return _UNEXPLAINED
        same = found.finding.event, found.finding.subject
        reasons = [
            deviation.id
            for deviation, dialect in without_each(self._unit.dialect)
            for finding in self.differential.judged(MODEL, dialect, found.events)
            if (finding.event, finding.subject) == same
        ]
        return ", ".join(reasons) or _UNEXPLAINED

    def _show(self, found: Divergence, reason: str) -> None:
        kept = self._keep(found.seed, found)
        if self._args.json:
            self._report.emit(
                type="divergence", seed=found.seed, step=found.step, judge=found.judge,
                reason=reason, trace=kept and str(kept), finding=found.finding.as_json(),
            )  # fmt: skip
            return
        events = found.events

        def event_at(number: int) -> Any:
            return events[number] if 0 <= number < len(events) else None

        self._report.heading(f"seed {found.seed}, step {found.step}, {found.judge}: {reason}")
        self._report.line(explain(found.finding, event_at, VIRTIO))
        if kept is not None:
            self._report.line(f"  kept        {kept}")

    def _crash(self, seed: int, error: EndedError) -> None:
        known = known_crash(str(error), self._unit.version)
        reason = known.id if known else "crash"
        self.reasons[reason] += 1
        self.divergences += known is None or not self._args.deviations
        if known is None or self.reasons[reason] == 1:
            kept = self._keep(seed, None)
            if self._args.json:
                self._report.emit(type="crash", seed=seed, reason=reason, said=str(error),
                                  trace=kept and str(kept))  # fmt: skip
            else:
                self._report.heading(f"seed {seed}: {error}")
                self._report.line(f"  {known.what if known else 'a crash that is not known yet'}")
                if kept is not None:
                    self._report.line(f"  kept        {kept}")
        self._unit.restart()

    def _keep(self, seed: int, found: Divergence | None) -> Path | None:
        folder: Path | None = self._args.keep
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"seed-{seed}.txt"
        events = found.events if found else self.differential.events
        with replacing(path) as draft:
            write_text(draft, self._unit.header, events)
        return path

    def summary(self, seconds: float, source: str) -> None:
        """Print one line, and the known deviations that were met."""
        totals = self.differential.totals
        rate = totals.steps / seconds if seconds else 0.0
        version = ".".join(map(str, self._unit.version))
        answering = f"QEMU {version}" if version else "the model"
        if self._args.json:
            self._report.emit(
                type="summary", unit=self._args.unit, answering=answering, source=source,
                sequences=totals.sequences, steps=totals.steps, accesses=totals.accesses,
                reports=totals.reports, divergences=self.divergences, reasons=dict(self.reasons),
                seen=dict(totals.seen), seconds=round(seconds, 3), rate=round(rate),
            )  # fmt: skip
            return
        if self.reasons:
            self._report.heading("sequences that ended early")
            self._report.table((count, reason) for reason, count in self.reasons.most_common())
        self._report.line(
            f"{totals.sequences} sequences {source}, {totals.steps} steps, "
            f"{totals.accesses} accesses, {totals.reports} fault reports of {answering} judged by "
            f"{', '.join(self.judges)}: {self.divergences} divergences, {rate:.0f} steps/s"
        )


def run(args: argparse.Namespace) -> int:
    """Compare; return 1 when anything diverged."""
    _refuse_meaningless(args)
    for path in args.traces:
        _refuse_other_unit(args.unit, path)
    if args.unit == VTD:
        if args.traces:
            return max(diff_vtd.repeat(args, path) for path in args.traces)
        first = secrets.randbits(32) if args.seed is None else args.seed
        return diff_vtd.run(args, first) if QEMU in args.targets else diff_pair.run(args, first)
    return max(_given(args, path) for path in args.traces) if args.traces else _made_up(args)


def _refuse_meaningless(args: argparse.Namespace) -> None:
    """Raise HarnessError where an option would do nothing."""
    vtd, real = args.unit == VTD, QEMU in args.targets
    if args.traces and not real:
        raise HarnessError(_NEEDS_QEMU)
    if args.traces and args.seed is not None:
        raise HarnessError("--seed is for what is made up, not for a trace")
    if args.jobs > 1 and (not vtd or real):
        raise HarnessError("--jobs is for --unit vtd without qemu")
    if not vtd and (args.qemu or args.machine):
        raise HarnessError("--qemu and --machine are for --unit vtd")
    if not real and (args.qemu or args.program != PROGRAM or (vtd and not args.deviations)):
        raise HarnessError("--qemu, --program and --no-deviations need qemu among the targets")
    known = MACHINES if real else SIMULATED
    for name in args.machine or ():
        if name not in known:
            raise HarnessError(f"--machine {name}: here there are {', '.join(known)}")


def _refuse_other_unit(unit: str, path: Path) -> None:
    """Raise HarnessError for a trace of another kind of unit: nothing of it would be done."""
    with open_events(path) as source:
        kinds = {one.kind for one in source.header.units}
    if kinds and unit not in kinds:
        raise HarnessError(f"{path}: this is of another unit: --unit {min(kinds)}")


def _given(args: argparse.Namespace, path: Path) -> int:
    events = given.read(path)
    with _unit(args, endpoints_of(events)) as unit:
        assert isinstance(unit, Qemu)
        running = _Run(args, unit)
        start = time.perf_counter()
        for number, steps in enumerate(given.sequences(events, unit.unit)):
            running.sequence(number, steps)
        running.summary(time.perf_counter() - start, f"of {path}")
        return 1 if running.divergences else 0


def _made_up(args: argparse.Namespace) -> int:
    first = secrets.randbits(32) if args.seed is None else args.seed
    with _unit(args) as unit:
        running = _Run(args, unit)
        totals = running.differential.totals
        start, seed = time.perf_counter(), first
        hidden = args.quiet or args.json or not sys.stderr.isatty()
        with tqdm(total=args.steps, unit=" steps", leave=False, disable=hidden) as bar:
            while totals.steps < args.steps:
                before = totals.steps
                running.sequence(seed)
                seed += 1
                bar.update(totals.steps - before)
        running.summary(time.perf_counter() - start, f"from seed {first}")
        return 1 if running.divergences else 0
