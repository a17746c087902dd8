"""The export verb: write a trace as something that others run or read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.export.asked import ask
from harness.export.forms import program_of
from harness.export.program import PROGRAM, Command, Program
from harness.export.report import markdown, pytest_file
from harness.export.text import c_test, qtest_script, shell_script
from harness.files import is_same, replacing
from harness.findings import Finding
from harness.minimise.explanation import paragraph
from harness.minimise.judges import ReplayJudge, Shown
from harness.minimise.trace import Trace, read
from harness.report import Report
from harness.signature import of_crash
from harness.targets import REAL_TARGETS, target_names

FOR_IOCTLS = {"c": "a C program", "syz": "a syzkaller program"}
KINDS = ("pytest", "qtest", "qtest-c", *FOR_IOCTLS, "markdown")
MOST_EVENTS = 20_000
"""Events of what is exported: a script of more is of no use to anybody."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind export`."""
    parser.add_argument("trace", type=Path, metavar="T", help=".trace or text form")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=KINDS,
        required=True,
        help="pytest file; qtest commands for a plain QEMU (in a shell script where OUT ends in"
        " .sh); C test as QEMU has them; Markdown bug report; c and syz are for traces of ioctls",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file")
    parser.add_argument(
        "--target",
        choices=[name for name in target_names() if name not in REAL_TARGETS],
        default="native",
        help="whose findings are exported with it (default %(default)s)",
    )
    parser.add_argument(
        "--crash",
        metavar="TEXT",
        help="what QEMU said when it ended at this trace; comes before other findings",
    )
    parser.add_argument(
        "--ask",
        nargs="?",
        const=PROGRAM,
        metavar="PROGRAM",
        help="run the commands on a QEMU and put what it answers, or how it ends, beside what is"
        " expected (default %(const)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Export; return 0.

    Errors: HarnessError for what a form cannot hold.
    """
    if args.kind in FOR_IOCTLS:
        raise HarnessError(
            f"--as {args.kind}: {FOR_IOCTLS[args.kind]} makes ioctls, and this trace is about"
            " registers and memory of an IOMMU; --as qtest shows it to a QEMU"
        )
    if is_same(args.output, args.trace):
        raise HarnessError(f"{args.output}: is the input; name another OUT")
    trace = read(args.trace)
    if len(trace.events) > MOST_EVENTS:
        raise HarnessError(
            f"{args.trace}: {len(trace.events)} events, the most that are exported is"
            f" {MOST_EVENTS}; `dmarewind minimise` makes it smaller"
        )
    for option, value in (("--crash", args.crash), ("--ask", args.ask)):
        if value is not None and args.kind == "pytest":
            raise HarnessError(
                f"{option}: a pytest file replays on model and native core, not on QEMU"
            )
    shown = ReplayJudge(args.target)(trace)
    program = None if args.kind == "pytest" else program_of(trace, _finding(shown))
    crash = args.crash
    if program is not None and args.ask is not None:
        asked = ask(program, args.ask)
        program.asked = f"{asked.name} {asked.died}" if asked.died else f"{asked.name} was asked"
        crash = asked.died or crash
    if crash is not None:
        shown.insert(0, Shown(of_crash(crash)))
    text = _text(args, trace, shown, program)
    with replacing(args.output) as draft:
        draft.write_text(text, encoding="utf-8")
        if args.output.suffix == ".sh":
            draft.chmod(0o755)
    _print(Report(args), args, trace, shown, program)
    return 0


def _finding(shown: Sequence[Shown]) -> Finding | None:
    return shown[0].finding if shown else None


def _text(
    args: argparse.Namespace, trace: Trace, shown: Sequence[Shown], program: Program | None
) -> str:
    name = args.output.stem
    first = shown[0] if shown else None
    about = f"{first.signature.key}: {first.signature}\n{paragraph(first, trace)}" if first else ""
    if program is None:
        return pytest_file(trace, shown, name.removeprefix("test_"))
    if args.kind == "qtest-c":
        return c_test(program, about, name.removesuffix("-test"))
    if args.kind == "markdown":
        return markdown(trace, first, program, shell_script(program, ""))
    return (shell_script if args.output.suffix == ".sh" else qtest_script)(program, about)


def _print(
    report: Report,
    args: argparse.Namespace,
    trace: Trace,
    shown: Sequence[Shown],
    program: Program | None,
) -> None:
    left_out = program.left_out if program else {}
    if report.json:
        report.emit(
            type="exported", input=str(args.trace), output=str(args.output), form=args.kind,
            events=len(trace.events), signatures=[one.signature.as_json() for one in shown],
            left_out=left_out, asked=program.asked if program else "",
            answers=[
                {"command": one.line, "answer": one.answer, "expected": one.as_expected}
                for one in _answered(program)
            ],
        )  # fmt: skip
        return
    if report.quiet:
        return
    findings = f"{len(shown)} finding{'' if len(shown) == 1 else 's'}"
    report.line(f"{args.trace} -> {args.output}: {len(trace.events)} events, {findings}")
    for what, count in left_out.items():
        report.line(report.paint(f"left out: {what} ({count})", "yellow"))
    if program is not None and program.asked:
        wrong = sum(one.as_expected is False for one in _answered(program))
        wanted = sum(one.expected is not None for one in program.commands)
        said = f"; {wrong} of {wanted} answers are not as expected" if wanted else ""
        report.line(f"{program.asked}{said}")


def _answered(program: Program | None) -> list[Command]:
    return [one for one in program.commands if one.answer is not None] if program else []
