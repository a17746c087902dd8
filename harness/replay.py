"""The replay verb: apply traces to targets and compare with what was recorded."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from decoders.errors import DecodeError
from decoders.events import Event
from harness.decoded import unit_of
from harness.errors import HarnessError
from harness.explain import explain
from harness.findings import Finding
from harness.memory import DEFAULT_PAGE_BUDGET
from harness.model.config import DEFAULT_DESCRIPTOR_BUDGET, UnitConfig, Updates
from harness.model.dialects import Dialect, switched
from harness.model.virtio.config import (
    DEFAULT_CONFIG,
    DEFAULT_FEATURES,
    DEFAULT_MAPPING_BUDGET,
    VirtioConfig,
)
from harness.model.virtio.dialect import dialect_named as virtio_dialect_named
from harness.options import number_of_things
from harness.qemu.pc import PROGRAM
from harness.report import trouble_with
from harness.targets import (
    REAL_TARGETS,
    Counters,
    Machine,
    ReplayTarget,
    real_target_named,
    target_named,
    target_names,
)
from harness.targets.base import AnyConfig
from harness.targets.qemu import machine_for
from harness.trace import VIRTIO, VTD, Block, Header, TextReader, TraceReader, UnitInfo, open_events
from harness.trace.codec import Encoder
from harness.trace.lines import format_sid

FINDINGS_SHOWN = 10
MISSING_SHOWN = 4
DEFAULT_WIDTH = 39
"""Host address width in bits when a header gives none: QEMU's default."""
TEXT_BLOCK_EVENTS = 4096
"""Events of a text form that are encoded and handed on together."""
COUNTS = (
    "events", "translations", "faults", "requests", "interrupt_requests", "page_requests", "agreed",
    "divergences",
)  # fmt: skip
OPTIONAL = frozenset({"requests", "interrupt_requests", "page_requests"})
"""Counts that are shown only where there is something to count."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind replay`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help=".trace or text form")
    parser.add_argument(
        "--target",
        action="append",
        choices=target_names(),
        help="what to replay on; may be given several times (default: model and native)",
    )
    parser.add_argument(
        "--findings",
        type=number_of_things,
        default=FINDINGS_SHOWN,
        metavar="N",
        help=f"findings to explain per trace (default {FINDINGS_SHOWN})",
    )
    parser.add_argument(
        "--program",
        default=PROGRAM,
        metavar="FILE",
        help="the QEMU that the target qemu runs (default %(default)s)",
    )
    add_budgets(parser)


def add_budgets(parser: argparse.ArgumentParser) -> None:
    """Declare the options that bound what a trace may cost."""
    parser.add_argument(
        "--page-budget",
        type=number_of_things,
        default=DEFAULT_PAGE_BUDGET,
        metavar="PAGES",
        help="4 KiB pages of guest memory a trace may touch (default %(default)s)",
    )
    parser.add_argument(
        "--descriptor-budget",
        type=number_of_things,
        default=DEFAULT_DESCRIPTOR_BUDGET,
        metavar="N",
        help="invalidation descriptors a trace may run, and some per event (default %(default)s)",
    )
    parser.add_argument(
        "--mapping-budget",
        type=number_of_things,
        default=DEFAULT_MAPPING_BUDGET,
        metavar="N",
        help="mappings, domains and endpoints a virtio-iommu may hold (default %(default)s)",
    )


def budgets_of(args: argparse.Namespace) -> dict[str, int]:
    """Return what the options of add_budgets() say, as unit_config() takes it."""
    return {
        "page_budget": args.page_budget,
        "descriptor_budget": args.descriptor_budget,
        "mapping_budget": args.mapping_budget,
    }


def unit_config(header: Header, **budgets: int) -> AnyConfig:
    """Return the configuration of the unit a header describes; raise HarnessError if none.

    budgets are those of UnitConfig and VirtioConfig.
    """
    for unit in header.units:
        if unit.kind == VTD and unit.capability:
            return _vtd_config(header, unit, **_chosen(UnitConfig, budgets))
        if unit.kind == VIRTIO:
            if header.switches:
                raise HarnessError("the header's switches: a virtio-iommu has none")
            return VirtioConfig(
                features=unit.capability or DEFAULT_FEATURES,
                config=unit.config or DEFAULT_CONFIG,
                known=bool(unit.config),
                dialect=virtio_dialect_named(header.dialect),
                **_chosen(VirtioConfig, budgets),
            )
    raise HarnessError(
        "the trace's header names no VT-d unit with its capabilities, and no virtio-iommu; "
        "`dmarewind convert` takes them as --capability and --extended-capability, or --unit"
    )


def _vtd_config(header: Header, unit: UnitInfo, **budgets: Any) -> UnitConfig:
    return UnitConfig(
        capability=unit.capability,
        extended_capability=unit.extended_capability,
        version=unit.version,
        host_address_width=unit.host_address_width or DEFAULT_WIDTH,
        memory=header.memory,
        dialect=_dialect(header),
        virtual_commands=unit.virtual_commands,
        updates=_updates(unit),
        **budgets,
    )


def _dialect(header: Header) -> Dialect:
    try:
        return switched(header.dialect, header.switches)
    except KeyError as error:
        raise HarnessError(f"the header's switches: no dialect has {error}") from error


def _updates(unit: UnitInfo) -> Updates:
    known = {one.word: one for one in Updates}
    if unit.updates and unit.updates not in known:
        raise HarnessError(f"the header's updates: {unit.updates} is none of {', '.join(known)}")
    return known.get(unit.updates, Updates.DONE)


def _chosen(cls: type[AnyConfig], budgets: dict[str, int]) -> dict[str, Any]:
    names = {member.name for member in dataclasses.fields(cls)}
    return {name: value for name, value in budgets.items() if name in names}


def _blocks(source: TraceReader | TextReader) -> Iterator[Block]:
    """Yield stored blocks as they are; a text form's events are encoded into blocks."""
    if isinstance(source, TraceReader):
        yield from source.blocks()
        return
    encoder = Encoder()
    first, raw, count = 0, bytearray(), 0
    damage: DecodeError | None = None
    events = iter(source)
    while True:
        try:
            event = next(events, None)
        except DecodeError as error:
            event, damage = None, error
        if event is not None:
            raw += encoder.encode(event)
            count += 1
        if count and (event is None or count == TEXT_BLOCK_EVENTS):
            yield Block(first, count, bytes(raw))
            first, raw, count = first + count, bytearray(), 0
        if event is None:
            break
    if damage is not None:
        raise damage


@dataclasses.dataclass(slots=True)
class Result:
    """What one trace gave on one target."""

    trace: Path
    target: str
    counters: Counters
    findings: list[Finding]
    seconds: float
    recorded: str = ""
    running: str = ""
    """Versions of the QEMU that was recorded, and of the one that answered now."""


def _machine(path: Path, program: str) -> Machine:
    """Return the machine that a trace needs, as far as it is not damaged."""
    with open_events(path) as source:
        return machine_for(_until_damage(iter(source)), program)


def _until_damage(events: Iterator[Event]) -> Iterator[Event]:
    with contextlib.suppress(DecodeError):
        yield from events


def replay(
    path: Path, names: list[str], quiet: bool, program: str = PROGRAM, **budgets: int
) -> Iterator[Result]:
    """Replay one trace on each named target; raise DecodeError after what precedes damage.

    program is what a real unit runs in.
    """
    damage: DecodeError | None = None
    spent = dict.fromkeys(names, 0.0)
    with open_events(path) as source:
        config = unit_config(source.header, **budgets)
        recorded = str(source.header.source.get("qemu", ""))
        targets: list[ReplayTarget] = []
        running: dict[str, str] = {}
        for name in names:
            if name in REAL_TARGETS:
                real = real_target_named(name, config, _machine(path, program))
                running[name] = ".".join(map(str, real.version))
                _name_missing(path, real.missing)
                targets.append(real)
            else:
                targets.append(target_named(name, config))
        with tqdm(
            desc=path.name, unit=" events", unit_scale=True, delay=1, leave=False,
            disable=True if quiet else None,
        ) as bar:  # fmt: skip
            try:
                for block in _blocks(source):
                    # Each target gets what precedes damage within the block.
                    for target in targets:
                        start = time.perf_counter()
                        try:
                            target.feed(block)
                            block.check_count(target.counters().events - block.first_event)
                        except DecodeError as error:
                            damage = damage or error
                        spent[target.name] += time.perf_counter() - start
                    if damage is not None:
                        break
                    bar.update(block.events)
            except DecodeError as error:
                damage = error
        # The recorder was killed, or the file is cut: the last command's answers may be missing.
        complete = damage is None and (isinstance(source, TextReader) or source.index is not None)
    for target in targets:
        if complete:
            target.finish()
        version = running.get(target.name, "")
        yield Result(
            path, target.name, target.counters(), target.findings(), spent[target.name],
            recorded, version,
        )  # fmt: skip
    if damage is not None:
        raise damage


class EventLookup:
    """Look events of a trace up by number, for explanations."""

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[int, Event | None] = {}
        self._kind: str | None = None

    @property
    def kind(self) -> str:
        """Return the kind of the unit that the trace is about."""
        if self._kind is None:
            with open_events(self._path) as source:
                self._kind = unit_of(source.header).kind
        return self._kind

    def __call__(self, number: int) -> Event | None:
        """Return an event; None where there is none of that number."""
        if number not in self._known:
            self._known[number] = self._find(number)
        return self._known[number]

    def _find(self, number: int) -> Event | None:
        try:
            with open_events(self._path) as source:
                return next(iter(source.events(number, number + 1)), None)
        except DecodeError:
            return None


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def run(args: argparse.Namespace) -> int:
    """Replay every trace; return 1 when anything diverged or targets disagree, else 0."""
    names = list(dict.fromkeys(args.target or ["model", "native"]))
    results: list[Result] = []
    failed = False
    disagreements = 0
    for path in args.traces:
        found: list[Result] = []
        try:
            for result in replay(path, names, args.quiet, args.program, **budgets_of(args)):
                found.append(result)
                _name_versions(result)
        except (DecodeError, HarnessError, OSError) as error:
            # The other traces are still worth replaying.
            failed = True
            print(f"error: {trouble_with(path, error)}", file=sys.stderr)
        results += found
        disagreements += _disagree(found)
        _show_findings(path, found, args)
    if args.json:
        for result in results:
            print(json.dumps({"type": "result", "trace": str(result.trace), "target": result.target,
                              "seconds": round(result.seconds, 6),
                              **({"qemu": result.running} if result.running else {}),
                              **result.counters.as_dict()}))  # fmt: skip
    else:
        each = [result.counters.as_dict() for result in results]
        names_shown = _shown(each)
        rows: list[tuple[str, ...]] = [("trace", "target", *names_shown)]
        for result, counts in zip(results, each, strict=True):
            numbers = (str(counts[name]) for name in names_shown)
            rows.append((result.trace.name, result.target, *numbers))
        print("\n".join(_table(rows)))
    _summarise(results, disagreements, args.json)
    if failed:
        return 2
    return 1 if disagreements or any(r.counters.divergences for r in results) else 0


def _name_versions(result: Result) -> None:
    """Say so where the QEMU that answered is another than the one that was recorded."""
    if result.running and result.recorded and result.running != result.recorded:
        print(
            f"{result.trace}: recorded with QEMU {result.recorded}, "
            f"replayed on QEMU {result.running}",
            file=sys.stderr,
        )


def _name_missing(path: Path, missing: Collection[int]) -> None:
    """Say where no device can be had: what was recorded of it is not judged."""
    if missing:
        each = ", ".join(format_sid(source) for source in sorted(missing)[:MISSING_SHOWN])
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        print(f"{path}: no device can be had at {each}{more}", file=sys.stderr)


def _shown(each: list[dict[str, int]]) -> list[str]:
    """Return the names of the counts to show."""
    return [name for name in COUNTS if name not in OPTIONAL or any(one[name] for one in each)]


def _disagree(found: list[Result]) -> int:
    """Count the targets whose counts or findings differ from the first one's, and say so."""
    count = 0
    # A real unit cannot be asked everything: it judges less.
    complete = [result for result in found if result.target not in REAL_TARGETS]
    for other in complete[1:]:
        first = complete[0]
        same = first.counters == other.counters and first.findings == other.findings
        if not same:
            count += 1
            print(
                f"{first.trace}: targets {first.target} and {other.target} disagree; "
                "this is a defect of dmarewind, please report the trace",
                file=sys.stderr,
            )
    return count


def _show_findings(path: Path, found: list[Result], args: argparse.Namespace) -> None:
    event_at = EventLookup(path)
    seen: set[Finding] = set()
    for result in found:
        for finding in result.findings[: args.findings]:
            if finding in seen:
                continue
            seen.add(finding)
            if args.json:
                line = {"type": "finding", "trace": str(path), "target": result.target}
                print(json.dumps(line | finding.as_json()))
            else:
                print(explain(finding, event_at, event_at.kind) + "\n")
    most = max((result.counters.divergences for result in found), default=0)
    kept = max((len(result.findings) for result in found), default=0)
    shown = min(args.findings, kept)
    if most > shown and not args.json:
        more = "only so many are kept" if shown == kept else "--findings shows more"
        print(f"{path.name}: {most - shown} more findings ({more})\n")


def _summarise(results: list[Result], disagreements: int, as_json: bool) -> None:
    """Print one line over all traces; a trace counts once, with its worst target."""
    totals = dict.fromkeys(Counters().as_dict(), 0)
    for trace in dict.fromkeys(result.trace for result in results):
        each = [result.counters.as_dict() for result in results if result.trace == trace]
        for name in totals:
            pick = min if name == "agreed" else max
            totals[name] += pick(counts[name] for counts in each)
    if as_json:
        print(json.dumps({"type": "summary", "disagreements": disagreements, **totals}))
        return
    numbers = ", ".join(f"{totals[name]} {name}" for name in _shown([totals]))
    unjudged = totals["unjudged"]
    real = any(result.target in REAL_TARGETS for result in results)
    why = "the target does not show them" if real else "the recording lost something before them"
    lost = f" ({unjudged} not judged: {why})" if unjudged else ""
    print(f"replayed {numbers}{lost}")
