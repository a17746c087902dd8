"""The minimise verb: make a trace that shows a finding small, and explain the finding."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tqdm import tqdm

from harness.errors import HarnessError
from harness.export.forms import FORMS, form_of, write
from harness.files import is_same, replacing
from harness.minimise.diff_judge import DiffJudge
from harness.minimise.engine import ATTEMPTS, DEFAULT_BUDGET, Options, Result, minimise
from harness.minimise.explanation import paragraph
from harness.minimise.judges import (
    SCRIPT_SECONDS,
    DisagreementJudge,
    Judge,
    QemuJudge,
    ReplayJudge,
    ScriptJudge,
)
from harness.minimise.trace import Trace, read
from harness.options import add_deviations, number_of_things, seconds
from harness.qemu.pc import PROGRAM
from harness.report import Report
from harness.targets import REAL_TARGETS, target_names

DISAGREEING: Final = "pair"
"""Name of the judge that compares the model with the native core."""
DIFFERING: Final = DiffJudge.name
"""Name of the judge that does on a QEMU what the trace does, as `dmarewind diff` does."""
STATE_SUFFIX: Final = ".state"
CANDIDATE: Final = "candidate"
"""Name of the file that a script is given, without what says its form."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind minimise`."""
    parser.add_argument("trace", type=Path, metavar="T", help=".trace or text form")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help=f"what is left; its name ends in {', '.join(FORMS)} and says which form it gets",
    )  # fmt: skip
    judges = parser.add_mutually_exclusive_group()
    judges.add_argument(
        "--target",
        choices=(*target_names(), DISAGREEING, DIFFERING),
        default="native",
        help=f"whose finding it is (default native); {DISAGREEING}: model and native disagree;"
        f" {DIFFERING}: what `dmarewind diff --unit vtd` shows on a QEMU",
    )
    judges.add_argument(
        "--test",
        type=Path,
        metavar="SCRIPT",
        help="program that exits with 0 while the file it is given is still interesting",
    )
    parser.add_argument(
        "--form",
        default=".qtest",
        choices=tuple(FORMS),
        help="form of the file that SCRIPT is given (default %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=SCRIPT_SECONDS,
        metavar="S",
        help="what SCRIPT may take; longer is not interesting (default %(default)s)",
    )
    parser.add_argument(
        "--signature",
        default="",
        metavar="KEY",
        help="which finding to keep, by the beginning of its key (default: the first)",
    )
    parser.add_argument(
        "--loose",
        action="store_true",
        help="let the result show findings that T does not, if that makes it smaller",
    )
    parser.add_argument(
        "--budget",
        type=number_of_things,
        default=DEFAULT_BUDGET,
        metavar="RUNS",
        help="runs of the target (default %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=number_of_things,
        default=1,
        metavar="N",
        help="scripts or machines that run beside each other (default %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=number_of_things,
        default=ATTEMPTS,
        metavar="N",
        help="runs that tell how often the finding shows, where that may differ"
        " (default %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help=f"verdicts so far: a run that was killed goes on (default OUT{STATE_SUFFIX})",
    )
    parser.add_argument(
        "--program",
        default=PROGRAM,
        metavar="FILE",
        help="the QEMU that the targets qemu and diff run (default %(default)s)",
    )
    add_deviations(parser, f" (target {DIFFERING})")


def run(args: argparse.Namespace) -> int:
    """Minimise; return 0."""
    form_of(args.output)
    if args.jobs < 1 or args.attempts < 1:
        raise HarnessError("--jobs and --attempts begin at 1")
    if not args.deviations and args.target != DIFFERING:
        raise HarnessError(f"--no-deviations is for --target {DIFFERING}")
    trace = read(args.trace)
    state = args.state or args.output.with_name(args.output.name + STATE_SUFFIX)
    _keep_apart(state, args)
    jobs = args.jobs if args.test or args.target in REAL_TARGETS else 1
    options = Options(args.budget, jobs, args.attempts, args.signature, args.loose, state)
    hidden = args.quiet or args.json or not sys.stderr.isatty()
    with tqdm(total=args.budget, unit=" runs", leave=False, disable=hidden) as bar:

        def told(runs: int, events: int) -> None:
            bar.set_postfix_str(f"{events} events", refresh=False)
            bar.update(runs - bar.n)

        with ExitStack() as stack:
            result = minimise(trace, _judge(args, stack), options, told)
    with replacing(args.output) as draft:
        write(draft, args.output.suffix, result.trace)
    if result.complete:
        state.unlink(missing_ok=True)
    _print(Report(args), args, result, state)
    return 0


def _keep_apart(state: Path, args: argparse.Namespace) -> None:
    """Refuse verdicts in a file that is something else, and a result in place of the input.

    Verdicts are removed in the end.
    """
    for path, what in ((args.trace, "the input"), (args.output, "OUT"), (args.test, "SCRIPT")):
        if path is not None and is_same(state, path):
            raise HarnessError(f"{state}: is {what}; name another --state")
    for path, what in ((args.trace, "the input"), (args.test, "SCRIPT")):
        if path is not None and is_same(args.output, path):
            raise HarnessError(f"{args.output}: is {what}; name another OUT")


def _judge(args: argparse.Namespace, stack: ExitStack) -> Judge:
    if args.test is not None:

        def put(path: Path, trace: Trace) -> None:
            write(path, args.form, trace)

        return ScriptJudge(args.test, CANDIDATE + args.form, put, args.seconds)
    if args.target == DISAGREEING:
        return DisagreementJudge()
    if args.target == DIFFERING:
        return stack.enter_context(DiffJudge(args.program, deviations=args.deviations))
    if args.target in REAL_TARGETS:
        return stack.enter_context(QemuJudge(args.program))
    return ReplayJudge(args.target)


def _print(report: Report, args: argparse.Namespace, result: Result, state: Path) -> None:
    name = str(args.test) if args.test else args.target
    before, after = result.before, result.trace
    if report.json:
        report.emit(
            type="minimised", input=str(args.trace), output=str(args.output), judge=name,
            before=len(before.events), after=len(after.events),
            bytes_before=before.order[1], bytes_after=after.order[1], runs=result.runs,
            complete=result.complete, signature=result.target.as_json(),
            shown=[result.last.shown, result.last.runs], cause=paragraph(result.shown, after),
        )  # fmt: skip
        return
    if report.quiet:
        return
    report.line(
        f"{args.trace} -> {args.output}: {len(before.events)} events became {len(after.events)}, "
        f"{before.order[1]} bytes {after.order[1]}; {result.runs} runs of {name}"
    )
    report.line(f"signature {result.target.key}: {result.target}")
    if result.last.runs > 1:
        report.line(f"shows in {result.last} runs ({result.first} before)")
    if not result.complete:
        report.line(f"the budget is spent: a larger --budget goes on from {state}")
    report.line()
    report.line(paragraph(result.shown, after))
