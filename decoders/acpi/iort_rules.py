"""What an IORT must keep to (Arm DEN 0049E.f)."""

from __future__ import annotations

from typing import Final

from decoders.acpi import iort_nodes as kinds
from decoders.acpi.checking import Checks, Span
from decoders.acpi.structures import Number32
from decoders.acpi.tree import Node, Rule
from decoders.bytewise import ByteStructure, bit

REVISIONS: Final = frozenset(range(8))
"""0 is issue D, 1 to 6 are issues E to E.f, 7 is the one that adds IWB."""

NODE_REVISIONS: Final[tuple[tuple[type[ByteStructure], int], ...]] = (
    (kinds.ItsGroup, 1),
    (kinds.NamedComponent, 4),
    (kinds.EarlyRootComplex, 4),
    (kinds.Smmu, 3),
    (kinds.EarlySmmuV3, 5),
    (kinds.EarlyPmcg, 2),
    (kinds.ReservedMemory, 3),
    (kinds.Iwb, 1),
)
"""Highest known revision by kind of node (those of ACPICA's template, SMMUv3 by issue E.f)."""

_SINGLE: Final = (
    kinds.NamedComponent,
    kinds.EarlyRootComplex,
    kinds.EarlySmmuV3,
    kinds.EarlyPmcg,
    kinds.Iwb,
    kinds.ReservedMemory,
)
_IDS: Final = 1 << 32
_RMR_ALIGNMENT: Final = 0xFFFF


def check(checks: Checks) -> None:
    """Check the nodes of an IORT."""
    nodes = checks.table.nodes
    places = {node.offset - checks.start: node for node in nodes}
    identifiers: dict[int, Node] = {}
    bases: dict[int, Node] = {}
    revision = _revision(checks)
    for node in nodes:
        checks.reserved(node)
        for part in node.parts:
            checks.reserved(part)
        for cls, highest in NODE_REVISIONS:
            if isinstance(node.body, cls) and node.body.revision > highest:
                problem = f"{node.body.revision} is not known for this type, {highest} is"
                checks.field(Rule.REVISION, node, "revision", problem)
        # Before issue E.b the field was reserved (DEN 0049E.b).
        if revision >= 3:
            first = identifiers.setdefault(node.body.identifier, node)
            if first is not node:
                problem = f"{node.body.identifier} is the identifier of {first.path} as well"
                checks.field(Rule.DUPLICATE, node, "identifier", problem)
        if isinstance(node.body, kinds.Smmu | kinds.EarlySmmuV3):
            same = bases.setdefault(node.body.base_address, node)
            if same is not node:
                problem = f"{same.path} has its registers there as well"
                checks.field(Rule.DUPLICATE, node, "base_address", problem)
        _mappings(checks, node, places)
        _details(checks, node, places)
    _circles(checks, places)


def _revision(checks: Checks) -> int:
    header = checks.table.lead[0].body
    return int(getattr(header, "revision", 0))


def _mappings(checks: Checks, node: Node, places: dict[int, Node]) -> None:
    """Check the id mappings of one node."""
    spans: list[Span] = []
    skipped = _device_id_mapping(node)
    for index, (place, mapping) in enumerate(node.of(kinds.IdMapping)):
        _reference(checks, node, place, "output_reference", places)
        if mapping.flags & 1:
            if not isinstance(node.body, _SINGLE):
                problem = "a single mapping is not allowed in this type of node"
                checks.field(Rule.VALUE, place, "flags", problem)
            continue
        for name in ("input_base", "output_base"):
            last = mapping.getfieldval(name) + mapping.id_count
            if last >= _IDS:
                problem = f"the last of {mapping.id_count + 1} ids would be {last:#x}"
                checks.field(Rule.RANGE, place, name, problem)
        if index != skipped:
            first = mapping.input_base
            spans.append(Span(first, first + mapping.id_count, place.path, place.offset))
    checks.overlaps(spans, "input ids")


def _device_id_mapping(node: Node) -> int | None:
    """Return the index of the mapping that is for the interrupts of an SMMU itself."""
    body = node.body
    if isinstance(body, kinds.SmmuV3) and bit(body, "flags", "device_id_valid"):
        return int(body.id_mapping_index)
    return None


_TARGETS: Final[tuple[tuple[type[ByteStructure], tuple[type[ByteStructure], ...]], ...]] = (
    (kinds.Smmu, (kinds.ItsGroup,)),
    (kinds.EarlySmmuV3, (kinds.ItsGroup,)),
    (kinds.EarlyPmcg, (kinds.ItsGroup, kinds.Iwb)),
    (kinds.Iwb, (kinds.ItsGroup,)),
    (kinds.ReservedMemory, (kinds.Smmu, kinds.EarlySmmuV3)),
    (kinds.NamedComponent, (*kinds.IOMMUS, kinds.ItsGroup, kinds.Iwb)),
    (kinds.EarlyRootComplex, (*kinds.IOMMUS, kinds.ItsGroup)),
    (kinds.DraftVirtioPci, (kinds.ItsGroup,)),
    (kinds.DraftVirtioMmio, (kinds.ItsGroup,)),
)


def _reference(checks: Checks, node: Node, place: Node, name: str, places: dict[int, Node]) -> None:
    """Check that a reference leads from node to a node that it may lead to."""
    output: int = place.body.getfieldval(name)
    target = places.get(output)
    if target is node:
        checks.field(Rule.SELF_REFERENCE, place, name, "the node points to itself")
    elif target is None:
        problem = f"no node begins at {output:#x}" if output else "it is zero"
        checks.field(Rule.DANGLING, place, name, problem)
    else:
        for cls, allowed in _TARGETS:
            if isinstance(node.body, cls) and not isinstance(target.body, allowed):
                problem = f"{target.path} is a {target.kind}, which is no output of a {node.kind}"
                checks.field(Rule.DANGLING, place, name, problem)


def _details(checks: Checks, node: Node, places: dict[int, Node]) -> None:
    """Check what only one type of node has."""
    body = node.body
    if isinstance(body, kinds.ItsGroup):
        if body.mapping_count:
            checks.field(Rule.COUNT, node, "mapping_count", "an ITS group maps nothing")
        if not body.its_count:
            checks.field(Rule.COUNT, node, "its_count", "the group is empty")
        seen = set()
        for part, identifier in node.of(Number32):
            if identifier.value in seen:
                problem = f"{identifier.value} is in the group already"
                checks.field(Rule.DUPLICATE, part, "value", problem)
            seen.add(identifier.value)
    elif isinstance(body, kinds.EarlySmmuV3):
        index = _device_id_mapping(node)
        if index is not None and index >= max(1, body.mapping_count):
            problem = f"{index}, there are {body.mapping_count} mappings"
            checks.field(Rule.RANGE, node, "id_mapping_index", problem)
        if not body.base_address:
            checks.field(Rule.VALUE, node, "base_address", "0 is no register base")
    elif isinstance(body, kinds.EarlyPmcg):
        if body.node_reference:
            _points_to_node(checks, node, places)
    elif isinstance(body, kinds.ReservedMemory):
        _reserved_memory(checks, node)


def _points_to_node(checks: Checks, node: Node, places: dict[int, Node]) -> None:
    target = places.get(node.body.node_reference)
    if target is node:
        checks.field(Rule.SELF_REFERENCE, node, "node_reference", "the node points to itself")
    elif target is None:
        problem = f"no node begins at {node.body.node_reference:#x}"
        checks.field(Rule.DANGLING, node, "node_reference", problem)


def _reserved_memory(checks: Checks, node: Node) -> None:
    if not node.body.rmr_count:
        checks.field(Rule.COUNT, node, "rmr_count", "the node names no memory")
    if not node.body.mapping_count:
        checks.field(Rule.COUNT, node, "mapping_count", "the memory is for no device")
    spans = []
    for part, area in node.of(kinds.ReservedRange):
        for name in ("base_address", "length"):
            value = area.getfieldval(name)
            if value & _RMR_ALIGNMENT:
                problem = f"{value:#x} is not a multiple of 64 KiB"
                checks.field(Rule.ALIGNMENT, part, name, problem)
        last = area.base_address + area.length - 1
        if not area.length:
            checks.field(Rule.RANGE, part, "length", "the range is empty")
        elif last >> 64:
            checks.field(Rule.RANGE, part, "length", "the range goes beyond 64 bits")
        else:
            spans.append(Span(area.base_address, last, part.path, part.offset))
    checks.overlaps(spans, "addresses")


def _circles(checks: Checks, places: dict[int, Node]) -> None:
    """Report mappings that lead back to where they come from over other nodes."""
    colour: dict[int, int] = {}
    for start, first in places.items():
        if colour.get(start):
            continue
        colour[start] = 1
        stack = [(start, iter(list(first.of(kinds.IdMapping))))]
        while stack:
            at, mappings = stack[-1]
            for place, mapping in mappings:
                target = mapping.output_reference
                if target not in places or target == at:
                    continue
                if colour.get(target) == 1:
                    problem = f"leads back to {places[target].path}, which leads here"
                    checks.field(Rule.SELF_REFERENCE, place, "output_reference", problem)
                elif target not in colour:
                    colour[target] = 1
                    stack.append((target, iter(list(places[target].of(kinds.IdMapping)))))
                    break
            else:
                colour[at] = 2
                stack.pop()
