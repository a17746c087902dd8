"""The info verb: what a trace is, where it comes from, how it is stored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from decoders.errors import DecodeError
from decoders.events import Clock
from decoders.vtd.registers import CAP, ECAP
from harness.decoded import fields_of
from harness.decoded_virtio import decode_config, feature_names
from harness.report import Report, progress
from harness.trace import VIRTIO, TextReader, TraceReader, UnitInfo, open_events


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `dmarewind info`."""
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help=".trace or text form")
    parser.add_argument(
        "--check", action="store_true", help="read every event, to find damage that an index hides"
    )


def run(args: argparse.Namespace) -> int:
    """Print each trace's header and extent; return 0."""
    report = Report(args)
    for path in args.traces:
        args.trace = path  # the one that an error is about
        with open_events(path) as reader:
            damage: DecodeError | None = None
            try:
                extent = _extent(reader, args)
            except DecodeError as error:
                damage, extent = error, {"damage": str(error)}
            if report.json:
                header = reader.header
                described = [_describe(unit) for unit in header.units if unit.kind == VIRTIO]
                more = {"virtio": described} if described else {}
                plain = header.to_map()
                size = path.stat().st_size
                report.emit(trace=str(path), bytes=size, **extent, header=plain, **more)
            else:
                _print(report, path, reader, extent)
        if damage is not None:
            raise damage
    return 0


def _extent(reader: TraceReader | TextReader, args: argparse.Namespace) -> dict[str, Any]:
    """Count events and blocks: from the index, or by reading everything."""
    index = reader.index if isinstance(reader, TraceReader) else None
    found: dict[str, Any] = {"form": "trace" if isinstance(reader, TraceReader) else "text"}
    if index is not None and not args.check:
        return {**found, "events": index.events, "blocks": len(index), "index": True}
    events, last = 0, None
    for event in progress(reader, args):
        events += 1
        if isinstance(event, Clock):
            last = event.microseconds
    found["events"] = events
    if last is not None:
        found["microseconds"] = last
    if isinstance(reader, TraceReader):
        found["index"] = index is not None
        if reader.index_problem is not None:
            found["index_problem"] = str(reader.index_problem)
    return found


def _print(
    report: Report, path: Path, reader: TraceReader | TextReader, extent: dict[str, Any]
) -> None:
    header = reader.header
    report.line(report.paint(str(path), "bold"))
    rows: list[tuple[str, object]] = [("size", f"{path.stat().st_size} bytes")]
    rows += [(name.replace("_", " "), value) for name, value in extent.items()]
    rows += [("dialect", header.dialect), ("created", header.created or "unknown")]
    for start, length in header.memory:
        rows.append(("memory", f"{start:#x}-{start + length - 1:#x} ({length >> 20} MiB)"))
    # What a stranger's file says must not reach the terminal raw.
    rows += [(name, json.dumps(value)) for name, value in sorted(header.source.items())]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        shown = name if name.isprintable() else json.dumps(name)
        report.line(f"  {shown.ljust(width)}  {value}")
    for unit in header.units:
        _print_unit(report, unit)


def _describe(unit: UnitInfo) -> dict[str, Any]:
    """Return what a virtio-iommu offers, and the lines that describe its config space."""
    features = unit.capability
    lines = decode_config(unit.config, features, 0).lines if unit.config else ()
    return {"features": feature_names(features), "config": lines}


def _print_virtio(report: Report, unit: UnitInfo) -> None:
    base = f" at {unit.base:#x}" if unit.base else ""
    report.line(f"  unit {unit.kind}{base}")
    described = _describe(unit)
    names = " ".join(described["features"])
    report.line(
        f"    features {unit.capability:#x}: {names}" if names else "    features not recorded"
    )
    if not unit.config:
        report.line("    config space not recorded")
        return
    report.line(f"    config space, {len(unit.config)} bytes")
    for line in described["config"]:
        report.line(f"      {line}")


def _print_unit(report: Report, unit: UnitInfo) -> None:
    if unit.kind == VIRTIO:
        _print_virtio(report, unit)
        return
    width = f", host address width {unit.host_address_width}" if unit.host_address_width else ""
    report.line(f"  unit {unit.kind} at {unit.base:#x}, version {unit.version:#x}{width}")
    for name, register, value in (
        ("CAP", CAP, unit.capability),
        ("ECAP", ECAP, unit.extended_capability),
    ):
        if not value:
            report.line(f"    {name} not recorded")
            continue
        assert register.fields is not None
        fields = fields_of(register.fields, [value]).items()
        shown = " ".join(f"{key}={number:#x}" for key, number in fields if number)
        report.line(f"    {name} {value:#x}: {shown}")
