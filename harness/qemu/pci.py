"""Set the PCI devices of a stopped machine up, as firmware would: bus numbers, windows, BARs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.qtest import Machine

BUSES: Final = 256
_ABSENT: Final = 0xFFFF
_BRIDGE: Final = 1
_MULTIFUNCTION: Final = 0x80
_MEMORY_AND_MASTER: Final = 6
_CAPABILITY_LIST: Final = 0x10
_EXPRESS: Final = 0x10
_TO_CONVENTIONAL, _FROM_CONVENTIONAL = 7, 8
_MOST_CAPABILITIES: Final = 48
"""As many as fit behind the header (PCI 3.0, 6.7)."""

# Offsets in a header (PCI 3.0, 6.1; PCI-to-PCI Bridge 1.2, 3.2).
_VENDOR, _COMMAND, _STATUS, _TYPE, _BARS, _BUS_NUMBERS = 0, 4, 6, 0x0E, 0x10, 0x18
_SECONDARY, _SUBORDINATE = 0x19, 0x1A
_MEMORY_WINDOW, _PREFETCHABLE_WINDOW, _CAPABILITIES = 0x20, 0x24, 0x34
_CLOSED: Final = 0x0000_FFF0
"""A window whose base is above its limit."""

WINDOW: Final = (0xE000_0000, 0xFE00_0000)
"""Where BARs are put: below what a PC's chipset has for itself."""

_STEP: Final = 1 << 20
"""Granularity of a bridge's window."""


class Config(Protocol):
    """Reach configuration space; function is bus << 8 | device << 3 | function."""

    def load(self, function: int, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes."""
        ...

    def store(self, function: int, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes."""


class Ecam:
    """Use the memory window of PCI Express (PCI Express 4.0, 7.2.2)."""

    def __init__(self, machine: Machine, base: int) -> None:
        self._machine, self._base = machine, base

    def load(self, function: int, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes."""
        return self._machine.load(self._base + (function << 12) + offset, size)

    def store(self, function: int, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes."""
        self._machine.store(self._base + (function << 12) + offset, size, value)


class Ports:
    """Use the I/O ports 0xcf8 and 0xcfc of a PC (PCI 3.0, 3.2.2.3.2).

    What was written is kept: a system reset undoes it, and `again` does it once more.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._written: dict[tuple[int, int], list[str]] = {}

    @staticmethod
    def write(function: int, offset: int, size: int, value: int) -> list[str]:
        """Return the commands that write 1, 2 or 4 bytes."""
        select = qtest.out(0xCF8, 4, 1 << 31 | function << 8 | offset & 0xFC)
        return [select, qtest.out(0xCFC + (offset & 3), size, value)]

    def load(self, function: int, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes."""
        select = qtest.out(0xCF8, 4, 1 << 31 | function << 8 | offset & 0xFC)
        read = qtest.into(0xCFC + (offset & 3), size)
        return int(self._machine.commands((select, read))[1], 16)

    def store(self, function: int, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes."""
        lines = self.write(function, offset, size, value)
        # The last value counts, at the place of the last write.
        self._written.pop((function, offset), None)
        self._written[function, offset] = lines
        self._machine.commands(lines)

    def move(self, machine: Machine) -> None:
        """Use another machine, which is in the state of the first."""
        self._machine = machine

    def again(self) -> list[str]:
        """Return the commands that write all that was written."""
        return [line for lines in self._written.values() for line in lines]


@dataclass
class Function:
    """Describe one function: its BARs' addresses and its capabilities' (id, offset).

    requester is the id its DMA carries: that of a bridge to conventional PCI, if it is behind one.
    """

    number: int
    vendor: int
    device: int
    requester: int
    bars: dict[int, int] = field(default_factory=dict)
    capabilities: list[tuple[int, int]] = field(default_factory=list)


def functions(config: Config, bus: int) -> Iterator[int]:
    """Yield the functions that a bus has."""
    for slot in range(bus << 8, (bus + 1) << 8, 8):
        if config.load(slot, _VENDOR, 2) == _ABSENT:
            continue
        yield slot
        if config.load(slot, _TYPE, 1) & _MULTIFUNCTION:
            for number in range(slot + 1, slot + 8):
                if config.load(number, _VENDOR, 2) != _ABSENT:
                    yield number


def is_bridge(config: Config, function: int) -> bool:
    """Say whether a function has a bus behind it."""
    return config.load(function, _TYPE, 1) & ~_MULTIFUNCTION == _BRIDGE


def number_buses(config: Config, wanted: Mapping[int, int] = MappingProxyType({})) -> None:
    """Give numbers below bus 0, then below every other bus that answers by itself.

    wanted are numbers for the buses of bridges; where a lower one is in use, the next is given.
    """
    bus = 0
    while bus < BUSES:
        # A root bus that is not the first one belongs to an expander and has its own number.
        bus = _number_below(config, bus, wanted) + 1


def _number_below(config: Config, bus: int, wanted: Mapping[int, int]) -> int:
    """Give numbers to the buses below a bus and return the last number in use."""
    last = bus
    for function in functions(config, bus):
        if not is_bridge(config, function):
            continue
        behind = max(last + 1, wanted.get(function, 0))
        if behind >= BUSES:
            raise HarnessError("the machine has more PCI buses than there are numbers")
        # primary, secondary, subordinate; all that is behind must be reachable meanwhile
        numbers = bus | behind << 8 | (BUSES - 1) << 16
        config.store(function, _BUS_NUMBERS, 4, numbers)
        last = _number_below(config, behind, wanted)
        config.store(function, _SUBORDINATE, 1, last)
    return last


class Setup:
    """Enable everything on bus 0 and below: memory BARs, windows, bus mastering.

    Functions that are idle are found, but left as they are.
    """

    def __init__(
        self, config: Config, window: tuple[int, int] = WINDOW, idle: Collection[int] = ()
    ) -> None:
        self._config, self._idle = config, idle
        self._next, self._end = window
        self.functions: dict[int, Function] = {}
        self._bus(0, None)

    def find(self, vendor: int, device: int) -> list[Function]:
        """Return the functions with these ids, in the order of their numbers."""
        return [f for f in self.functions.values() if (f.vendor, f.device) == (vendor, device)]

    def _bus(self, bus: int, shown: int | None) -> None:
        """Set a bus up whose devices show as a bridge, or as themselves."""
        config = self._config
        for number in functions(config, bus):
            ids = config.load(number, _VENDOR, 4)
            requester = number if shown is None else shown
            function = Function(number, ids & 0xFFFF, ids >> 16, requester)
            self.functions[number] = function
            function.capabilities = list(_capabilities(config, number))
            if number in self._idle:
                continue
            bridge = is_bridge(config, number)
            self._bars(function, 2 if bridge else 6)
            if bridge:
                self._align(_STEP)
                start = self._next
                behind = config.load(number, _SECONDARY, 1)
                self._bus(behind, self._shown_behind(function, behind) if shown is None else shown)
                self._align(_STEP)
                window = _CLOSED
                if self._next > start:
                    window = start >> 16 | (self._next - _STEP) & 0xFFF0_0000
                config.store(number, _MEMORY_WINDOW, 4, window)
                config.store(number, _PREFETCHABLE_WINDOW, 4, _CLOSED)
            config.store(number, _COMMAND, 2, _MEMORY_AND_MASTER)

    def _shown_behind(self, bridge: Function, bus: int) -> int | None:
        """Return the requester id of what is behind a bridge; None if each has its own.

        PCI Express to PCI Bridge 1.0, 2.3: what comes from conventional PCI is function 0 there.
        """
        express = dict(bridge.capabilities).get(_EXPRESS)
        if express is None:
            return bridge.number
        kind = self._config.load(bridge.number, express + 2, 2) >> 4 & 0xF
        if kind == _TO_CONVENTIONAL:
            return bus << 8
        return bridge.number if kind == _FROM_CONVENTIONAL else None

    def _align(self, size: int) -> None:
        self._next = -(-self._next // size) * size

    def _bars(self, function: Function, count: int) -> None:
        config, index = self._config, 0
        while index < count:
            place = _BARS + 4 * index
            config.store(function.number, place, 4, 0xFFFF_FFFF)
            answer = config.load(function.number, place, 4)
            wide = answer & 6 == 4
            if answer and not answer & 1:  # memory; I/O ports are left alone
                size = (~(answer & ~0xF) & 0xFFFF_FFFF) + 1
                self._align(size)
                if self._next + size > self._end:
                    raise HarnessError("the memory BARs of the machine do not fit below 4 GiB")
                config.store(function.number, place, 4, self._next)
                if wide:
                    config.store(function.number, place + 4, 4, 0)
                function.bars[index] = self._next
                self._next += size
            else:
                config.store(function.number, place, 4, 0)
            index += 2 if wide and not answer & 1 else 1


def _capabilities(config: Config, function: int) -> Iterator[tuple[int, int]]:
    """Yield the capabilities of a function: id and offset (PCI 3.0, 6.7)."""
    if not config.load(function, _STATUS, 2) & _CAPABILITY_LIST:
        return
    at = config.load(function, _CAPABILITIES, 1) & 0xFC
    for _ in range(_MOST_CAPABILITIES):
        if not at:
            return
        head = config.load(function, at, 2)
        yield head & 0xFF, at
        at = head >> 8 & 0xFC
