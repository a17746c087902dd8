"""The regress verb: replay everything that is kept; what is found has to be what is stated."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tqdm import tqdm

from decoders.errors import DecodeError
from decoders.events import Event
from harness.errors import HarnessError
from harness.files import replacing
from harness.junit import Test, document
from harness.kept import EXPECTED, TARGETS, Case, cases, fuzz_targets
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace
from harness.replay import EventLookup, replay
from harness.report import Report, trouble_with
from harness.signature import Signature, of_crash, of_finding
from harness.trace import Header

SECONDS: Final = 60.0
"""What a run may take, in seconds; more is said."""
_EXPECTED_LIMIT: Final = 1 << 20
_INPUT_LIMIT: Final = 16 << 20


def signatures(target: str, header: Header, events: Sequence[Event]) -> list[Signature]:
    """Return what a replay of some events finds.

    Errors: HarnessError where there is no such target, or the header names no unit.
    """
    return [one.signature for one in ReplayJudge(target)(Trace(header, tuple(events)))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: problem is empty when all is as stated.

    found is what a trace showed, None where it could not be replayed.
    """

    case: Case
    problem: str
    seconds: float
    found: tuple[Signature, ...] | None = None


Runners = dict[tuple[str, str], Callable[[bytes], object]]
"""What runs the inputs of a fuzz target, by its name and what it is compared with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind regress`."""
    parser.add_argument(
        "corpus", type=Path, metavar="CORPUS", help="directory of traces and of fuzzers' inputs"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"state in NAME{EXPECTED} what each trace shows that is not as stated, where model and"
        " native core agree",
    )


def run(args: argparse.Namespace) -> int:
    """Replay everything; return 1 when anything is not as stated."""
    if not args.corpus.is_dir():
        raise HarnessError(f"{args.corpus}: not a directory")
    start = time.perf_counter()
    kept = list(cases(args.corpus))
    if not kept:
        raise HarnessError(f"{args.corpus}: holds no traces and no inputs of fuzzers")
    hidden = args.quiet or args.json or not sys.stderr.isatty()
    runners: Runners = {}
    going = tqdm(kept, unit=" runs", leave=False, disable=hidden)
    outcomes = [_outcome(one, runners) for one in going]
    if args.write:
        written = set(_stated(outcomes))
        outcomes = [
            _outcome(one.case, runners) if one.case.path in written else one for one in outcomes
        ]
    seconds = time.perf_counter() - start
    if args.junit is not None:
        with replacing(args.junit) as draft:
            draft.write_bytes(document("dmarewind regress", [*map(_test, outcomes)], seconds))
    _print(Report(args), args, outcomes, seconds)
    return int(any(one.problem for one in outcomes))


# --- running -------------------------------------------------------------------------------------


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


def _outcome(case: Case, runners: Runners) -> Outcome:
    start = time.perf_counter()
    found = None
    try:
        if case.target in TARGETS:
            found, problem = _run_trace(case)
        else:
            problem = _run_input(case, runners)
    except (DecodeError, HarnessError, OSError) as error:
        problem = trouble_with(case.path, error).removeprefix(f"{case.path}: ")
    return Outcome(case, problem, time.perf_counter() - start, found)


def _run_trace(case: Case) -> tuple[tuple[Signature, ...], str]:
    """Return what a trace shows, and what of that is not as stated."""
    wanted = _expected(case.path)
    (result,) = replay(case.path, [case.target], quiet=True)
    event_at = EventLookup(case.path)
    found = dict.fromkeys(of_finding(one, event_at(one.event)) for one in result.findings)
    missing = [f"is missing: {one}" for one in wanted if one not in found]
    new = [f"is new: {one}" for one in found if one not in wanted]
    return tuple(found), "; ".join([*missing, *new])


def _stated(outcomes: Sequence[Outcome]) -> Iterator[Path]:
    """State what traces show that is not as stated; yield those on which all targets agree."""
    shown: dict[Path, list[tuple[Signature, ...] | None]] = {}
    wrong = {one.case.path for one in outcomes if one.problem and not one.case.against}
    for one in outcomes:
        if one.case.path in wrong:
            shown.setdefault(one.case.path, []).append(one.found)
    for path, found in shown.items():
        if found[0] is None or any(one is None or set(one) != set(found[0]) for one in found):
            continue
        beside = path.with_name(path.stem + EXPECTED)
        if found[0]:
            with replacing(beside) as draft:
                plain = [one.as_json() for one in found[0]]
                draft.write_text(json.dumps(plain, indent=1) + "\n")
        else:
            beside.unlink(missing_ok=True)
        yield path


def _run_input(case: Case, runners: Runners) -> str:
    """Run one input of a fuzz target; whatever it raises is what it was kept for."""
    if case.path.stat().st_size > _INPUT_LIMIT:
        raise HarnessError(f"more than {_INPUT_LIMIT} bytes")
    key = case.target, case.against
    if key not in runners:  # which may have a QEMU of its own
        fuzz = fuzz_targets()
        assert fuzz is not None
        runners[key] = fuzz.target_named(case.target).runner(case.against)
    try:
        runners[key](case.path.read_bytes())
    except HarnessError:
        raise
    except Exception as error:  # noqa: BLE001 -- a target's finding may be of any type
        signature = getattr(error, "signature", None)
        return str(signature or of_crash("".join(traceback.format_exception(error))))
    return ""


# --- saying what came of it ----------------------------------------------------------------------


def _test(outcome: Outcome) -> Test:
    case = outcome.case
    return Test(case.group or ".", f"{case.path.name} [{case}]", outcome.seconds, outcome.problem)


def _print(
    report: Report, args: argparse.Namespace, outcomes: Sequence[Outcome], seconds: float
) -> None:
    failed = [one for one in outcomes if one.problem]
    if report.json:
        for one in outcomes:
            report.emit(
                type="case", path=str(one.case.path), target=one.case.target,
                against=one.case.against, problem=one.problem, seconds=round(one.seconds, 3),
            )  # fmt: skip
        report.emit(
            type="summary", runs=len(outcomes), failed=len(failed), seconds=round(seconds, 3)
        )
        return
    for one in failed:
        report.line(f"{one.case.path} on {one.case}: {one.problem}")
    if report.quiet and not failed:
        return
    files = len({one.case.path for one in outcomes})
    slow = f", more than {SECONDS:.0f} s" if seconds > SECONDS else ""
    report.line(
        f"{files} files, {len(outcomes)} runs, {len(failed)} not as stated, {seconds:.1f} s{slow}"
    )
