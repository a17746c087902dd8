"""The convert verb: logs into traces, traces into text and back."""

from __future__ import annotations

import argparse
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from decoders import capture
from decoders.errors import DecodeError
from decoders.events import Access, Event, Fault, Gap, Translation
from harness.errors import HarnessError
from harness.files import replacing
from harness.report import Report, progress
from harness.trace import (
    VIRTIO,
    VTD,
    Header,
    TraceWriter,
    UnitInfo,
    detect,
    open_events,
    write_text,
)
from harness.trace.checks import CONFIG_LIMIT
from harness.trace.codec import storable
from harness.trace.header import NAME

SAMPLES_SHOWN = 5
FORMS = (".trace", ".txt")

OVERRIDES = (
    ("capability", "capability", VTD, "capability register of the unit, CAP"),
    ("extended-capability", "extended_capability", VTD, "extended capability register, ECAP"),
    ("host-address-width", "host_address_width", VTD, "bits of a host address"),
    ("unit-base", "base", "", "guest-physical address of the unit's registers"),
    ("features", "capability", VIRTIO, "feature bits that the unit offers (virtio-iommu only)"),
)
"""Numbers that can be given: the option, the member of UnitInfo, and the only kind that has it."""

CONFIG_SIZES = range(1, CONFIG_LIMIT + 1)


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 64 bits, such as 0x1000")
    return value


def _memory(text: str) -> tuple[int, int]:
    start, colon, length = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not START:LENGTH")
    return _number(start), _number(length)


def _octets(text: str) -> bytes:
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        data = b""
    if len(data) not in CONFIG_SIZES:
        problem = f"{text!r:.40} is not 1 to {CONFIG_LIMIT} bytes in hexadecimal"
        raise argparse.ArgumentTypeError(problem)
    return data


def _dialect(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name such as qemu-10.0 or spec")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind convert`."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help="QEMU log, qtest log, .trace or text; told by content",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="OUT.trace or OUT.txt"
    )
    header = parser.add_argument_group("what the recording does not say of its machine")
    header.add_argument("--dialect", type=_dialect, metavar="NAME", help="such as qemu-10.0, spec")
    header.add_argument(
        "--unit", choices=(VTD, VIRTIO), help="kind of IOMMU, where the recording does not say"
    )
    for name, _, _, meaning in OVERRIDES:
        header.add_argument(f"--{name}", type=_number, metavar="N", help=meaning)
    header.add_argument(
        "--config",
        type=_octets,
        metavar="HEX",
        help="config space of the unit when the recording began (virtio-iommu only)",
    )
    header.add_argument(
        "--memory",
        type=_memory,
        action="append",
        metavar="START:LENGTH",
        help="a range of RAM; may be given several times",
    )


@dataclass
class _Tally:
    """Count events on their way, and put a Gap where one cannot be stored."""

    events: int = 0
    translations: int = 0
    faults: int = 0
    refused: int = 0
    damage: DecodeError | None = None
    first_refusal: str = ""
    kinds: Counter[str] = field(default_factory=Counter)

    def watch(self, events: Iterable[Event], in_place: bool) -> Iterator[Event]:
        """Pass events on; end where the input is damaged, and keep that error.

        in_place says that the output takes the input's place, which damage must not lead to.
        """
        try:
            for event in events:
                stored = self._storable(event)
                self.events += 1
                self.kinds[type(stored).__name__] += 1
                if isinstance(stored, Access):
                    self.translations += isinstance(stored.outcome, Translation)
                    self.faults += isinstance(stored.outcome, Fault)
                yield stored
        except DecodeError as error:
            if in_place:
                raise
            self.damage = error

    def _storable(self, event: Event) -> Event:
        stored = storable(event)
        if isinstance(stored, Gap) and stored is not event:
            self.refused += 1
            self.first_refusal = self.first_refusal or f"event {self.events}: {stored.reason}"
        return stored


def run(args: argparse.Namespace) -> int:
    """Write IN in the form that OUT's name asks for; return 0."""
    if args.output.suffix not in FORMS:
        raise HarnessError(f"{args.output}: name it {' or '.join(FORMS)} to say which form it gets")
    if not stat.S_ISREG(args.input.stat().st_mode):
        raise HarnessError(f"{args.input}: not a regular file; copy the log into one")
    in_place = args.output.exists() and args.output.samefile(args.input)
    with args.input.open("rb") as stream:
        form = detect(stream.read(64))
    tally = _Tally()
    if form is not None:
        with open_events(args.input) as reader:
            header = _with_overrides(reader.header, args)
            _write(args.output, header, tally.watch(progress(reader, args), in_place))
        _print(Report(args), args, form, tally, None)
    else:
        source = capture.open_capture(args.input)
        header = _with_overrides(_header(source, args.input), args)
        _write(args.output, header, tally.watch(progress(source.events(), args), in_place))
        _print(Report(args), args, source.format, tally, source)
    if tally.damage is not None:
        raise HarnessError(
            f"{args.input}: {tally.damage}; {args.output} holds the {tally.events} events before"
        ) from tally.damage
    return 0


def _header(source: capture.Capture, path: Path) -> Header:
    """Describe a recording by what it shows of itself."""
    hints = dict(source.header_hints)
    dialect = hints.pop("dialect", "spec")
    units: tuple[UnitInfo, ...] = (UnitInfo(),)
    if hints.pop("unit", VTD) == VIRTIO:
        features, config = int(hints.pop("features", "0"), 16), hints.pop("config", "")
        units = (UnitInfo(VIRTIO, base=0, capability=features, config=bytes.fromhex(config)),)
    # The log ended when the file was last written. Unlike the time now, it stays the same.
    try:
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        created = ""  # no calendar goes that far
    return Header(
        dialect=dialect,
        units=units,
        source={
            "tool": "dmarewind convert",
            "tool_version": _version(),
            "input": path.name.encode(errors="replace").decode(),
            **hints,
        },
        created=created,
    )


def _version() -> str:
    try:
        return metadata.version("dmarewind")
    except metadata.PackageNotFoundError:
        return "0"


def _with_overrides(header: Header, args: argparse.Namespace) -> Header:
    unit, *others = header.units or (UnitInfo(),)
    if args.unit is not None and args.unit != unit.kind:
        unit = UnitInfo(args.unit) if args.unit == VTD else UnitInfo(args.unit, base=0)
    changed: dict[str, Any] = {}
    for option, member, kind, _ in (*OVERRIDES, ("config", "config", VIRTIO, "")):
        value = getattr(args, option.replace("-", "_"))
        if value is None:
            continue
        if kind not in ("", unit.kind):
            raise HarnessError(
                f"--{option} is for a unit of kind {kind}, this one is {unit.kind}; see --unit"
            )
        changed[member] = value
    if changed or args.unit is not None:
        header = replace(header, units=(replace(unit, **changed), *others))
    if args.memory:
        header = replace(header, memory=tuple(sorted(args.memory)))
    if args.dialect:
        header = replace(header, dialect=args.dialect)
    header.to_map()  # refuse before anything is written
    return header


def _write(path: Path, header: Header, events: Iterator[Event]) -> None:
    with replacing(path) as draft:
        if path.suffix == ".txt":
            write_text(draft, header, events)
            return
        with TraceWriter.create(draft, header, compact=True) as writer:
            for event in events:
                writer.append(event)


def _print(
    report: Report,
    args: argparse.Namespace,
    form: str,
    tally: _Tally,
    source: capture.Capture | None,
) -> None:
    unknown = source.unknown.total() if source else 0
    malformed = source.malformed.total() if source else 0
    problems = len(source.problems) if source else 0
    counts = {
        "events": tally.events,
        "translations": tally.translations,
        "faults": tally.faults,
        "bytes": args.output.stat().st_size,
    }
    doubts = {
        "unknown lines": unknown,
        "malformed lines": malformed,
        "contradictions": problems,
        "events out of bounds": tally.refused,
    }
    if report.json:
        plain = {name.replace(" ", "_"): number for name, number in doubts.items()}
        kinds = dict(tally.kinds)
        report.emit(input=str(args.input), format=form, **counts, **plain, kinds=kinds)
    elif not report.quiet:
        shown = ", ".join(f"{number} {name}" for name, number in counts.items())
        report.line(f"{args.input} ({form}) -> {args.output}: {shown}")
        for name, number in doubts.items():
            if number:
                report.line(report.paint(f"{number} {name}", "yellow"))
    if source is not None and not report.quiet:
        for sample in source.samples[:SAMPLES_SHOWN]:
            # From outside, and for a terminal.
            print(f"  line {sample.line}: {sample.text!r:.160}", file=sys.stderr)
        for problem in source.problems[:SAMPLES_SHOWN]:
            print(f"  line {problem.line}: {problem.text!r:.160}", file=sys.stderr)
    if tally.first_refusal and not report.quiet:
        print(f"  {tally.first_refusal!r:.200}", file=sys.stderr)
