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
    """Hold the answers of one guest."""

    table: Table
    topology: Topology
    seen: list[Seen]
    endpoints: list[int]


def guest(answer: dict[str, Any]) -> Guest:
    ((_, table),) = answer["tables"].items()
    bridges = [
        Bridge(pci(d["device"]), d["bridge"][0], d["bridge"][1], kind(d["port"]))
        for d in answer["devices"]
        if d["bridge"] is not None
    ]
    seen = [Seen(pci(d["device"]), d["group"], d["iommu"]) for d in answer["devices"]]
    return Guest(read(bytes.fromhex(table)), Topology(bridges), seen, answer["endpoints"])


def recorded(path: Path) -> Guest:
    return guest(json.loads(path.read_text()))
