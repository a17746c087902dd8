"""Find the IOMMU of a device in an IVRS as Linux does (amd/init.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decoders.acpi import ivrs
from decoders.acpi.ivrs import AliasEntry, DeviceEntry, ExtendedEntry, HidEntry, Ivhd10
from decoders.acpi.tree import Node, Table
from decoders.bytewise import bit
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.topology import Device, MmioDevice, NamedDevice, Topology


@dataclass(frozen=True, slots=True)
class _Claim:
    """Say that a block claims device ids, and which id they use (-1: their own)."""

    first: int
    last: int
    used: int
    ats_disabled: bool
    path: str


def resolve_ivrs(table: Table, device: Device, topology: Topology | None) -> Answer:
    """Return the IOMMU whose last entry names a device."""
    if isinstance(device, MmioDevice):
        return Nowhere(Why.NO_SUCH_NAME, table.path, "an IVRS gives PCI functions and names")
    if isinstance(device, NamedDevice):
        return _named(table, device)
    found: Answer = Nowhere(Why.NOT_DESCRIBED, table.path)
    alias = -1  # one that was given stays, whatever names the device later
    for node, block in _blocks(table):
        if block.pci_segment_group != device.segment:
            continue
        if block.device_id == device.bdf:
            return Nowhere(Why.IS_IOMMU, node.path)
        for claim in _claims(node):
            if not claim.first <= device.bdf <= claim.last:
                continue
            alias = alias if claim.used < 0 else claim.used
            shown = device if topology is None else topology.requester(device)
            endpoint = shown.bdf if alias < 0 else alias
            ats = bool(bit(block, "flags", "iotlb_support")) and not claim.ats_disabled
            found = Behind(_iommu(node, block), endpoint, claim.path, ats)
    return found


def _blocks(table: Table) -> Iterator[tuple[Node, Ivhd10]]:
    """Yield the blocks of the newest form; older ones describe the same IOMMUs again."""
    blocks = list(table.of(Ivhd10))
    if blocks:
        own = blocks[0][1].device_id
        newest = [block.type for _, block in blocks if block.device_id == own][-1]
        yield from ((node, block) for node, block in blocks if block.type == newest)


def _iommu(node: Node, block: Ivhd10) -> Iommu:
    segment, bdf = block.pci_segment_group, block.device_id
    return Iommu(IommuKind.AMD_VI, node.offset, block.base_address, segment, bdf)


def _claims(node: Node) -> Iterator[_Claim]:
    """Yield what the entries of a block claim, in their order."""
    start: tuple[int, int, bool, str] | None = None
    for entry, body in node.of(DeviceEntry):
        device: int = body.device_id
        used = body.used_id if isinstance(body, AliasEntry) else -1
        disabled = isinstance(body, ExtendedEntry) and body.extended_data >> 31 == 1
        match body.type:
            case ivrs.ALL:
                yield _Claim(0, 0xFFFF, -1, False, entry.path)
            case ivrs.SELECT | ivrs.ALIAS_SELECT | ivrs.EXTENDED_SELECT | ivrs.ACPI_HID:
                if used >= 0:
                    yield _Claim(used, used, -1, False, entry.path)
                yield _Claim(device, device, used, disabled, entry.path)
            case ivrs.SPECIAL:
                yield _Claim(body.used_id, body.used_id, -1, False, entry.path)
            case ivrs.RANGE_START | ivrs.ALIAS_START | ivrs.EXTENDED_START:
                start = device, used, disabled, entry.path
            case ivrs.RANGE_END if start is not None:
                first, used, disabled, path = start
                if used >= 0:
                    yield _Claim(used, used, -1, False, path)
                yield _Claim(first, device, used, disabled, path)
                start = None


def _named(table: Table, device: NamedDevice) -> Answer:
    for node, block in _blocks(table):
        for entry, body in node.of(HidEntry):
            hid = body.acpi_hid.rstrip(b"\0").decode("ascii", "backslashreplace")
            if hid == device.name and device.uid in ("", _uid(entry, body)):
                return Behind(_iommu(node, block), body.device_id, entry.path)
    return Nowhere(Why.NOT_DESCRIBED, table.path, "no entry has that hardware id")


def _uid(entry: Node, body: HidEntry) -> str:
    data = b"".join(part.body.data for part in entry.parts)
    if body.uid_type == 1:
        return str(int.from_bytes(data, "little"))
    return data.decode("ascii", "backslashreplace")
