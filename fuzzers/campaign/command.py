"""`dmarewind campaign`: fuzz many targets for as long as it takes, in a directory."""

from __future__ import annotations

import argparse
import math
import sqlite3
import time
from pathlib import Path

from fuzzers import instrumented
from fuzzers.campaign.covering import cover
from fuzzers.campaign.engine import Campaign, Options
from fuzzers.campaign.executors import executor_for
from fuzzers.campaign.files import CORPUS, is_full
from fuzzers.campaign.state import DATABASE, State, alone
from fuzzers.campaign.status import Teller
from fuzzers.command import BARE_AGAINST
from fuzzers.target import AGAINST, AS_ASKED, judged_by, target_named, target_names
from harness.errors import HarnessError
from harness.options import add_deviations
from harness.report import Report

_SLICE: float = 45.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind campaign`."""
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="where everything is kept; it may be there"
    )
    parser.add_argument(
        "--workers", type=_number, metavar="N",
        help="slices at the same time (default 1; of a cluster, as many as it has threads)",
    )  # fmt: skip
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786"
    )
    parser.add_argument(
        "--minutes", type=_positive, default=math.inf, help="for how long (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--targets", metavar="NAME,...", default=",".join(target_names()),
        help="what is fuzzed (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--against", choices=AGAINST, help="what the core is compared with (default: the first of"
        " what each target knows; targets that do not know it are left out)",
    )  # fmt: skip
    add_deviations(parser, BARE_AGAINST)
    parser.add_argument(
        "--slice", type=_positive, default=_SLICE, metavar="SECONDS",
        help="how long one process fuzzes before its inputs are shared (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--coverage", type=Path, metavar="OUT",
        help="fuzz nothing; write pages that show which lines of the core and of the Python code"
        " the inputs in DIR run",
    )  # fmt: skip


def _number(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError("must be from 1 to 256")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1 << 24:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def run(args: argparse.Namespace) -> int:
    """Run a campaign; return 1 when it saw findings that are not known."""
    targets = chosen(args.targets, judged_by(args.against, deviations=args.deviations))
    if args.coverage is not None:
        cover(
            args.directory / CORPUS, list(targets), args.coverage, 60 * args.minutes, Report(args)
        )
        return 0
    with alone(args.directory):
        state = _opened(args.directory)
        try:
            teller = Teller(args, args.directory, list(targets))
            if args.scheduler is None and instrumented.stale():
                teller.building()
            executor = executor_for(args.scheduler, args.directory, state.files.work, args.workers)
            deadline = time.monotonic() + 60 * args.minutes
            options = Options(targets, args.slice, deadline)
            campaign = Campaign(state, executor, options, teller)
            try:
                campaign.run()
            finally:
                teller.end(state, len(campaign.found))
            return int(bool(campaign.found))
        finally:
            state.close()


def chosen(names: str, against: str | None) -> dict[str, str]:
    """Return targets with what they are compared with. Errors: HarnessError when none is left."""
    made = {}
    wanted = dict.fromkeys(filter(None, names.split(",")))
    if not wanted:
        raise HarnessError(f"--targets {names!r} names none; there are {', '.join(target_names())}")
    for name in wanted:
        target = target_named(name)
        if against is None or against in target.against:
            made[name] = against or target.against[0]
    if not made:
        asked = AS_ASKED.get(str(against), against)
        raise HarnessError(f"none of {', '.join(wanted)} can be compared with {asked}")
    return made


def _opened(directory: Path) -> State:
    try:
        return State(directory)
    except (OSError, sqlite3.Error) as error:
        if is_full(error):
            raise HarnessError(f"{directory}: no room to begin: {error}") from error
        if isinstance(error, OSError):
            raise
        raise HarnessError(f"{directory / DATABASE}: {error}") from error
