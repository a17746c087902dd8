"""The check verb: what the software of a trace did wrong."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from decoders.errors import DecodeError
from decoders.events import Event
from harness.check.catalogue import RULES
from harness.check.rules import KEPT, Notebook, Violation
from harness.check.virtio_watch import VirtioWatch
from harness.check.watch import VtdWatch
from harness.errors import HarnessError
from harness.model.config import UnitConfig
from harness.options import number_of_things
from harness.replay import (
    EventLookup,
    add_budgets,
    budgets_of,
    unit_config,
)
from harness.report import Report, progress, trouble_with
from harness.targets.base import AnyConfig
from harness.trace import VTD, Header, open_events
from harness.trace.lines import format_event

SHOWN = 20
WIDTH = 100
ANY_WIDTH = 52
"""Host address width where a header gives none: no bit of an address counts as reserved."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind check`."""
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE", help=".trace or text form")
    parser.add_argument("--rules", action="store_true", help="print the rules and where they stand")
    parser.add_argument(
        "--findings",
        type=number_of_things,
        default=SHOWN,
        metavar="N",
        help=f"violations to explain per trace (default {SHOWN})",
    )
    add_budgets(parser)


def config_of(header: Header, **budgets: int) -> AnyConfig:
    """Return the configuration to judge by; raise HarnessError where the header names no unit."""
    config = unit_config(header, **budgets)
    known = any(unit.host_address_width for unit in header.units if unit.kind == VTD)
    if isinstance(config, UnitConfig) and not known:
        return dataclasses.replace(config, host_address_width=ANY_WIDTH)
    return config


def watch(config: AnyConfig, events: Iterable[Event], notes: Notebook) -> int:
    """Judge events one by one; return how many there were."""
    watcher: VtdWatch | VirtioWatch
    if isinstance(config, UnitConfig):
        watcher = VtdWatch(config, notes)
    else:
        watcher = VirtioWatch(config, notes)
    for event in events:
        watcher.apply(event)
    return watcher.counters().events


def run(args: argparse.Namespace) -> int:
    """Judge every trace; return 2 when one could not be read, 1 when a rule was broken, else 0."""
    report = Report(args)
    if not args.traces and not args.rules:
        raise HarnessError("name a trace to check, or ask for --rules")
    if args.rules:
        _print_rules(report)
    found, failed = 0, False
    for path in args.traces:
        notes: Notebook | None = None
        trouble: Exception | None = None
        try:
            with open_events(path) as source:
                config = config_of(source.header, **budgets_of(args))
                notes = Notebook()
                watch(config, progress(source, args), notes)
        except (DecodeError, HarnessError, OSError) as error:
            # What was found before is right, and the other traces are still worth judging.
            trouble, failed = error, True
        if notes is not None:
            _print(report, path, notes, args.findings)
            found += notes.count
        if trouble is not None:
            print(f"error: {trouble_with(path, trouble)}", file=sys.stderr)
    if failed:
        return 2
    return 1 if found else 0


def _print_rules(report: Report) -> None:
    for rule in RULES.values():
        if report.json:
            report.emit(type="rule", rule=rule.id, source=rule.source, text=rule.text)
            continue
        report.line(report.paint(rule.id, "bold"))
        report.line(f"  {rule.source}")
        report.line(_paragraph(rule.text) + "\n")


def _paragraph(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _print(report: Report, path: Path, notes: Notebook, shown: int) -> None:
    event_at = EventLookup(path)
    violations = sorted(notes.kept, key=lambda one: one.event)
    for one in violations[:shown]:
        if report.json:
            report.emit(
                type="violation",
                trace=str(path),
                rule=one.rule.id,
                source=one.rule.source,
                event=one.event,
                detail=one.detail,
                events=one.events,
                text=one.rule.text,
            )
        else:
            report.line(explain(one, event_at) + "\n")
    if report.json:
        report.emit(type="result", trace=str(path), violations=notes.count)
        return
    if notes.count > min(shown, len(violations)):
        why = "only so many are kept" if shown >= KEPT else "--findings shows more"
        report.line(f"{path.name}: {notes.count - min(shown, KEPT)} more ({why})\n")
    if not report.quiet:
        count = f"{notes.count} violation{'' if notes.count == 1 else 's'}"
        report.line(f"{path.name}: {count if notes.count else 'no rule was broken'}")


def explain(one: Violation, event_at: EventLookup) -> str:
    """Return a violation as indented lines."""

    def named(number: int) -> str:
        event = event_at(number)
        return f"event {number}" + (f": {format_event(event)}" if event is not None else "")

    lines = [f"{one.rule.id}: {named(one.event)}", _paragraph(one.rule.text)]
    lines.append(_paragraph(one.detail))
    labels = {name: name.replace("_", " ") for name in one.events}
    width = max(map(len, [*labels.values(), "source"]))
    for name, number in one.events.items():
        lines.append(f"  {labels[name]:<{width}}  {named(number)}")
    lines.append(f"  {'source':<{width}}  {one.rule.source}")
    return "\n".join(lines)
