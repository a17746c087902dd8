"""The command line: verbs and exit codes, nothing else.

0 all well; 1 a divergence or another finding; 2 the command could not do its work. 130 stands for
an interruption from the keyboard, 141 for a reader of the output that went away, and 129 or 143 for
a request to end (SIGHUP, SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import NoReturn

from decoders.errors import DecodeError
from harness.errors import HarnessError
from harness.report import trouble_with

VERBS: dict[str, tuple[str, str]] = {
    "record": ("harness.recording.record", "run a QEMU command line and record its IOMMU"),
    "convert": ("harness.convert", "turn logs into traces, traces into text and back"),
    "info": ("harness.info", "say what a trace is and where it comes from"),
    "stats": ("harness.stats", "count a trace's events by kind, device and time"),
    "show": ("harness.show", "print a trace's events, decoded and filtered"),
    "replay": ("harness.replay", "apply traces to targets and compare with what was recorded"),
    "diff": ("harness.diff", "make up what software could say, and compare targets' answers"),
    "check": ("harness.check.command", "say what the software of a trace did wrong"),
    "minimise": ("harness.minimise.command", "make a trace that shows a finding small"),
    "export": ("harness.export.command", "write a trace as a test, a script or a bug report"),
    "regress": ("harness.regress", "replay everything kept in a directory"),
    "fuzz": ("fuzzers.command", "run a fuzz target in the instrumented native core"),
    "campaign": ("fuzzers.campaign.command", "fuzz many targets for days, and lose nothing"),
    "completion": ("harness.completion", "print a script that completes command lines in a shell"),
}
"""Verbs: the module that does the work (loaded when it is asked for), and a summary."""

PASSING = frozenset({"fuzz"})
"""Verbs that pass on the words behind `--`."""

FINE, FINDING, TROUBLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
_SIGNALLED = 128
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def _common(*, top: bool) -> argparse.ArgumentParser:
    # Given before the verb or behind it: only the outer parser has defaults to set.
    parser = argparse.ArgumentParser(add_help=False)

    def default(value: object) -> object:
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("common options")
    for names, text in (
        (("-v", "--verbose"), "also show where in the program an error arose"),
        (("-q", "--quiet"), "print no summaries and no progress"),
        (("--json",), "print one JSON object a line"),
    ):
        group.add_argument(*names, action="store_true", default=default(False), help=text)
    group.add_argument(
        "--color",
        choices=("auto", "never"),
        default=default("auto"),
        help="colour text on a terminal (auto), or never",
    )
    return parser


def build_parser(chosen: Sequence[str] = tuple(VERBS)) -> argparse.ArgumentParser:
    """Return the parser; only the chosen verbs have their options, the others are listed."""
    parser = argparse.ArgumentParser(
        prog="dmarewind",
        description="Record what a machine says to its IOMMU, replay it, compare.",
        parents=[_common(top=True)],
        epilog="Exit codes: 0 all well, 1 something was found, 2 the command failed.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, (module, summary) in VERBS.items():
        verb = verbs.add_parser(
            name, help=summary, description=summary, parents=[_common(top=False)]
        )
        if name in chosen:
            importlib.import_module(module).add_arguments(verb)
    return parser


def _version() -> str:
    try:
        return metadata.version("dmarewind")
    except metadata.PackageNotFoundError:
        return "0"


def _completion(shell: str) -> int:
    from harness.completion import describe, script

    parser = build_parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    verbs = [describe(name, VERBS[name][1], verb) for name, verb in action.choices.items()]
    sys.stdout.write(script(shell, verbs))
    return FINE


def _run(args: argparse.Namespace) -> int:
    if args.verb == "completion":
        return _completion(args.shell)
    result: int = importlib.import_module(VERBS[args.verb][0]).run(args)
    return result


def _explain(error: DecodeError | HarnessError | OSError, args: argparse.Namespace) -> str:
    """Say what went wrong, about which file, and what to do."""
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}"
    if isinstance(error, HarnessError):
        return str(error)
    named = getattr(args, "trace", None) or getattr(args, "input", None)
    return trouble_with(named, error, hint=args.verb != "convert") if named else str(error)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """Let a request to end the program unwind it, so that no unfinished file stays behind."""
    mine = threading.current_thread() is threading.main_thread()
    numbers = [n for n in _ENDINGS if mine and signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(_SIGNALLED + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        # A stream that the caller closed: there is nobody to tell.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    # Loading every verb's module takes a second; the first word that names one is enough.
    chosen = [word for word in words if word in VERBS][:1]
    passed: list[str] = []
    if PASSING.intersection(chosen) and "--" in words:
        at = words.index("--")
        words, passed = words[:at], words[at + 1 :]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    args = build_parser(chosen).parse_args(words, argparse.Namespace(passed=passed))
    try:
        with _tidy_end():
            code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (DecodeError, HarnessError, OSError) as error:
        sys.stdout.flush()
        if args.verbose:
            traceback.print_exc()
        print(f"error: {_explain(error, args)}", file=sys.stderr)
        return TROUBLE
    return code
