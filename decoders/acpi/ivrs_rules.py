"""What an IVRS must keep to (AMD 48882, chapter 5)."""

from __future__ import annotations

from decoders.acpi import ivrs
from decoders.acpi.checking import Checks, Rectangle, union
from decoders.acpi.ivrs import (
    DeviceEntry,
    HidEntry,
    Ivhd10,
    Ivmd,
    SpecialEntry,
)
from decoders.acpi.tree import Node, Rule

REVISIONS = frozenset({1, 2})
STARTS = frozenset({ivrs.RANGE_START, ivrs.ALIAS_START, ivrs.EXTENDED_START})
SELECTS = frozenset({ivrs.SELECT, ivrs.ALIAS_SELECT, ivrs.EXTENDED_SELECT})


def check(checks: Checks) -> None:
    """Check the blocks of an IVRS."""
    seen: dict[tuple[int, int, int], Node] = {}
    claims: dict[int, list[Rectangle]] = {}
    for node in checks.table.nodes:
        checks.reserved(node)
        body = node.body
        if isinstance(body, Ivmd):
            _memory(checks, node, body)
        elif isinstance(body, Ivhd10):
            first = seen.setdefault((body.type, body.pci_segment_group, body.device_id), node)
            if first is not node:
                problem = f"describes the same IOMMU as {first.path}"
                checks.node(Rule.DUPLICATE, node, problem)
            if not body.base_address or body.base_address & 0x3FFF:
                problem = f"{body.base_address:#x} is not a multiple of 16 KiB above 0"
                checks.field(Rule.ALIGNMENT, node, "base_address", problem)
            claims.setdefault(body.type, []).extend(union(_entries(checks, node, body)))
    for rectangles in claims.values():
        checks.rectangles(rectangles, "device ids")


def _memory(checks: Checks, node: Node, body: Ivmd) -> None:
    for name in ("start_address", "memory_length"):
        value = body.getfieldval(name)
        if value & 0xFFF:
            problem = f"{value:#x} is not a multiple of 4 KiB"
            checks.field(Rule.ALIGNMENT, node, name, problem)
    if not body.memory_length:
        checks.field(Rule.RANGE, node, "memory_length", "the range is empty")
    elif body.start_address + body.memory_length > 1 << 64:
        checks.field(Rule.RANGE, node, "memory_length", "the range goes beyond 64 bits")
    if body.type == 0x22 and body.aux_data < body.device_id:
        problem = f"{body.aux_data:#x} is below device_id {body.device_id:#x}"
        checks.field(Rule.RANGE, node, "aux_data", problem)


def _entries(checks: Checks, node: Node, ivhd: Ivhd10) -> list[Rectangle]:
    """Check the device entries of one block and return the device ids that it claims.

    A later entry of a block may override an earlier one, as in Linux (amd/init.c).
    """
    segment = (ivhd.pci_segment_group, ivhd.pci_segment_group)
    claims: list[Rectangle] = []
    start: Node | None = None
    for entry, body in node.of(DeviceEntry):
        kind: int = body.type
        checks.reserved(entry)
        if start is not None and kind not in (ivrs.RANGE_END, ivrs.PAD, ivrs.PAD8):
            checks.node(Rule.ORDER, entry, f"the range of {start.path} has no end before it")
            start = None
        if kind in STARTS:
            start = entry
        elif kind == ivrs.RANGE_END:
            if start is None:
                checks.node(Rule.ORDER, entry, "the end of a range that has no start")
            elif body.device_id < start.body.device_id:
                problem = f"{body.device_id:#x} is below the start, {start.body.device_id:#x}"
                checks.field(Rule.RANGE, entry, "device_id", problem)
            else:
                ids = (start.body.device_id, body.device_id)
                claims.append(Rectangle(segment, ids, start.path, start.offset))
            start = None
        elif kind in SELECTS:
            ids = (body.device_id, body.device_id)
            claims.append(Rectangle(segment, ids, entry.path, entry.offset))
        elif kind == ivrs.ALL:
            claims.append(Rectangle(segment, (0, 0xFFFF), entry.path, entry.offset))
        _details(checks, entry, body)
    if start is not None:
        checks.node(Rule.ORDER, start, "the start of a range that has no end")
    return claims


def _details(checks: Checks, entry: Node, body: DeviceEntry) -> None:
    if isinstance(body, SpecialEntry) and body.variety not in (1, 2):
        problem = f"{body.variety} is neither an I/O APIC nor a HPET"
        checks.field(Rule.VALUE, entry, "variety", problem)
    if isinstance(body, HidEntry):
        wanted = {0: "0", 1: "8"}.get(body.uid_type)
        if body.uid_type > 2:
            problem = f"format {body.uid_type} is not defined"
            checks.field(Rule.VALUE, entry, "uid_type", problem)
        elif wanted and body.uid_length != int(wanted):
            problem = f"{body.uid_length} bytes, a UID of format {body.uid_type} has {wanted}"
            checks.field(Rule.LENGTH, entry, "uid_length", problem)
