"""Print ACPI tables: their structures, what is wrong with them, and who is behind which IOMMU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decoders.acpi import (
    READERS,
    Found,
    Header,
    Node,
    Table,
    Text,
    Violation,
    read_file,
    read_tolerant,
    validate_table,
)
from decoders.acpi.files import LARGEST_FILE
from decoders.bytewise import ByteStructure, bits_of, field_sizes, number
from decoders.errors import DecodeError
from harness.acpi.resolve import resolve
from harness.acpi.topology import PciDevice
from harness.errors import HarnessError
from harness.report import Report

FINE, FINDING = 0, 1
LONGEST = 32
"""Bytes that are shown of what is not decoded."""

TEXTUAL = frozenset({"signature", "oem_id", "oem_table_id", "creator_id", "acpi_hid", "acpi_cid"})


def show(report: Report, file: Path, device: int | None) -> int:
    """Print the tables of a file; return 1 when there are violations.

    Raise HarnessError when a table, or the file, cannot be decoded: after what can be is printed.
    device is the requester id of a PCI function whose IOMMU is wanted.
    """
    broken: list[str] = []
    violations = 0
    with file.open("rb") as stream:
        data = stream.read(LARGEST_FILE + 1)
    try:
        for index, found in enumerate(read_file(data)):
            table = read_tolerant(found.data)
            wrong = validate_table(table, found.data)
            _table(report, index, found, table)
            for violation in wrong:
                _violation(report, index, violation)
            if device is not None and found.data[:4] in READERS:
                _device(report, index, table, PciDevice(0, device))
            broken += [str(violation) for violation in wrong if violation.fatal]
            violations += len(wrong)
    except DecodeError as error:
        broken.append(str(error))
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise HarnessError(f"{file}: {broken[0]}{more}")
    return FINDING if violations else FINE


def _table(report: Report, index: int, found: Found, table: Table) -> None:
    if report.json:
        members = {"table": index, "signature": table.signature, "place": found.place}
        report.emit(**members, bytes=len(found.data))
        for node in table.walk():
            report.emit(**as_json(index, node))
        return
    header = table.head(Header)
    made_by = ""
    if header is not None:
        maker = f"{_text(header.oem_id)} {_text(header.oem_table_id)}"
        made_by = f", revision {header.revision}, {maker}"
    report.heading(f"{table.signature}  {len(found.data)} bytes{made_by}")
    for node in table.walk():
        if isinstance(node.body, Header) and node.path == table.path:
            continue
        # The name of the table is in the heading, and depth is shown by indentation.
        name = node.path.removeprefix(f"{table.path}.")
        indent = "  " * (1 + name.count("."))
        place = f"{node.offset:#06x}"
        report.line(f"{place}{indent}{name.rpartition('.')[2]} {node.kind}  {_fields(node.body)}")


def _fields(body: ByteStructure) -> str:
    return ", ".join(
        _field(body, name) for name, _ in field_sizes(type(body)) if _shown(body, name)
    )


def _shown(body: ByteStructure, name: str) -> bool:
    reserved = name.startswith("reserved") or name in ("data", "text")
    return not reserved or number(body.getfieldval(name)) != 0


def _field(body: ByteStructure, name: str) -> str:
    value: int | bytes = body.getfieldval(name)
    if isinstance(body, Text):
        return repr(body.string)
    if isinstance(value, bytes):
        if name in TEXTUAL:
            return f"{name} {_text(value)!r}"
        cut = "..." if len(value) > LONGEST else ""
        return f"{name} {value[:LONGEST].hex()}{cut}"
    named = [
        column if bit == 1 else f"{column}={bit}"
        for column, bit in bits_of(body, name)
        if bit and column != "reserved"
    ]
    plain = f"{name} {value:#x}" if value > 9 else f"{name} {value}"
    return f"{plain} ({' '.join(named)})" if named else plain


def _text(data: bytes) -> str:
    return data.replace(b"\0", b" ").decode("ascii", "backslashreplace").rstrip()


def as_json(index: int, node: Node) -> dict[str, Any]:
    """Return a node as an object of plain values; index is that of its table."""
    fields: dict[str, Any] = {}
    for name, _ in field_sizes(type(node.body)):
        value = node.body.getfieldval(name)
        if isinstance(node.body, Text):
            value = node.body.string
        elif isinstance(value, bytes):
            value = _text(value) if name in TEXTUAL else value.hex()
        fields[name] = value
    bits = {name: dict(_named(node.body, name)) for name in node.body.bits}
    plain = {"table": index, "path": node.path, "offset": node.offset, "kind": node.kind}
    return plain | {"fields": fields} | ({"bits": bits} if bits else {})


def _named(body: ByteStructure, name: str) -> Iterator[tuple[str, int]]:
    return (pair for pair in bits_of(body, name) if pair[0] != "reserved")


def _violation(report: Report, index: int, violation: Violation) -> None:
    if report.json:
        report.emit(
            table=index,
            violation=str(violation.rule),
            path=violation.path,
            offset=violation.offset,
            problem=violation.problem,
            fatal=violation.fatal,
        )
    else:
        report.line(report.paint(f"violation ({violation.rule}): {violation}", "red"))


def _device(report: Report, index: int, table: Table, device: PciDevice) -> None:
    answer = resolve(table, device)
    if report.json:
        report.emit(table=index, device=str(device), answer=str(answer))
    else:
        report.line(f"{device}: {answer}")
