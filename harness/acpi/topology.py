"""Devices, and the PCI bridges between them and their IOMMU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PciDevice:
    """Name a PCI function: segment, and bus, device and function as 8, 5 and 3 bits."""

    segment: int
    bdf: int

    @property
    def bus(self) -> int:
        """Return the number of the bus."""
        return self.bdf >> 8

    def __str__(self) -> str:
        return f"{self.segment:04x}:{self.bus:02x}:{self.bdf >> 3 & 0x1F:02x}.{self.bdf & 7}"


@dataclass(frozen=True, slots=True)
class MmioDevice:
    """Name a device by the address of its registers."""

    address: int

    def __str__(self) -> str:
        return f"the device at {self.address:#x}"


@dataclass(frozen=True, slots=True)
class NamedDevice:
    r"""Name a device of the ACPI namespace.

    name is its path (``\_SB.DEV0``), for an IVRS its hardware id. uid tells apart devices of one
    hardware id; id is what the device shows where it has several ids.
    """

    name: str
    uid: str = ""
    id: int = 0

    def __str__(self) -> str:
        return self.name


Device = PciDevice | MmioDevice | NamedDevice


class BridgeKind(StrEnum):
    """Classify bridges by the requester id behind which they hide devices (Linux
    pci_for_each_dma_alias).
    """

    EXPRESS = "express"
    """A port of a root complex or a switch: hides nothing."""
    TO_CONVENTIONAL = "to-conventional"
    """From PCI Express to PCI: devices show as function 0 of device 0 of the bus behind it."""
    CONVENTIONAL = "conventional"
    """From PCI to PCI, or back to PCI Express: devices show as the bridge itself."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Describe a bridge: where it is and which buses are behind it."""

    device: PciDevice
    secondary: int
    subordinate: int
    kind: BridgeKind = BridgeKind.EXPRESS


class Topology:
    """Find ways through the bridges of a machine."""

    def __init__(self, bridges: Iterable[Bridge] = ()) -> None:
        self.bridges = tuple(bridges)
        self._at: dict[PciDevice, Bridge] = {}
        self._above: dict[tuple[int, int], Bridge] = {}
        for bridge in self.bridges:
            self._at[bridge.device] = bridge
            self._above.setdefault((bridge.device.segment, bridge.secondary), bridge)

    def at(self, device: PciDevice) -> Bridge | None:
        """Return the bridge that a function is, if it is one."""
        return self._at.get(device)

    def above(self, device: PciDevice) -> list[Bridge]:
        """Return the bridges between a device and its root, the nearest first."""
        chain: list[Bridge] = []
        bus = device.bus
        while (bridge := self._above.get((device.segment, bus))) is not None:
            if bridge in chain:
                break  # buses that are behind themselves
            chain.append(bridge)
            bus = bridge.device.bus
        return chain

    def requester(self, device: PciDevice) -> PciDevice:
        """Return the function as which a device's requests show at the root."""
        shown = device
        for bridge in self.above(device):
            if bridge.kind is BridgeKind.TO_CONVENTIONAL:
                shown = PciDevice(device.segment, bridge.secondary << 8)
            elif bridge.kind is BridgeKind.CONVENTIONAL:
                shown = bridge.device
        return shown
