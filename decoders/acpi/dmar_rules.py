"""What a DMAR must keep to (VT-d chapter 8)."""

from __future__ import annotations

from collections.abc import Iterator

from decoders.acpi.checking import Checks, Span
from decoders.acpi.dmar import (
    ENDPOINT,
    HPET,
    IO_APIC,
    NAMESPACE,
    SUB_HIERARCHY,
    Andd,
    Atsr,
    DeviceScope,
    Dmar,
    DmarNodeHeader,
    Drhd,
    PathStep,
    Rhsa,
    Rmrr,
)
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import bit

REVISIONS = frozenset({1, 2})
LEAST_WIDTH = 11
"""Least value of width that Linux accepts (dmar.c, parse_dmar_table)."""

SCOPE_TYPES = frozenset({ENDPOINT, SUB_HIERARCHY, IO_APIC, HPET, NAMESPACE})


def check(checks: Checks) -> None:
    """Check the remapping structures of a DMAR."""
    table = checks.table
    head = table.head(Dmar)
    if head is not None and head.width < LEAST_WIDTH:
        place = next(node for node in table.lead if node.body is head)
        problem = f"host addresses of {head.width + 1} bits"
        checks.field(Rule.VALUE, place, "width", problem)
    numbers = {body.device_number for _, body in table.of(Andd)}
    highest = -1
    for node in table.nodes:
        checks.reserved(node)
        if not isinstance(node.body, DmarNodeHeader):
            # VT-d 8.2: structures are listed in the numerical order of their types.
            if node.body.type < highest:
                problem = f"{node.kind} behind a structure of type {highest}"
                checks.node(Rule.ORDER, node, problem)
            highest = max(highest, node.body.type)
        for scope, body in node.of(DeviceScope):
            _scope(checks, scope, body, numbers)
    _units(checks)
    _ranges(checks)
    _ports(checks)


def _units(checks: Checks) -> None:
    """Check the remapping units against each other."""
    windows: list[Span] = []
    everything: dict[int, Node] = {}
    claimed: dict[tuple[object, ...], Node] = {}
    bases = set()
    for node, body in checks.table.of(Drhd):
        _aligned(checks, node, "address", 0)
        bases.add(body.address)
        if body.address in (0, (1 << 64) - 1):
            checks.field(Rule.VALUE, node, "address", f"{body.address:#x} is no register base")
        else:
            last = body.address + (0x1000 << bit(body, "size", "pages_log2")) - 1
            windows.append(Span(body.address, last, f"{node.path}.address", node.locate("address")))
        before = everything.get(body.segment)
        if before is not None:
            problem = f"behind {before.path}, which includes all of segment {body.segment}"
            checks.node(Rule.ORDER, node, problem)
        elif body.flags & 1:
            everything[body.segment] = node
        scopes = list(node.of(DeviceScope))
        if not scopes and not body.flags & 1:
            checks.node(Rule.RANGE, node, "names no device")
        for scope, named in scopes:
            key = _identity(body.segment, scope, named)
            first = claimed.setdefault(key, scope)
            if first is not scope:
                problem = f"names the device of {first.path}"
                checks.node(Rule.DUPLICATE, scope, problem)
    checks.overlaps(windows, "registers at")
    for node, affinity in checks.table.of(Rhsa):
        if affinity.base_address not in bases:
            problem = f"no unit has its registers at {affinity.base_address:#x}"
            checks.field(Rule.DANGLING, node, "base_address", problem)


def _identity(segment: int, scope: Node, body: DeviceScope) -> tuple[object, ...]:
    if body.entry_type in (IO_APIC, HPET, NAMESPACE):
        return body.entry_type, body.enumeration_id
    steps = tuple((step.device, step.function) for _, step in scope.of(PathStep))
    return segment, body.bus, steps


def _ranges(checks: Checks) -> None:
    """Check the reserved memory."""
    for node, body in checks.table.of(Rmrr):
        _aligned(checks, node, "base_address", 0)
        _aligned(checks, node, "end_address", 1)
        if body.end_address < body.base_address:
            problem = f"{body.end_address:#x} is below base_address {body.base_address:#x}"
            checks.field(Rule.RANGE, node, "end_address", problem)
        if not node.parts:
            checks.node(Rule.RANGE, node, "names no device")


def _ports(checks: Checks) -> None:
    """Check root ports and named devices."""
    for node, body in checks.table.of(Atsr):
        if not node.parts and not body.flags & 1:
            checks.node(Rule.RANGE, node, "names no root port")
    seen: dict[int, Node] = {}
    for node, named in checks.table.of(Andd):
        first = seen.setdefault(named.device_number, node)
        if first is not node:
            problem = f"{named.device_number} is the number of {first.path} as well"
            checks.field(Rule.DUPLICATE, node, "device_number", problem)


def _aligned(checks: Checks, node: Node, name: str, ahead: int) -> None:
    value = node.body.getfieldval(name)
    if (value + ahead) & 0xFFF:
        problem = f"{value:#x} is not at the {'end' if ahead else 'start'} of a page"
        checks.field(Rule.ALIGNMENT, node, name, problem)


def _scope(checks: Checks, node: Node, body: DeviceScope, numbers: set[int]) -> None:
    """Check one device scope; numbers are those of the named devices."""
    checks.reserved(node)
    kind: int = body.entry_type
    if kind not in SCOPE_TYPES:
        checks.field(Rule.UNKNOWN_TYPE, node, "entry_type", f"type {kind} is not defined")
        return
    steps = list(node.of(PathStep))
    if not steps:
        checks.field(Rule.LENGTH, node, "length", "there is no path to the device")
    for step, place in steps:
        for name, limit in _limits():
            value = place.getfieldval(name)
            if value > limit:
                problem = f"{value:#x}, the largest is {limit:#x}"
                checks.field(Rule.VALUE, step, name, problem)
    if kind == NAMESPACE and body.enumeration_id not in numbers:
        problem = f"no ANDD has device number {body.enumeration_id}"
        checks.field(Rule.DANGLING, node, "enumeration_id", problem)


def _limits() -> Iterator[tuple[str, int]]:
    yield "device", 31
    yield "function", 7
