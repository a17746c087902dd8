"""The stats verb: events by kind, device and time, and what came of them."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Clock,
    Descriptor,
    Event,
    Fault,
    FaultReport,
    InterruptRequest,
    Message,
    PageResponse,
    Posted,
    RegRead,
    RegWrite,
    Request,
    Translation,
)
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from harness.decoded import RESPONSE_CODES, UNKNOWN_CODE, Namer, reason_text
from harness.decoded_virtio import request_name, status_name
from harness.report import Report, progress
from harness.trace import Header, open_events
from harness.trace.lines import WORDS, format_sid

BINS = 32
"""Columns of the histogram of time; it always covers the whole recording."""

NAMES_LIMIT = 1024
"""Registers that are told apart; accesses to others are counted together."""

_DELIVERIES: dict[type, str] = {
    Message: "delivered",
    Posted: "posted",
    Fault: "refused",
    NoneType: "unanswered",
}
"""What may become of an interrupt request."""

BARS = " ▁▂▃▄▅▆▇█"


class Histogram:
    """Count by time in BINS equal bins, whose width doubles whenever time outgrows them."""

    def __init__(self) -> None:
        self.width = 1
        self.bins = [0] * BINS

    def add(self, microseconds: int) -> None:
        """Count one event at a time."""
        while microseconds >= self.width * BINS:
            pairs = zip(self.bins[::2], self.bins[1::2], strict=True)
            self.bins = [a + b for a, b in pairs] + [0] * (BINS // 2)
            self.width *= 2
        self.bins[microseconds // self.width] += 1

    def drawing(self) -> str:
        """Return one character for each bin."""
        most = max(self.bins) or 1
        steps = len(BARS) - 1
        return "".join(BARS[-(-count * steps // most)] for count in self.bins)


@dataclass
class Statistics:
    """Count what a trace holds."""

    header: Header
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    translations: Counter[int] = field(default_factory=Counter)
    faults: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[int] = field(default_factory=Counter)
    interrupts: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[int] = field(default_factory=Counter)
    registers: Counter[str] = field(default_factory=Counter)
    descriptors: Counter[str] = field(default_factory=Counter)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    reports: Counter[int] = field(default_factory=Counter)
    microseconds: int | None = None
    histogram: Histogram = field(default_factory=Histogram)

    def __post_init__(self) -> None:
        self._namer = Namer(self.header)
        self.domains = self._namer.domains

    def add(self, event: Event) -> None:
        """Count an event."""
        self.events += 1
        self.kinds[WORDS[type(event)]] += 1
        match event:
            case Clock(microseconds):
                self.microseconds = max(microseconds, self.microseconds or 0)
            case Access(sid, outcome=Translation()):
                self.translations[sid] += 1
            case Access(sid, outcome=Fault(reason)):
                self.faults[sid] += 1
                self.reasons[reason] += 1
            case Access(sid):
                self.unanswered[sid] += 1
            case InterruptRequest(outcome=outcome):
                self.interrupts[_DELIVERIES[type(outcome)]] += 1
                if isinstance(outcome, Fault) and outcome.reason:
                    self.reasons[outcome.reason] += 1
            case PageResponse(code=code):
                self.responses[RESPONSE_CODES.get(code, UNKNOWN_CODE)] += 1
            case RegWrite() | RegRead():
                word = "read " if isinstance(event, RegRead) else "write "
                name = word + self._namer.register_name(event.offset)
                if name not in self.registers and len(self.registers) >= NAMES_LIMIT:
                    name = word + "(others)"
                self.registers[name] += 1
            case Descriptor(words):
                shape = DESCRIPTORS.get(descriptor_type(words[0]))
                self.descriptors["unknown" if shape is None else shape.__name__] += 1
            case Request(data, _, answer):
                # Types and statuses are bytes: there are not many names, whatever a trace holds.
                self.requests[request_name(data), status_name(answer)] += 1
            case FaultReport(reason):
                self.reports[reason] += 1
        self.domains.apply(event)
        if self.microseconds is not None:
            self.histogram.add(self.microseconds)

    @property
    def devices(self) -> list[int]:
        """Return the source ids that were seen, ascending."""
        return sorted({*self.translations, *self.faults, *self.unanswered})

    def plain(self) -> dict[str, Any]:
        """Return everything as an object of plain values."""
        plain: dict[str, Any] = {
            "events": self.events,
            "translations": self.translations.total(),
            "faults": self.faults.total(),
            "microseconds": self.microseconds,
            "kinds": dict(self.kinds.most_common()),
            "devices": {
                format_sid(sid): {
                    "translations": self.translations[sid],
                    "faults": self.faults[sid],
                    "unanswered": self.unanswered[sid],
                }
                for sid in self.devices
            },
            "reasons": {f"{reason:#04x}": count for reason, count in self.reasons.most_common()},
            "registers": dict(self.registers.most_common()),
            "descriptors": dict(self.descriptors.most_common()),
            "time": {"bin_microseconds": self.histogram.width, "events": self.histogram.bins},
        }
        if self.interrupts:
            plain["interrupts"] = dict(self.interrupts.most_common())
        if self.responses:
            plain["page_responses"] = dict(self.responses.most_common())
        if self.requests:
            requests: dict[str, dict[str, int]] = {}
            for (name, status), count in self.requests.most_common():
                requests.setdefault(name, {})[status] = count
            plain |= {
                "requests": requests,
                "most_domains": self.domains.most_domains,
                "most_mappings": self.domains.most_mappings,
                "domains_complete": self.domains.complete,
            }
        if self.reports:
            plain["reports"] = {f"{reason:#04x}": n for reason, n in self.reports.most_common()}
        return plain

    def reason(self, number: int) -> str:
        """Say what a fault reason means."""
        return reason_text(number, self._namer.kind)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind stats`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help=".trace or text form")


def run(args: argparse.Namespace) -> int:
    """Print what each trace holds; return 0."""
    report = Report(args)
    for path in args.traces:
        args.trace = path  # the one that an error is about
        damage: DecodeError | None = None
        with open_events(path) as reader:
            found = Statistics(reader.header)
            try:
                for event in progress(reader, args):
                    found.add(event)
            except DecodeError as error:
                damage = error
        if report.json:
            report.emit(trace=str(path), **found.plain())
        else:
            _print(report, path, found)
        if damage is not None:
            raise damage
    return 0


def _print(report: Report, path: Path, found: Statistics) -> None:
    outcomes = f"{found.translations.total()} translations, {found.faults.total()} faults"
    report.line(f"{report.paint(str(path), 'bold')}: {found.events} events, {outcomes}")
    report.heading("events")
    report.table(found.kinds.most_common())
    if found.devices:
        report.heading("devices")
        rows: list[tuple[object, ...]] = [("device", "translations", "faults", "unanswered")]
        for sid in found.devices:
            counts = (found.translations[sid], found.faults[sid], found.unanswered[sid])
            rows.append((format_sid(sid), *counts))
        report.table(rows)
    if found.interrupts:
        report.heading("interrupt requests")
        report.table(found.interrupts.most_common())
    if found.responses:
        report.heading("page responses")
        report.table(found.responses.most_common())
    for name, reasons in (("faults", found.reasons), ("fault reports", found.reports)):
        if reasons:
            report.heading(name)
            report.table((f"{r:#04x}", n, found.reason(r)) for r, n in reasons.most_common())
    if found.requests:
        report.heading("requests")
        report.table((name, status, n) for (name, status), n in found.requests.most_common())
        domains = found.domains
        more = "" if domains.complete else ", as far as they were followed"
        most = f"at most {domains.most_domains} domains and {domains.most_mappings} mappings"
        report.line(f"  {most} at a time{more}")
    for name, counter in (("registers", found.registers), ("descriptors", found.descriptors)):
        if counter:
            report.heading(name)
            report.table(counter.most_common())
    if found.microseconds is not None:
        width = found.histogram.width * BINS
        report.heading(f"events over {width / 1e6:g} s, {found.histogram.width / 1e6:g} s a column")
        report.line(f"  |{found.histogram.drawing()}|")
