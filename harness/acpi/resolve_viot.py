"""Find the IOMMU of a device in a VIOT as Linux does (drivers/acpi/viot.c)."""

from __future__ import annotations

from decoders.acpi.tree import Node, Table
from decoders.acpi.viot import MmioEndpoint, PciRange, VirtioMmioIommu, VirtioPciIommu
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.topology import Device, MmioDevice, NamedDevice, PciDevice, Topology

ENDPOINT_MASK = (1 << 32) - 1


def resolve_viot(table: Table, device: Device, topology: Topology | None) -> Answer:
    """Return the IOMMU of the first node that names a device."""
    if isinstance(device, NamedDevice):
        return Nowhere(Why.NO_SUCH_NAME, table.path, "a VIOT gives addresses, not names")
    places = {node.offset - table.offset: node for node in table.nodes}
    if isinstance(device, MmioDevice):
        for node, mmio in table.of(MmioEndpoint):
            if mmio.base_address == device.address:
                return _behind(node, places, device, mmio.endpoint)
        return Nowhere(Why.NOT_DESCRIBED, table.path)
    shown = device if topology is None else topology.requester(device)
    for node, area in table.of(PciRange):
        inside = area.segment_start <= shown.segment <= area.segment_end
        if inside and area.bdf_start <= shown.bdf <= area.bdf_end:
            segments = shown.segment - area.segment_start << 16
            endpoint = segments + shown.bdf - area.bdf_start + area.endpoint_start
            return _behind(node, places, device, endpoint & ENDPOINT_MASK)
    return Nowhere(Why.NOT_DESCRIBED, table.path)


def _behind(node: Node, places: dict[int, Node], device: Device, endpoint: int) -> Answer:
    target = places.get(node.body.output_node)
    body = None if target is None else target.body
    own: Device
    if target is not None and isinstance(body, VirtioPciIommu):
        own = PciDevice(body.segment, body.bdf)
        iommu = Iommu(IommuKind.VIRTIO_PCI, target.offset, segment=body.segment, bdf=body.bdf)
    elif target is not None and isinstance(body, VirtioMmioIommu):
        own = MmioDevice(body.base_address)
        iommu = Iommu(IommuKind.VIRTIO_MMIO, target.offset, body.base_address)
    else:
        path = f"{node.path}.output_node"
        return Nowhere(Why.DANGLING, path, f"no IOMMU at {node.body.output_node:#x}")
    if device == own:
        return Nowhere(Why.IS_IOMMU, target.path)
    return Behind(iommu, endpoint, node.path)
