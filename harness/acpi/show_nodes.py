"""Print decoded structures and what is wrong with them, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decoders.acpi import Node, Text, Violation
from decoders.bytewise import ByteStructure, bits_of, field_sizes, number
from harness.report import Report

LONGEST = 32
"""Bytes that are shown of what is not decoded."""

TEXTUAL = frozenset({"signature", "oem_id", "oem_table_id", "creator_id", "acpi_hid", "acpi_cid"})


def show_node(report: Report, node: Node, within: str) -> None:
    """Print the line of a node; within is the path that the heading stands for."""
    # Depth is shown by indentation.
    name = node.path.removeprefix(f"{within}.")
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
            return f"{name} {text_of(value)!r}"
        cut = "..." if len(value) > LONGEST else ""
        return f"{name} {value[:LONGEST].hex()}{cut}"
    named = [
        column if bit == 1 else f"{column}={bit}"
        for column, bit in bits_of(body, name)
        if bit and column != "reserved"
    ]
    plain = f"{name} {value:#x}" if value > 9 else f"{name} {value}"
    return f"{plain} ({' '.join(named)})" if named else plain


def text_of(data: bytes) -> str:
    """Return a name that has a fixed number of bytes."""
    return data.replace(b"\0", b" ").decode("ascii", "backslashreplace").rstrip()


def as_json(node: Node) -> dict[str, Any]:
    """Return a node as an object of plain values."""
    fields: dict[str, Any] = {}
    for name, _ in field_sizes(type(node.body)):
        value = node.body.getfieldval(name)
        if isinstance(node.body, Text):
            value = node.body.string
        elif isinstance(value, bytes):
            value = text_of(value) if name in TEXTUAL else value.hex()
        fields[name] = value
    bits = {name: dict(_named(node.body, name)) for name in node.body.bits}
    plain = {"path": node.path, "offset": node.offset, "kind": node.kind}
    return plain | {"fields": fields} | ({"bits": bits} if bits else {})


def _named(body: ByteStructure, name: str) -> Iterator[tuple[str, int]]:
    return (pair for pair in bits_of(body, name) if pair[0] != "reserved")


def show_violation(report: Report, violation: Violation, **more: int) -> None:
    """Print a violation; more says where it is, in JSON."""
    if report.json:
        report.emit(
            **more,
            violation=str(violation.rule),
            path=violation.path,
            offset=violation.offset,
            problem=violation.problem,
            fatal=violation.fatal,
        )
    else:
        report.line(report.paint(f"violation ({violation.rule}): {violation}", "red"))
