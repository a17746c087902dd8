"""What a search on a real QEMU finds that nobody has told it of, beside the list of known bugs.

    python -m tools.bench rediscover [--program QEMU] [--seconds N] [--keep DIR]

The search (fuzzers.rediscovery) begins with no input and knows no deviation and no crash. Each
finding is minimised and exported as a script, which is run with a plain QEMU. Only then is it held
against the rows of harness.deviations_vtd, to see which bug it is.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from decoders.events import Access, InterruptRequest, RegWrite, Store
from fuzzers.rediscovery import Finding, Rediscovery
from harness.deviations_vtd import CRASHES, DEVIATIONS, known_crash, without_each
from harness.differential.bare import Bare
from harness.differential.deviation import VtdDeviation
from harness.differential.evidence import reproduces
from harness.differential.follow import judged
from harness.differential.machine import unit_config
from harness.differential.naming import signature
from harness.differential.vtd import JUDGED, MODEL, Differential, Divergence
from harness.errors import HarnessError
from harness.files import replacing
from harness.model.dialects import SPECIFICATION, Dialect, dialect_named
from harness.qemu.process import LOST
from harness.qemu.vtd import MACHINES, VtdQemu
from harness.trace import write_text

STEPS: Final = 24
"""Steps between two resets of the machine."""
SECONDS: Final = 600.0
MOST_EVENTS: Final = 12
_AT_ONCE: Final = 8
"""Scripts that run beside each other: each waits for most of its time."""

_COMMITS: Final = re.compile(r"\b[0-9a-f]{10,40}\b")
_ASKED: Final = (Store, RegWrite, Access, InterruptRequest)


@dataclass(slots=True)
class Row:
    """Hold a finding, the bug that it is (empty: none that is known), and whether it reproduces."""

    finding: Finding
    bug: str
    reproduces: bool | None

    @property
    def asked(self) -> int:
        """Return how many events are what software and devices do."""
        return sum(isinstance(event, _ASKED) for event in self.finding.events)


def public() -> dict[str, str]:
    """Return the commits of bugs that have been fixed, by the ids of their rows."""
    found = {row.id: row.fixed for row in DEVIATIONS if row.fixed}
    for crash in CRASHES:
        commits = _COMMITS.findall(crash.what)
        if commits:
            found[crash.id] = ", ".join(commits)
    return found


def main(argv: Sequence[str]) -> int:
    """Search, evaluate and print; return 1 when a bug that the version has was not found."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench rediscover", description=__doc__)
    parser.add_argument("--program", default="qemu-system-x86_64", help="default %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="processor time here (default %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="by the clock, at most (default: no limit)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first sequence")
    parser.add_argument("--machine", action="append", choices=list(MACHINES))
    parser.add_argument("--keep", type=Path, default=Path("rediscovered"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args(argv)
    if not (args.seconds > 0 and args.minutes > 0):
        parser.error("--seconds and --minutes are above 0")
    try:
        return _search(args)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _search(args: argparse.Namespace) -> int:
    # What a device with a TLB does no script can show: its backend is here.
    plain = [name for name, words in MACHINES.items() if "device-iotlb" not in words]
    with ExitStack() as stack:
        machines = [
            Bare(stack.enter_context(VtdQemu(name, args.program)), STEPS)
            for name in args.machine or plain
        ]
        version = machines[0].qemu.version
        search = Rediscovery(machines)
        deadline = time.monotonic() + 60 * args.minutes
        seed = args.seed
        # What was found until it is interrupted counts.
        with suppress(KeyboardInterrupt):
            while search.seconds < args.seconds and time.monotonic() < deadline:
                before = search.sequences
                found = search.go_on(seed)
                seed += search.sequences - before
                if found is not None:
                    _tell(found, len(search.findings))
        search.merge()
        spent = search.seconds
        for machine in machines:
            machine.qemu.restart()
        rows = list(_rows(search, args.keep, args.program))
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    _print(args, rows, version, search, (spent, children.ru_utime + children.ru_stime))
    return int(any(not _of(rows, bug) for bug in expected(version)))


def _tell(found: Finding, count: int) -> None:
    print(f"{found.seconds:6.0f} s {count:4} {found.name}", file=sys.stderr, flush=True)


def expected(version: tuple[int, ...]) -> list[str]:
    """Return the ids of the bugs that a version has."""
    has = {row.id for row in DEVIATIONS if row.concerns(version)}
    has |= {crash.id for crash in CRASHES if version[: len(crash.last)] <= crash.last}
    return [bug for bug in public() if bug in has]


# -- evaluation -----------------------------------------------------------------------------------


def _rows(search: Rediscovery, keep: Path, program: str) -> Iterator[Row]:
    """Keep each finding as a trace and a script, run the script, and say which bug it is."""
    keep.mkdir(parents=True, exist_ok=True)
    findings = sorted(search.findings.values(), key=lambda one: one.sequences)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        runs = [pool.submit(_kept, found, keep, program) for found in findings]
        for found, run in zip(findings, runs, strict=True):
            yield Row(found, attributed(found), run.result())


def _kept(found: Finding, keep: Path, program: str) -> bool | None:
    script = keep / f"{found.name.key}.sh"
    with replacing(keep / f"{found.name.key}.txt") as draft:
        write_text(draft, found.bare.header, found.events)
    with replacing(script) as draft:
        draft.write_text(found.reproducer.script)
    return reproduces(script, found.reproducer, program)


def attributed(found: Finding) -> str:
    """Return the id of the row that a finding goes back to, empty where there is none.

    It is one that is enough for it. Where that takes several, it is the one that changes what the
    specification permits there: the others say where the unit goes from there on.
    """
    qemu, divergence = found.bare.qemu, found.shown.divergence
    if divergence is None:
        crash = known_crash(found.shown.ended, qemu.version)
        return crash.id if crash else ""
    own = dialect_named("qemu-{}.{}".format(*qemu.version))
    judge = Differential(qemu, (MODEL,), STEPS, own, SPECIFICATION)
    try:
        done = judge.run(0, found.life.steps, found.life.slot)
    except LOST:
        qemu.restart()
        return ""
    subject = divergence.finding.subject
    done.sort(key=lambda one: (one.step != found.shown.step, one.finding.subject != subject))
    there = [one for one in done if one.step == found.shown.step]
    there = [one for one in there if signature(one) == found.shown.signature] or there
    rows = [(row, _with_only(row, own)) for row, _ in without_each(own) if row.members]
    for one in there:
        before = _permitted(qemu, SPECIFICATION, one)
        if before is None:
            continue  # it is about what no trace says
        now = [(row.id, _permitted(qemu, dialect, one)) for row, dialect in rows]
        for enough in (True, False):
            for name, permitted in now:
                if permitted is None if enough else permitted != before:
                    return name
    known = (judge.deviation(one) for one in there)
    return next((row.id for row in known if row is not None), "")


def _with_only(row: VtdDeviation, own: Dialect) -> Dialect:
    """Return the specification with one row of a dialect."""
    return replace(SPECIFICATION, **{name: getattr(own, name) for name in row.members})


def _permitted(qemu: VtdQemu, dialect: Dialect, found: Divergence) -> object:
    """Return what a unit that follows a dialect may do where another did that; None: the same."""
    same = found.finding.event, found.finding.subject
    seen = judged(MODEL, found.events, unit_config(qemu, dialect))
    there = (one for one in seen if one.kind in JUDGED and (one.event, one.subject) == same)
    return next((one.permitted for one in there), None)


def _of(rows: Sequence[Row], bug: str) -> list[Row]:
    return [row for row in rows if row.bug == bug]


# -- what is printed ------------------------------------------------------------------------------


def _print(
    args: argparse.Namespace,
    rows: Sequence[Row],
    version: tuple[int, ...],
    search: Rediscovery,
    spent: tuple[float, float],
) -> None:
    said = ".".join(map(str, version))
    if args.json:
        for row in rows:
            print(json.dumps(_plain(row, search)), flush=True)
        return
    print(f"QEMU {said}: {search.sequences} sequences, {search.steps} steps, "
          f"{spent[0]:.0f} s here and {spent[1]:.0f} s of QEMU; {len(rows)} findings "
          f"of {sum(len(row.finding.raw) for row in rows)} signatures, "
          f"{search.unstable} that did not show again, {search.waiting} not looked at")  # fmt: skip
    print(f"{'bug':<28}{'commit':<28}{'findings':>9}{'s':>7}{'sequences':>10}{'asked':>6}"
          f"{'events':>7}  script")  # fmt: skip
    commits = public()
    known = sorted({row.bug for row in rows} - set(commits))
    for bug in (*commits, *known):
        mine = _of(rows, bug)
        name = f"{bug or 'unexplained':<28}{commits.get(bug, '-'):<28}{len(mine):>9}"
        if not mine:
            print(f"{name}  {'not found' if bug in expected(version) else 'not in this version'}")
            continue
        first = mine[0].finding
        least = min(mine, key=lambda row: (not row.reproduces, len(row.finding.events)))
        print(f"{name}{first.seconds:>7.0f}{first.sequences:>10}{least.asked:>6}"
              f"{len(least.finding.events):>7}  {_word(least.reproduces)}")  # fmt: skip
    print()
    for row in rows:
        one = row.finding
        print(f"{one.name.key} {row.bug or 'unexplained':<28} {len(one.events):>3} events "
              f"{_word(row.reproduces):<12} {search.count(one):>6}x {one.bare.qemu.name:<13} "
              f"{one.name} [{one.shown.signature.outcome}]")  # fmt: skip


def _word(reproduces: bool | None) -> str:
    return "nothing to see" if reproduces is None else "reproduces" if reproduces else "DOES NOT"


def _plain(row: Row, search: Rediscovery) -> dict[str, object]:
    one = row.finding
    return {
        "bug": row.bug, "name": one.name.as_json(), "machine": one.bare.qemu.name,
        "seed": one.seed, "seconds": round(one.seconds, 1), "sequences": one.sequences,
        "steps": one.steps, "signatures": len(one.raw), "seen": search.count(one),
        "asked": row.asked, "events": len(one.events), "reproduces": row.reproduces,
    }  # fmt: skip
