"""Number the PCI buses of a stopped machine, as firmware would (PCI-to-PCI Bridge 1.2, 3.2.5)."""

from __future__ import annotations

from typing import Final

from harness.acpi.qtest import Machine

BUSES: Final = 256
_ABSENT: Final = 0xFFFFFFFF
_BRIDGE: Final = 1


class Numbering:
    """Give bus numbers over the configuration window (ECAM) at an address."""

    def __init__(self, machine: Machine, ecam: int) -> None:
        self._machine, self._ecam = machine, ecam

    def run(self) -> None:
        """Give numbers below bus 0, then below every other bus that answers by itself."""
        bus = 0
        while bus < BUSES:
            # A root bus that is not the first one belongs to an expander and has its own number.
            bus = self._below(bus) + 1

    def _below(self, bus: int) -> int:
        """Give numbers to the buses below a bus and return the last number in use."""
        last = bus
        for devfn in range(256):
            function = self._ecam + (bus << 20) + (devfn << 12)
            if self._read(function, 4) == _ABSENT:
                continue
            if self._read(function + 0x0E, 1) & 0x7F != _BRIDGE:
                continue
            secondary = last + 1
            # primary, secondary, subordinate; all that is behind must be reachable meanwhile
            self._machine.write(function + 0x18, bytes([bus, secondary, BUSES - 1]))
            last = self._below(secondary)
            self._machine.write(function + 0x1A, bytes([last]))
        return last

    def _read(self, address: int, size: int) -> int:
        return int.from_bytes(self._machine.read(address, size), "little")
