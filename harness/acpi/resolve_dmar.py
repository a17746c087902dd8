"""Find the remapping unit of a device in a DMAR as Linux does (intel/dmar.c, intel/iommu.c)."""

from __future__ import annotations

from collections.abc import Iterator

from decoders.acpi.dmar import (
    ENDPOINT,
    NAMESPACE,
    SUB_HIERARCHY,
    Andd,
    Atsr,
    DeviceScope,
    Drhd,
    PathStep,
    Satc,
)
from decoders.acpi.structures import Text
from decoders.acpi.tree import Node, Table
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.topology import BridgeKind, Device, MmioDevice, NamedDevice, PciDevice, Topology


def resolve_dmar(table: Table, device: Device, topology: Topology | None) -> Answer:
    """Return the unit whose scopes name a device or a bridge above it, or that has all others."""
    if isinstance(device, MmioDevice):
        return Nowhere(Why.NO_SUCH_NAME, table.path, "a DMAR gives PCI functions and names")
    if isinstance(device, NamedDevice):
        return _named(table, device, topology)
    shown = device if topology is None else topology.requester(device)
    unsure, everything = "", None
    for node, unit in table.of(Drhd):
        if unit.segment != device.segment:
            continue
        for scope, body in node.of(DeviceScope):
            if body.entry_type not in (ENDPOINT, SUB_HIERARCHY):
                continue
            named = _covers(scope, body, device, topology)
            if named:
                ats = _ats(table, device, topology)
                return Behind(_iommu(node, unit), shown.bdf, scope.path, ats)
            if named is None:
                unsure = unsure or scope.path
        if unit.flags & 1 and everything is None:
            everything = node, unit
    if unsure:
        return Nowhere(Why.TOPOLOGY, unsure, "the path goes over bridges")
    if everything is not None:
        node, unit = everything
        ats = _ats(table, device, topology)
        return Behind(_iommu(node, unit), shown.bdf, f"{node.path}.flags", ats)
    return Nowhere(Why.NOT_DESCRIBED, table.path)


def _iommu(node: Node, unit: Drhd) -> Iommu:
    return Iommu(IommuKind.VT_D, node.offset, unit.address, unit.segment)


def _covers(
    scope: Node, body: DeviceScope, device: PciDevice, topology: Topology | None
) -> bool | None:
    """Say whether a scope names a device or a bridge above it; None when that is not known."""
    end = _end(scope, body.bus, device.segment, topology)
    if end is None:
        return None if topology is None else False
    if end == device:
        return True
    if body.entry_type != SUB_HIERARCHY:
        return False
    if topology is None:
        # A bridge has higher bus numbers behind it than its own.
        return None if device.bus > end.bus else False
    return any(bridge.device == end for bridge in topology.above(device))


def _end(scope: Node, bus: int, segment: int, topology: Topology | None) -> PciDevice | None:
    """Return the function at the end of a path; None when a bridge on it is not known."""
    end = None
    for _, step in scope.of(PathStep):
        if end is not None:
            bridge = None if topology is None else topology.at(end)
            if bridge is None:
                return None
            bus = bridge.secondary
        end = PciDevice(segment, bus << 8 | (step.device & 0x1F) << 3 | step.function & 7)
    return end


def _scopes(node: Node) -> Iterator[tuple[Node, DeviceScope]]:
    for scope, body in node.of(DeviceScope):
        if body.entry_type in (ENDPOINT, SUB_HIERARCHY):
            yield scope, body


def _ats(table: Table, device: PciDevice, topology: Topology | None) -> bool | None:
    """Say whether a device may use ATS (Linux dmar_ats_supported); None when that is not known."""
    if topology is None:
        return None
    for node, satc in table.of(Satc):
        if satc.segment == device.segment:
            for scope, body in _scopes(node):
                if _end(scope, body.bus, device.segment, topology) == device:
                    return True
    above = topology.above(device)
    if not above:
        return True  # integrated into the root complex
    if any(bridge.kind is not BridgeKind.EXPRESS for bridge in above):
        return False
    for node, atsr in table.of(Atsr):
        if atsr.segment != device.segment:
            continue
        ends = (_end(scope, body.bus, device.segment, topology) for scope, body in _scopes(node))
        if atsr.flags & 1 or above[-1].device in ends:
            return True
    return False


def _named(table: Table, device: NamedDevice, topology: Topology | None) -> Answer:
    numbers = [
        body.device_number
        for node, body in table.of(Andd)
        if any(text.string == device.name for _, text in node.of(Text))
    ]
    if not numbers:
        return Nowhere(Why.NOT_DESCRIBED, table.path, "no ANDD has that name")
    for node, unit in table.of(Drhd):
        for scope, body in node.of(DeviceScope):
            if body.entry_type != NAMESPACE or body.enumeration_id != numbers[0]:
                continue
            end = _end(scope, body.bus, unit.segment, topology)
            if end is None:
                return Nowhere(Why.TOPOLOGY, scope.path, "the path goes over bridges")
            return Behind(_iommu(node, unit), end.bdf, scope.path)
    return Nowhere(Why.NOT_DESCRIBED, table.path, f"no unit has device number {numbers[0]}")
