"""Find the SMMU of a device in an IORT as Linux does (drivers/acpi/arm64/iort.c)."""

from __future__ import annotations

from decoders.acpi import iort_nodes as kinds
from decoders.acpi.structures import Text
from decoders.acpi.tree import Node, Table
from decoders.bytewise import bit
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.topology import Device, MmioDevice, NamedDevice, PciDevice, Topology

ID_MASK = (1 << 32) - 1


def resolve_iort(table: Table, device: Device, topology: Topology | None) -> Answer:
    """Follow the id mappings of a device's node to an IOMMU."""
    if isinstance(device, MmioDevice):
        return Nowhere(Why.NO_SUCH_NAME, table.path, "an IORT gives names, not addresses")
    if isinstance(device, NamedDevice):
        for node, _ in table.of(kinds.NamedComponent):
            if _name(node) == device.name:
                return _follow(table, node, device.id, device, None)
        return Nowhere(Why.NOT_DESCRIBED, table.path)
    shown = device if topology is None else topology.requester(device)
    # Of several root complexes for a segment Linux takes the first.
    for node, root in table.of(kinds.EarlyRootComplex):
        if root.pci_segment_number == device.segment:
            ats = bool(bit(root, "ats_attribute", "ats"))
            return _follow(table, node, shown.bdf, device, ats)
    return Nowhere(Why.NOT_DESCRIBED, table.path, f"no root complex of segment {device.segment}")


def _name(node: Node) -> str:
    return next((text.string for _, text in node.of(Text)), "")


def _follow(table: Table, start: Node, number: int, device: Device, ats: bool | None) -> Answer:
    places = {node.offset - table.offset: node for node in table.nodes}
    node, seen = start, set()
    while True:
        iommu = _iommu(node)
        if iommu is not None:
            if PciDevice(iommu.segment, iommu.bdf) == device:
                return Nowhere(Why.IS_IOMMU, node.path)
            return Behind(iommu, number, start.path, ats)
        if node.offset in seen:
            return Nowhere(Why.CIRCLE, node.path)
        seen.add(node.offset)
        mapped = _map(node, number)
        if mapped is None:
            return Nowhere(Why.NO_MAPPING, node.path, f"for id {number:#x}")
        number, reference, path = mapped
        target = places.get(reference)
        if target is None:
            return Nowhere(Why.DANGLING, path, f"no node at {reference:#x}")
        node = target


def _iommu(node: Node) -> Iommu | None:
    body = node.body
    if isinstance(body, kinds.EarlySmmuV3):
        return Iommu(IommuKind.SMMU_V3, node.offset, body.base_address)
    if isinstance(body, kinds.Smmu):
        return Iommu(IommuKind.SMMU, node.offset, body.base_address)
    if isinstance(body, kinds.DraftVirtioMmio):
        return Iommu(IommuKind.VIRTIO_MMIO, node.offset, body.base_address)
    if isinstance(body, kinds.DraftVirtioPci):
        segment, bdf = body.devid >> 16, body.devid & 0xFFFF
        return Iommu(IommuKind.VIRTIO_PCI, node.offset, segment=segment, bdf=bdf)
    return None


def _map(node: Node, wanted: int) -> tuple[int, int, str] | None:
    """Return the id that a node's mappings give, where they lead, and which one it was."""
    found: tuple[int, int, str] | None = None
    for index, (place, mapping) in enumerate(node.of(kinds.IdMapping)):
        if not index and not mapping.output_reference:
            return None  # Linux gives up on the node
        output = mapping.output_reference
        if mapping.flags & 1:
            if isinstance(node.body, kinds.NamedComponent | kinds.EarlyRootComplex | kinds.Iwb):
                return mapping.output_base, output, place.path
            continue
        last = mapping.input_base + mapping.id_count & ID_MASK
        if not mapping.input_base <= wanted <= last:
            continue
        if found is not None and found[1] and wanted != mapping.input_base:
            continue
        result = mapping.output_base + wanted - mapping.input_base & ID_MASK
        found = result, output, place.path
        # id_count is the number of ids less one, but some firmware gives the number: the last id
        # belongs to a range that begins with it, if there is one.
        if not mapping.id_count or wanted != last:
            break
    return found
