"""Read what Linux said in QEMU's machines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoders.acpi import Table, read
from harness.acpi.topology import Bridge, BridgeKind, PciDevice, Topology

CORPUS = Path(__file__).parents[3] / "corpora/acpi"
ANSWERS = sorted((CORPUS / "linux").glob("*.json"))
TO_CONVENTIONAL, FROM_CONVENTIONAL = 7, 8
"""Types of bridges in the PCI Express capability."""


def pci(text: str) -> PciDevice:
    segment, bus, rest = text.split(":")
    device, function = rest.split(".")
    number = int(bus, 16) << 8 | int(device, 16) << 3 | int(function)
    return PciDevice(int(segment, 16), number)


def kind(port: int | None) -> BridgeKind:
    if port == TO_CONVENTIONAL:
        return BridgeKind.TO_CONVENTIONAL
    if port in (None, FROM_CONVENTIONAL):
        return BridgeKind.CONVENTIONAL
    return BridgeKind.EXPRESS


@dataclass(frozen=True)
class Seen:
    """Say what Linux has for a device: group and IOMMU, or None."""

    device: PciDevice
    group: int | None
    iommu: str | None


@dataclass(frozen=True)
class Guest:
    """Hold the answers of one guest.

    endpoints are the ids that Linux gave to an IOMMU and QEMU has a device for; those of VT-d and
    AMD-Vi are not seen. taken has the devices that an SMMU's driver refused because another has one
    of their stream ids: which id, and which device.
    """

    tables: list[Table]
    topology: Topology
    seen: list[Seen]
    endpoints: list[int]
    taken: dict[PciDevice, tuple[int, PciDevice]]


def guest(answer: dict[str, Any]) -> Guest:
    tables = [read(bytes.fromhex(table)) for table in answer["tables"].values()]
    bridges = [
        Bridge(pci(d["device"]), d["bridge"][0], d["bridge"][1], kind(d["port"]))
        for d in answer["devices"]
        if d["bridge"] is not None
    ]
    seen = [Seen(pci(d["device"]), d["group"], d["iommu"]) for d in answer["devices"]]
    taken = {pci(device): (stream, pci(by)) for device, stream, by in answer.get("taken", [])}
    return Guest(tables, Topology(bridges), seen, answer["endpoints"], taken)


def recorded(path: Path) -> Guest:
    return guest(json.loads(path.read_text()))
