"""The diff verb for VT-d without a QEMU: the model and the native core, in step, on many cores."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tqdm import tqdm

from harness.differential.in_step import Difference, InStep, Totals, header, shrunk
from harness.errors import HarnessError
from harness.files import replacing
from harness.generate.vtd_machines import MACHINES
from harness.native import core
from harness.qemu.process import die_with_parent
from harness.report import Report
from harness.trace import write_text

SEQUENCE: Final = 80
"""Steps of a sequence: each has a machine of its own."""

_CHUNK: Final = 25
"""Sequences that a process is given at a time."""

ENOUGH: Final = 20
"""Differences after which a run ends: more would say the same."""

Found = tuple[Totals, list[Difference]]


def run(args: argparse.Namespace, first: int) -> int:
    """Compare; return 1 when anything differed."""
    core()  # says how to build it
    machines: Sequence[str] = args.machine or tuple(MACHINES)
    sequences = -(-args.steps // SEQUENCE)
    report, totals = Report(args), Totals()
    differences, start = 0, time.perf_counter()
    hidden = args.quiet or args.json or not sys.stderr.isatty()
    results = _results(args.jobs, machines, first, sequences)
    try:
        with (
            closing(results),
            tqdm(total=args.steps, unit=" steps", leave=False, disable=hidden) as bar,
        ):
            for counted, found in results:
                totals.add(counted)
                bar.update(counted.steps)
                for difference in found:
                    differences += 1
                    _show(report, args.keep, difference)
                if differences >= ENOUGH:
                    break
    finally:  # also of a run that is interrupted, or has lost a process
        _summary(report, totals, differences, first, time.perf_counter() - start)
    return int(bool(differences))


def _results(
    jobs: int, machines: Sequence[str], first: int, sequences: int
) -> Generator[Found, None, None]:
    """Yield what each part of a run found, in order.

    Errors: HarnessError when a process died.
    """
    work = partial(_part, machines)
    parts = [
        (seed, min(seed + _CHUNK, first + sequences))
        for seed in range(first, first + sequences, _CHUNK)
    ]
    if jobs == 1:
        yield from map(work, parts)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin_process, (os.getpid(),)) as pool:
        results = [pool.submit(work, part) for part in parts]
        try:
            for result in results:
                yield result.result()
        except BrokenProcessPool as error:
            # They are begun in order, so it is one of the first that have not ended.
            ended = [one.done() and one.exception() is None for one in results]
            open_parts = [part for part, end in zip(parts, ended, strict=True) if not end]
            named = ", ".join(f"{start}-{end - 1}" for start, end in open_parts[:jobs])
            raise HarnessError(
                f"a process died in the sequences of one of the seeds {named}; --jobs 1 with "
                "--seed shows which"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_process(parent: int) -> None:
    """Let a process end with its parent, and without a word when it is interrupted."""
    die_with_parent()
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _part(machines: Sequence[str], seeds: tuple[int, int]) -> Found:
    """Run the sequences of some seeds; what they show is shrunk where it was found."""
    running = InStep(SEQUENCE, machines)
    found = []
    for seed in range(*seeds):
        difference = running.run(seed)
        if difference is not None:
            found.append(shrunk(difference))
    return running.totals, found


def _show(report: Report, folder: Path | None, found: Difference) -> None:
    kept = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{found.machine}-{found.seed}.txt"
        with replacing(kept) as draft:
            write_text(draft, header(found.config), found.events)
    one = found.disagreement
    if report.json:
        report.emit(
            type="difference", seed=found.seed, step=found.step, machine=found.machine,
            event=one.event, what=one.what, model=str(one.model), native=str(one.native),
            trace=kept and str(kept),
        )  # fmt: skip
        return
    report.heading(f"seed {found.seed}, step {found.step}, machine {found.machine}")
    report.line(str(one))
    report.line(f"  shrunk to   {len(found.events)} events")
    if kept is not None:
        report.line(f"  kept        {kept}")


def _summary(report: Report, totals: Totals, differences: int, first: int, seconds: float) -> None:
    """Print what was met, and one line."""
    rate = totals.steps / seconds if seconds else 0.0
    counters = {
        "machines": totals.machines, "steps": totals.labels, "translated": totals.ways,
        "outcomes": totals.outcomes, "seen": totals.seen,
    }  # fmt: skip
    if report.json:
        report.emit(
            type="summary", unit="vtd", answering="the model", seed=first,
            sequences=totals.sequences, steps=totals.steps, events=totals.events,
            accesses=totals.accesses, differences=differences, seconds=round(seconds, 3),
            rate=round(rate),
            met={name: dict(sorted(counter.items())) for name, counter in counters.items()},
        )  # fmt: skip
        return
    if not report.quiet:
        for name, counter in counters.items():
            report.heading(name)
            report.table((count, what) for what, count in sorted(counter.items()))
        report.line()
    report.line(
        f"{totals.sequences} sequences from seed {first}, {totals.steps} steps, {totals.events} "
        f"events, {totals.accesses} accesses, model and native in step: {differences} "
        f"differences, {rate:.0f} steps/s"
    )
