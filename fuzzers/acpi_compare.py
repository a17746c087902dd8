"""Let the decoders with their resolver, and the native core, take the same table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from decoders.acpi import read_tolerant, why_incomplete
from decoders.errors import DecodeError
from harness.acpi.answers import Answer, Behind
from harness.acpi.resolve import resolve
from harness.acpi.topology import (
    Bridge,
    BridgeKind,
    Device,
    MmioDevice,
    NamedDevice,
    PciDevice,
    Topology,
)
from harness.native.acpi import NativeResolver


def _pci(bus: int, device: int, function: int = 0, segment: int = 0) -> PciDevice:
    return PciDevice(segment, bus << 8 | device << 3 | function)


# 00:01.0 and 00:02.0 are root ports; behind the second a bridge from PCI Express to PCI, behind
# that one from PCI to PCI. Segment 1 has buses that are behind themselves.
BRIDGES: Final = Topology(
    [
        Bridge(_pci(0, 1), 1, 1),
        Bridge(_pci(0, 2), 2, 4),
        Bridge(_pci(2, 0), 3, 4, BridgeKind.TO_CONVENTIONAL),
        Bridge(_pci(3, 5), 4, 4, BridgeKind.CONVENTIONAL),
        Bridge(_pci(1, 0, segment=1), 2, 2),
        Bridge(_pci(2, 0, segment=1), 1, 1),
    ]
)
TOPOLOGIES: Final = (None, Topology(), BRIDGES)

DEVICES: Final[tuple[Device, ...]] = (
    *(_pci(0, number) for number in range(5)),
    *(_pci(1, 0), _pci(2, 0), _pci(3, 4), _pci(4, 6, 1), _pci(0, 0x1F, 7), _pci(0x10, 0)),
    *(_pci(0x20, 0), _pci(0xFF, 0x1F, 7), _pci(0, 0, segment=1), _pci(1, 0, segment=1)),
    *(_pci(2, 3, segment=3), PciDevice(0xFFFF, 8), PciDevice(0, 0xA0), PciDevice(0, 0x3FF)),
    *(MmioDevice(0), MmioDevice(0xA000), MmioDevice(0xB000), MmioDevice((1 << 64) - 1)),
    *(NamedDevice("\\_SB.DEV0"), NamedDevice("\\_SB.DEV0", id=0xFFFF), NamedDevice("")),
    *(NamedDevice("AMDI0020", "7"), NamedDevice("AMDI0020", "55"), NamedDevice("AMDI0020")),
)
KEPT: Final = 100
"""Differences that are told in full."""
_GROUP: Final = 8
"""Devices that are looked for in one table."""


@dataclass(frozen=True, slots=True)
class Group:
    """Hold devices and a topology, as both sides take them."""

    devices: tuple[Device, ...]
    topology: Topology | None
    native: NativeResolver


def groups(devices: tuple[Device, ...] = DEVICES, size: int = _GROUP) -> list[Group]:
    """Cut devices into groups; each group comes with every topology."""
    cuts = [devices[at : at + size] for at in range(0, len(devices), size)]
    return [Group(cut, t, NativeResolver(cut, t)) for cut in cuts for t in TOPOLOGIES]


Verdict = tuple[tuple[str, str, int | None] | None, list[Answer]]
"""Path, problem and offset of what keeps a table from being read, and an answer for each device."""


@dataclass(slots=True)
class Tally:
    """Count what was compared."""

    tables: int = 0
    refused: int = 0
    same_place: int = 0
    """Refused tables of which both sides name the same path and offset."""
    same_text: int = 0
    """Of those, the ones of which they say the same."""
    different: int = 0
    """Differences, of which the first ones are kept."""
    differences: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    """Answers by IOMMU or reason."""
    worst: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By side, the longest time in seconds that one table took, and which it was."""

    def add(self, other: Tally) -> None:
        """Take over what another one counted."""
        self.tables += other.tables
        self.refused += other.refused
        self.same_place += other.same_place
        self.same_text += other.same_text
        self.different += other.different
        self.differences += other.differences[: KEPT - len(self.differences)]
        self.met += other.met
        for side, (seconds, name) in other.worst.items():
            self.slow(side, seconds, name)

    def slow(self, side: str, seconds: float, name: str) -> None:
        """Keep the longest time of a side."""
        if seconds > self.worst.get(side, (-1.0, ""))[0]:
            self.worst[side] = seconds, name

    def compare(self, name: str, data: bytes, group: Group) -> None:
        """Let both sides take one table."""
        began = time.process_time()
        table = read_tolerant(data)
        expected = [resolve(table, device, group.topology) for device in group.devices]
        between = time.process_time()
        problem, answers = group.native.ask(data)
        self.slow("native", time.process_time() - between, name)
        self.slow("python", between - began, name)
        self.tables += 1
        wanted, found = _members(why_incomplete(table)), _members(problem)
        if wanted is not None:
            self.refused += 1
            if found is not None and wanted[::2] == found[::2]:
                self.same_place += 1
                self.same_text += wanted == found
        self.met.update(_label(answer) for answer in expected)
        for what in differences((wanted, expected), (found, answers), group):
            self.different += 1
            if len(self.differences) < KEPT:
                self.differences.append(f"{name}: {what}; {data.hex()}")


def differences(python: Verdict, native: Verdict, group: Group) -> Iterator[str]:
    """Say in what two verdicts differ."""
    if python[0] != native[0]:
        yield f"decoders: {python[0]}, native: {native[0]}"
    for device, expected, found in zip(group.devices, python[1], native[1], strict=True):
        if expected != found:
            yield f"{device!r}: decoders: {expected!r}, native: {found!r}"


def _members(error: DecodeError | None) -> tuple[str, str, int | None] | None:
    return None if error is None else (error.path, error.problem, error.offset)


def _label(answer: Answer) -> str:
    return str(answer.iommu.kind if isinstance(answer, Behind) else answer.why)
