"""What a topology description must keep to, besides what keeps it from being decoded."""

from __future__ import annotations

from decoders.acpi.checking import Checks, Rectangle, Span
from decoders.acpi.tree import Node, Rule, Table, Violation
from decoders.virtio_iommu.forms import ALIGNMENT, Form, Mmio, PciRange
from decoders.virtio_iommu.topology import ConfigSpace

LAST_ENDPOINT = (1 << 32) - 1


def validate(space: ConfigSpace) -> list[Violation]:
    """Return what is wrong with a config space, in the order of its bytes."""
    checks = Checks(Table(space.form.value, space.path, 0, space.lead, space.items))
    checks.violations += space.faults
    for node in (*space.lead, *space.items):
        checks.reserved(node)
    if space.form is Form.V3:
        for node in space.lead[1:]:
            if node.body.count and node.body.offset % ALIGNMENT:
                problem = f"{node.body.offset:#x} is not a multiple of {ALIGNMENT}"
                checks.field(Rule.ALIGNMENT, node, "offset", problem)
    if space.form is Form.BYPASS_CONFIG:
        for node in space.lead[:1]:
            if node.body.bypass > 1:
                problem = f"{node.body.bypass} is neither 0 nor 1"
                checks.field(Rule.VALUE, node, "bypass", problem)
    _items(checks, space)
    return sorted(checks.violations, key=lambda violation: violation.offset)


def _items(checks: Checks, space: ConfigSpace) -> None:
    devices: list[Rectangle] = []
    endpoints: list[Span] = []
    for node, body in space.of(PciRange):
        count = body.bdf_end - body.bdf_start
        last = body.endpoint_start + count
        if count < 0:
            problem = f"{body.bdf_end:#x} is below bdf_start {body.bdf_start:#x}"
            checks.field(Rule.RANGE, node, "bdf_end", problem)
        elif last > LAST_ENDPOINT:
            problem = f"the last endpoint id would be {last:#x}, beyond 32 bits"
            checks.field(Rule.RANGE, node, "endpoint_start", problem)
        else:
            outer = body.segment, body.segment
            inner = body.bdf_start, body.bdf_end
            devices.append(Rectangle(outer, inner, node.path, node.offset))
            endpoints.append(Span(body.endpoint_start, last, node.path, node.offset))
    seen: dict[int, Node] = {}
    for node, mmio in space.of(Mmio):
        endpoints.append(Span(mmio.endpoint, mmio.endpoint, node.path, node.offset))
        known = seen.setdefault(mmio.address, node)
        if known is not node:
            problem = f"describes the same device as {known.path}"
            checks.node(Rule.DUPLICATE, node, problem)
    checks.rectangles(devices, "PCI devices")
    checks.overlaps(endpoints, "endpoint ids")
