"""The regress verb: replay everything that is kept; what is found has to be what is stated."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast
from xml.etree import ElementTree

from tqdm import tqdm

from decoders.errors import DecodeError
from decoders.events import Event
from harness.errors import HarnessError
from harness.files import replacing
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace
from harness.replay import EventLookup, replay
from harness.report import Report, trouble_with
from harness.signature import Signature, of_crash, of_finding
from harness.trace import Header, detect

TRACES: Final = frozenset({".trace", ".txt"})
TARGETS: Final = ("model", "native")
EXPECTED: Final = ".expected.json"
"""Ends the name of a file beside a trace that lists the signatures of its findings."""
SECONDS: Final = 60.0
"""What a run may take, in seconds; more is said."""
FUZZ_TARGETS: Final = "fuzzers.target"
"""Module that knows the fuzz targets; loaded where a directory is named after one."""
_EXPECTED_LIMIT: Final = 1 << 20
_INPUT_LIMIT: Final = 16 << 20
_HEAD: Final = 64


def signatures(target: str, header: Header, events: Sequence[Event]) -> list[Signature]:
    """Return what a replay of some events finds.

    Errors: HarnessError where there is no such target, or the header names no unit.
    """
    return [one.signature for one in ReplayJudge(target)(Trace(header, tuple(events)))]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to run: a file on a target; group is the directory it is in."""

    path: Path
    group: str
    target: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: problem is empty when all is as stated."""

    case: Case
    problem: str
    seconds: float


class FuzzTargets(Protocol):
    """What is needed of the module that knows the fuzz targets."""

    def target_names(self) -> Sequence[str]:
        """Return the names of the targets."""
        ...

    def target_named(self, name: str) -> Any:
        """Return a target: `against` begins with its default, `runner()` makes what runs one."""
        ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind regress`."""
    parser.add_argument(
        "corpus", type=Path, metavar="CORPUS", help="directory of traces and of fuzzers' inputs"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML")


def run(args: argparse.Namespace) -> int:
    """Replay everything; return 1 when anything is not as stated."""
    if not args.corpus.is_dir():
        raise HarnessError(f"{args.corpus}: not a directory")
    start = time.perf_counter()
    cases = list(_cases(args.corpus))
    if not cases:
        raise HarnessError(f"{args.corpus}: holds no traces and no inputs of fuzzers")
    hidden = args.quiet or args.json or not sys.stderr.isatty()
    outcomes = [_outcome(one) for one in tqdm(cases, unit=" runs", leave=False, disable=hidden)]
    seconds = time.perf_counter() - start
    if args.junit is not None:
        with replacing(args.junit) as draft:
            draft.write_bytes(_junit(outcomes, seconds))
    _print(Report(args), args, outcomes, seconds)
    return int(any(one.problem for one in outcomes))


# --- what there is to run ------------------------------------------------------------------------


def _cases(corpus: Path) -> Iterator[Case]:
    """Yield what a directory holds: traces on each target, other files on their fuzz target."""
    fuzz = _fuzz_targets()
    names = frozenset(fuzz.target_names()) if fuzz else frozenset()
    for path in sorted(corpus.rglob("*")):
        if not path.is_file() or path.name.endswith(EXPECTED) or path.name.startswith("."):
            continue
        group = path.parent.name
        named = path.suffix in TRACES
        if group in names and not (named and _begins_as_trace(path)):
            yield Case(path, group, group)
        elif named:
            for target in TARGETS:
                yield Case(path, str(path.parent.relative_to(corpus)), target)


def _begins_as_trace(path: Path) -> bool:
    """Say whether a file whose name is that of a trace is one, and no input of a fuzzer."""
    with path.open("rb") as stream:
        return detect(stream.read(_HEAD)) is not None


def _fuzz_targets() -> FuzzTargets | None:
    """Return the module of the fuzz targets, which is not part of every installation."""
    try:
        found = importlib.util.find_spec(FUZZ_TARGETS)
    except ModuleNotFoundError:
        return None
    return cast(FuzzTargets, importlib.import_module(FUZZ_TARGETS)) if found else None


def _expected(path: Path) -> list[Signature]:
    """Return the signatures that are stated beside a trace; none where nothing is.

    Errors: DecodeError.
    """
    beside = path.with_name(path.stem + EXPECTED)
    if not beside.exists():
        return []
    with beside.open("rb") as stream:
        text = stream.read(_EXPECTED_LIMIT + 1)
    if len(text) > _EXPECTED_LIMIT:
        raise DecodeError(beside.name, f"has more than {_EXPECTED_LIMIT} bytes")
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(beside.name, f"is not JSON ({error})") from error
    if not isinstance(plain, list):
        raise DecodeError(beside.name, "is not a list of signatures")
    return [Signature.from_json(one, f"{beside.name}[{n}]") for n, one in enumerate(plain)]


# --- running -------------------------------------------------------------------------------------


def _outcome(case: Case) -> Outcome:
    start = time.perf_counter()
    try:
        problem = _run_trace(case) if case.target in TARGETS else _run_input(case)
    except (DecodeError, HarnessError, OSError) as error:
        problem = trouble_with(case.path, error).removeprefix(f"{case.path}: ")
    return Outcome(case, problem, time.perf_counter() - start)


def _run_trace(case: Case) -> str:
    wanted = _expected(case.path)
    (result,) = replay(case.path, [case.target], quiet=True)
    event_at = EventLookup(case.path)
    found = dict.fromkeys(of_finding(one, event_at(one.event)) for one in result.findings)
    missing = [f"is missing: {one}" for one in wanted if one not in found]
    return "; ".join([*missing, *(f"is new: {one}" for one in found if one not in wanted)])


def _run_input(case: Case) -> str:
    """Run one input of a fuzz target; whatever it raises is what it was kept for."""
    fuzz = _fuzz_targets()
    assert fuzz is not None
    if case.path.stat().st_size > _INPUT_LIMIT:
        raise HarnessError(f"more than {_INPUT_LIMIT} bytes")
    target = fuzz.target_named(case.target)
    runner = target.runner(target.against[0])
    try:
        runner(case.path.read_bytes())
    except HarnessError:
        raise
    except Exception as error:  # noqa: BLE001 -- a target's finding may be of any type
        signature = getattr(error, "signature", None)
        return str(signature or of_crash("".join(traceback.format_exception(error))))
    return ""


# --- saying what came of it ----------------------------------------------------------------------


def _junit(outcomes: Sequence[Outcome], seconds: float) -> bytes:
    failed = sum(bool(one.problem) for one in outcomes)
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        suites, "testsuite", name="dmarewind regress", tests=str(len(outcomes)),
        failures=str(failed), errors="0", time=f"{seconds:.3f}",
    )  # fmt: skip
    for one in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_printable(one.case.group or "."),
            name=_printable(f"{one.case.path.name} [{one.case.target}]"),
            time=f"{one.seconds:.3f}",
        )  # fmt: skip
        if one.problem:
            text = _printable(one.problem)
            ElementTree.SubElement(case, "failure", message=text[:200]).text = text
    whole: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return whole


def _printable(text: str) -> str:
    """Return a text that XML can hold."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _print(
    report: Report, args: argparse.Namespace, outcomes: Sequence[Outcome], seconds: float
) -> None:
    failed = [one for one in outcomes if one.problem]
    if report.json:
        for one in outcomes:
            report.emit(
                type="case", path=str(one.case.path), target=one.case.target,
                problem=one.problem, seconds=round(one.seconds, 3),
            )  # fmt: skip
        report.emit(
            type="summary", runs=len(outcomes), failed=len(failed), seconds=round(seconds, 3)
        )
        return
    for one in failed:
        report.line(f"{one.case.path} on {one.case.target}: {one.problem}")
    if report.quiet and not failed:
        return
    files = len({one.case.path for one in outcomes})
    slow = f", more than {SECONDS:.0f} s" if seconds > SECONDS else ""
    report.line(
        f"{files} files, {len(outcomes)} runs, {len(failed)} not as stated, {seconds:.1f} s{slow}"
    )
