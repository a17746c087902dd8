"""What a VIOT must keep to (ACPI 6.4, 5.2.35)."""

from __future__ import annotations

from decoders.acpi.checking import Checks, Rectangle, Span
from decoders.acpi.tree import Node, Rule
from decoders.acpi.viot import (
    ENDPOINTS,
    IOMMUS,
    MmioEndpoint,
    PciRange,
    VirtioMmioIommu,
    VirtioPciIommu,
)

REVISIONS = frozenset({0})
LAST_ENDPOINT = (1 << 32) - 1


def check(checks: Checks) -> None:
    """Check the nodes of a final VIOT."""
    table = checks.table
    places = {node.offset - checks.start: node for node in table.nodes}
    rectangles: list[Rectangle] = []
    endpoints: dict[int, list[Span]] = {}
    for node in table.nodes:
        checks.reserved(node)
        if not isinstance(node.body, ENDPOINTS):
            continue
        _output(checks, node, places)
        span = _endpoints(checks, node)
        if span is None:
            continue
        endpoints.setdefault(node.body.output_node, []).append(span)
        body = node.body
        if isinstance(body, PciRange):
            outer = (body.segment_start, body.segment_end)
            inner = (body.bdf_start, body.bdf_end)
            rectangles.append(Rectangle(outer, inner, node.path, node.offset))
    checks.rectangles(rectangles, "PCI devices")
    for spans in endpoints.values():
        checks.overlaps(spans, "endpoint ids")
    _duplicates(checks)


def _output(checks: Checks, node: Node, places: dict[int, Node]) -> None:
    """Check where output_node points."""
    output: int = node.body.output_node
    target = places.get(output)
    if target is node:
        checks.field(Rule.SELF_REFERENCE, node, "output_node", "the node points to itself")
    elif target is None:
        problem = f"no node begins at {output:#x}"
        checks.field(Rule.DANGLING, node, "output_node", problem)
    elif not isinstance(target.body, IOMMUS):
        problem = f"{target.path} at {output:#x} is no IOMMU"
        checks.field(Rule.DANGLING, node, "output_node", problem)


def _endpoints(checks: Checks, node: Node) -> Span | None:
    """Check the range of endpoint ids that a node gives, and return it."""
    body = node.body
    if isinstance(body, MmioEndpoint):
        return Span(body.endpoint, body.endpoint, node.path, node.offset)
    sound = True
    for first, last in (("segment_start", "segment_end"), ("bdf_start", "bdf_end")):
        low, high = body.getfieldval(first), body.getfieldval(last)
        if high < low:
            problem = f"{high:#x} is below {first} {low:#x}"
            checks.field(Rule.RANGE, node, last, problem)
            sound = False
    if not sound:
        return None
    start: int = body.endpoint_start
    count = (body.segment_end - body.segment_start << 16) + body.bdf_end - body.bdf_start
    if start + count > LAST_ENDPOINT:
        problem = f"the last endpoint id would be {start + count:#x}, beyond 32 bits"
        checks.field(Rule.RANGE, node, "endpoint_start", problem)
        return None
    return Span(start, start + count, node.path, node.offset)


def _duplicates(checks: Checks) -> None:
    """Check that nothing is described twice."""
    seen: dict[tuple[object, ...], Node] = {}
    for node in checks.table.nodes:
        body = node.body
        if isinstance(body, VirtioPciIommu):
            key: tuple[object, ...] = ("pci", body.segment, body.bdf)
        elif isinstance(body, VirtioMmioIommu | MmioEndpoint):
            key = ("mmio", body.base_address)
        else:
            continue
        first = seen.setdefault(key, node)
        if first is not node:
            checks.node(Rule.DUPLICATE, node, f"describes the same device as {first.path}")
