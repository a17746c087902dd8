"""Find the endpoint id of a device in the config space of a virtio-iommu.

The drafts' drivers add to their own device what its config space lists, so the caller says which
IOMMU that is.
"""

from __future__ import annotations

from decoders.virtio_iommu.forms import HEADS, Mmio, PciRange
from decoders.virtio_iommu.topology import ConfigSpace
from harness.acpi.answers import Answer, Behind, Iommu, Nowhere, Why
from harness.acpi.topology import Device, MmioDevice, NamedDevice, PciDevice, Topology

ENDPOINT_MASK = (1 << 32) - 1


def resolve_config(
    space: ConfigSpace, iommu: Iommu, device: Device, topology: Topology | None = None
) -> Answer:
    """Return the endpoint id that the first item naming a device gives it.

    space is the config space of iommu; topology as for `resolve`.
    """
    if isinstance(device, NamedDevice):
        return Nowhere(Why.NO_SUCH_NAME, space.path, "config space gives addresses, not names")
    if space.form not in HEADS:
        return Nowhere(Why.NO_TABLE, space.path, f"form {space.form} describes no topology")
    if isinstance(device, MmioDevice):
        for node, mmio in space.of(Mmio):
            if mmio.address == device.address:
                return _behind(iommu, device, mmio.endpoint, node.path)
        return Nowhere(Why.NOT_DESCRIBED, space.path)
    shown = device if topology is None else topology.requester(device)
    for node, area in space.of(PciRange):
        if area.segment == shown.segment and area.bdf_start <= shown.bdf <= area.bdf_end:
            endpoint = shown.bdf - area.bdf_start + area.endpoint_start
            return _behind(iommu, device, endpoint & ENDPOINT_MASK, node.path)
    return Nowhere(Why.NOT_DESCRIBED, space.path)


def _behind(iommu: Iommu, device: Device, endpoint: int, path: str) -> Answer:
    own: Device = PciDevice(iommu.segment, iommu.bdf)
    if iommu.base >= 0:
        own = MmioDevice(iommu.base)
    if device == own:
        return Nowhere(Why.IS_IOMMU, path)
    return Behind(iommu, endpoint, path)
