"""`dmarewind fuzz`: build the instrumented core, run workers in the right environment, sum up."""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzzers import instrumented
from fuzzers.findings import Findings, Kept
from fuzzers.jobs import Job, Totals
from fuzzers.target import AGAINST, AS_ASKED, FuzzTarget, judged_by, target_named, target_names
from harness.errors import HarnessError
from harness.options import add_deviations
from harness.report import Report

BARE_AGAINST: Final = "; without, --against is qemu"
"""What is said of --no-deviations beside what it says elsewhere."""

_PAUSE = 0.2
_SHOWN_EVERY = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    names = ", ".join(target_names())
    parser.add_argument("name", metavar="NAME", help=f"what to fuzz: {names}, planted")
    parser.add_argument(
        "--against", choices=AGAINST, help="what the core is compared with (default: the first of"
        " what the target knows; none: nothing, and fastest)",
    )  # fmt: skip
    add_deviations(parser, BARE_AGAINST)
    parser.add_argument("--minutes", type=_minutes, default=1.0, help="default %(default)s")
    parser.add_argument("--jobs", type=_jobs, default=1, help="processes (default %(default)s)")
    parser.add_argument("--until-found", action="store_true", help="end when something was found")
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="inputs that reach something new; they stay"
    )
    parser.add_argument(
        "--findings", type=Path, metavar="DIR", help="where findings go (default findings/NAME)"
    )
    parser.epilog = "Words behind `--` are flags for libFuzzer, such as -max_len=64."


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1 << 20:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _jobs(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError("must be from 1 to 256")
    return value


def run(args: argparse.Namespace) -> int:
    """Fuzz; return 1 when something was found."""
    target = target_named(args.name)
    against = judged_by(args.against, deviations=args.deviations) or target.against[0]
    if against not in target.against:
        known = ", ".join(AS_ASKED.get(one, one) for one in target.against)
        asked = AS_ASKED.get(against, against)
        raise HarnessError(f"{target.name} cannot be compared with {asked}; it knows {known}")
    report = Report(args)
    instrumented.atheris_runtime()
    if instrumented.stale():
        if not args.quiet and not args.json:
            report.line("building the instrumented core")
        instrumented.build()
    built = instrumented.module()
    assert built is not None
    findings = Findings(args.findings or Path("findings") / target.name)
    known_before = {one.path for one in findings}
    with TemporaryDirectory(prefix="dmarewind-fuzz-") as scratch:
        corpus = args.corpus or Path(scratch) / "corpus"
        plant(target, corpus)
        words = write_dictionary(target, Path(scratch) / "words")
        flags = [f"-max_len={target.max_size}", *words, *args.passed]
        environment = instrumented.environment(built)
        jobs = [
            Job(
                *(target, against, corpus, findings, flags, environment),
                Path(scratch) / f"job{n}",
                bound=True,
            )
            for n in range(args.jobs)
        ]
        enough = _finding_beside(findings, known_before) if args.until_found else _never
        totals = _watch(jobs, time.monotonic() + 60 * args.minutes, enough, args, report)
        kept = len(list(corpus.iterdir()))
    found = [one for one in findings if one.path not in known_before]
    _summary(report, target, against, totals, kept, found)
    return 1 if found else 0


def _finding_beside(findings: Findings, known: Collection[Path]) -> Callable[[], bool]:
    return lambda: any(one.path not in known for one in findings)


def _never() -> bool:
    return False


def _watch(
    jobs: Sequence[Job],
    deadline: float,
    enough: Callable[[], bool],
    args: argparse.Namespace,
    report: Report,
) -> Totals:
    """Run until the deadline, or until it is enough; return what was done."""
    shown = began = time.monotonic()
    for job in jobs:
        job.start(deadline)
    try:
        while sum(job.poll(deadline) for job in jobs) and not enough():
            time.sleep(_PAUSE)
            now = time.monotonic()
            if now - shown >= _SHOWN_EVERY and not args.quiet:
                shown = now
                _status(report, Totals.of(jobs, now - began))
    finally:
        for job in jobs:
            job.stop()
    return Totals.of(jobs, time.monotonic() - began)


def _status(report: Report, totals: Totals) -> None:
    if report.json:
        report.emit(event="status", **totals.as_json())
    else:
        report.line(totals.text())


def _summary(
    report: Report,
    target: FuzzTarget,
    against: str,
    totals: Totals,
    corpus: int,
    found: Sequence[Kept],
) -> None:
    if report.json:
        for one in found:
            report.emit(event="finding", **one.as_json())
        report.emit(
            event="end", target=target.name, against=against, corpus=corpus,
            findings=len(found), **totals.as_json(),
        )  # fmt: skip
        return
    for one in found:
        report.line(f"{report.paint('found', 'red')} {one.signature}")
        report.line(f"      {one.path}")
    if not report.quiet:
        words = "nothing found" if not found else f"{len(found)} findings"
        report.line(f"{target.name} against {against}: {words}; {totals.text()}, {corpus} inputs")


def plant(target: FuzzTarget, corpus: Path) -> None:
    """Put the seeds of a target into a corpus."""
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        path = corpus / hashlib.sha1(data).hexdigest()
        if not path.exists():
            path.write_bytes(data)


def write_dictionary(target: FuzzTarget, path: Path) -> list[str]:
    """Write a target's words as libFuzzer takes them; return the flag that names the file."""
    lines = sorted({_quoted(word) for word in target.dictionary() if word})
    if not lines:
        return []
    path.write_text("\n".join(lines) + "\n")
    return [f"-dict={os.fspath(path)}"]


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'
