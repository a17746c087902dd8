"""The show verb: print events, decoded and filtered, ACPI tables, or a config space."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from decoders.events import (
    Access,
    Attribute,
    Clock,
    DeviceTlbMessage,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Gap,
    InterruptRequest,
    Message,
    PageRequest,
    PageRequestFlag,
    PageResponse,
    Posted,
    Request,
    Snapshot,
    Store,
    Translation,
)
from decoders.virtio_iommu.constants import Status
from decoders.virtio_iommu.forms import Form
from decoders.virtio_iommu.requests import status_of
from harness import selection
from harness.acpi import show as acpi
from harness.acpi import show_config
from harness.decoded import Namer
from harness.decoded_event import Decoded
from harness.errors import HarnessError
from harness.options import number_of_things
from harness.report import Report, progress
from harness.selection import Place, Selection
from harness.trace import VIRTIO, TextReader, TraceReader, open_events
from harness.trace.lines import ATTRIBUTE_NAMES, ROLE_NAMES, WORDS, format_event, format_sid
from harness.trace.page_lines import FLAG_NAMES

ENTRIES_SHOWN = 8
_OF_EVENTS = ("kind", "iova", "start", "stop", "entries")
_MEANINGLESS = {
    "trace": ("form",),
    "acpi": ("form", *_OF_EVENTS),
    "virtio_config": _OF_EVENTS,
}
"""What can be shown, and the options that say nothing about it."""
_OPTIONS = {"start": "--from", "stop": "--to"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind show`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("trace", type=Path, nargs="?", metavar="TRACE", help=".trace or text form")
    what.add_argument(
        "--acpi",
        type=Path,
        metavar="FILE",
        help="ACPI tables instead: binary, several in a row, or the text of acpidump",
    )
    what.add_argument(
        "--virtio-config",
        type=Path,
        metavar="FILE",
        help="the config space of a virtio-iommu instead, as raw bytes",
    )
    parser.add_argument(
        "--form",
        type=Form,
        choices=list(Form),
        help="what stands at offset 36 of --virtio-config, which is guessed otherwise",
    )
    selection.add_arguments(parser)
    parser.add_argument(
        "--entries",
        type=number_of_things,
        metavar="N",
        help="entries of a table page, or lines below another event, to show at most "
        f"(default {ENTRIES_SHOWN})",
    )


def _refuse_meaningless(args: argparse.Namespace) -> None:
    """Raise HarnessError for an option that says nothing about what is to be shown."""
    subject = next(name for name in _MEANINGLESS if getattr(args, name) is not None)
    for name in _MEANINGLESS[subject]:
        if getattr(args, name) is not None:
            about = "a trace" if subject == "trace" else f"--{subject.replace('_', '-')}"
            raise HarnessError(f"{_OPTIONS.get(name, f'--{name}')} means nothing for {about}")
    if subject != "trace" and args.device is not None and args.device >> 16:
        raise HarnessError(f"--device: {args.device:#x} is no PCI function, that has 16 bits")


def run(args: argparse.Namespace) -> int:
    """Print the chosen events, one a line; return 0, or 1 for violations in what is no trace."""
    _refuse_meaningless(args)
    report = Report(args)
    if args.acpi is not None:
        return acpi.show(report, args.acpi, args.device)
    if args.virtio_config is not None:
        return show_config.show(report, args.virtio_config, args.form, args.device)
    most = ENTRIES_SHOWN if args.entries is None else args.entries
    with open_events(args.trace) as reader:
        namer = Namer(reader.header)
        for number, time, event in _chosen(reader, args, namer):
            decoded = namer.decode(event)
            entries = namer.entries(event) if isinstance(event, Snapshot) else []
            if report.json:
                report.emit(**as_json(number, time, event, decoded, entries))
            else:
                _print(report, (number, time, event), decoded, entries, most)
    return 0


def _chosen(
    reader: TraceReader | TextReader, args: argparse.Namespace, namer: Namer
) -> Iterator[tuple[int, int | None, Event]]:
    """Yield number, time and event of what is chosen; let namer learn from what is passed over."""
    wanted = selection.selection(args)
    start = selection.first_event(reader, args.start)
    number, time = (0, None) if namer.kind == VIRTIO else _beginning(reader, start, wanted)
    stop: Place = args.stop or Place(None, None)
    for event in progress(reader.events(number), args):
        if isinstance(event, Clock):
            time = event.microseconds
        if stop.event is not None and number > stop.event:
            return
        if stop.microseconds is not None and time is not None and time > stop.microseconds:
            return
        if number >= start and wanted.wants(event, namer.domains):
            yield number, time, event
        else:
            namer.learn(event)
        number += 1


def _beginning(
    reader: TraceReader | TextReader, start: int, wanted: Selection
) -> tuple[int, int | None]:
    """Return where to begin reading, and the time there."""
    # A store is decoded by what its page was used for, so nothing before it may be left out.
    stores = not wanted.kinds or not wanted.kinds.isdisjoint({Store, Snapshot})
    restricted = wanted.device is not None or wanted.iova is not None
    if isinstance(reader, TraceReader) and reader.index and (restricted or not stores):
        entry = reader.index[reader.index.by_event(start)]
        return entry.first_event, entry.first_microseconds or None
    return 0, None


def _print(
    report: Report,
    event_at: tuple[int, int | None, Event],
    decoded: Decoded | None,
    entries: list[tuple[int, Decoded]],
    most: int,
) -> None:
    number, time, event = event_at
    when = "" if time is None else f"{time / 1e6:12.6f}"
    if isinstance(event, Snapshot):
        place = f"{event.address:#x} {ROLE_NAMES[event.role]} {event.level}"
        line = f"{WORDS[Snapshot]} {place} ({len(entries)} entries)"
    else:
        line = format_event(event)
    if _went_wrong(event):
        line = report.paint(line, "red")
    remark = report.paint(f"  ; {decoded.text()}", "dim") if decoded else ""
    report.line(f"{number:8} {when:12}  {line}{remark}")
    below = [f"[{index:#x}] {entry.text()}" for index, entry in entries]
    below += decoded.lines if decoded else ()
    for text in below[:most]:
        report.line(f"{'':23} {text}")
    if len(below) > most:
        report.line(f"{'':23} ... {len(below) - most} more (--entries)")


def _went_wrong(event: Event) -> bool:
    if isinstance(event, Access | InterruptRequest):
        return isinstance(event.outcome, Fault)
    if isinstance(event, Request):
        return event.answer is not None and status_of(event.answer) != Status.OK
    if isinstance(event, PageResponse):
        return bool(event.code)
    return isinstance(event, Gap | FaultReport)


def as_json(
    number: int,
    time: int | None,
    event: Event,
    decoded: Decoded | None,
    entries: list[tuple[int, Decoded]],
) -> dict[str, Any]:
    """Return an event as an object of plain values."""
    plain: dict[str, Any] = {"event": number, "microseconds": time, "type": WORDS[type(event)]}
    for member in fields(event):
        value = getattr(event, member.name)
        if isinstance(event, Snapshot) and isinstance(value, bytes):  # its entries follow
            continue
        if value or not isinstance(value, Attribute):
            plain[member.name] = _plain(value)
    if isinstance(event, Access | PageRequest | PageResponse | DeviceTlbMessage):
        plain["device"] = format_sid(event.sid)
    elif isinstance(event, InterruptRequest):
        plain["device"] = None if event.sid is None else format_sid(event.sid)
    elif isinstance(event, Endpoint | FaultReport):
        plain["device"] = format_sid(event.endpoint)
    if decoded is not None:
        plain["decoded"] = decoded.plain()
    if isinstance(event, Snapshot):
        plain["entries"] = [{"index": index, **entry.plain()} for index, entry in entries]
    return plain


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, PageRequestFlag):
        return [FLAG_NAMES[flag] for flag in value]
    if isinstance(value, Attribute):
        return [ATTRIBUTE_NAMES[flag] for flag in value]
    if isinstance(value, IntEnum):
        return value.name.lower().replace("_", "-")
    if isinstance(value, Translation | Fault | Message | Posted):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value
