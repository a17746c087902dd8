"""A PC whose intel-iommu is what a recording says of its unit, with DMA devices at its sources.

Every device is an RTL8139C+: it reads 16 bytes anywhere, and writes 64. Where that leads shows in
pages that begin to exist (`harness.qemu.residency`), so all but the pages that hold tables, queues
and status words do not exist before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from decoders.events import AccessKind, Interrupt
from decoders.vtd.registers import (
    CAP,
    ECAP,
    FRCD_HIGH,
    FRCD_LOW,
    FSTS,
    IQH,
    VER,
    address_width,
    fault_record_offset,
)
from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.dma import DmaDevice, dma_devices, prepare
from harness.qemu.landing import PAGE
from harness.qemu.pc import PROGRAM, Pc, is_ram, ram_address, ram_offset, ram_ranges, ram_size_for
from harness.qemu.residency import Residency
from harness.qemu.trace_lines import TraceLines
from harness.qemu.vtd import REGISTERS
from harness.qemu.vtd_options import differing, options_for, spelled

_SAID: Final = ("vtd_irq_generate",)
"""The trace event of the unit's own interrupts: nothing else shows them."""

MOST_RAM: Final = 64 << 30
"""Bytes of RAM; it is a sparse file, but QEMU keeps some bits for each page."""

MOST_DEVICES: Final = 64
"""Devices of a machine: each takes a few milliseconds to build."""

_SLOTS: Final = range(1, 0x1F)
"""Of bus 0 of a q35; 0 and 0x1f are taken."""
_FUNCTIONS: Final = 8
_REGISTER_BYTES: Final = 0x1000
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what a machine has to have: CAP, ECAP, sources of DMA, RAM up to an address.

    exact: what is behind that address must not be RAM.
    """

    capability: int
    extended_capability: int
    sources: frozenset[int]
    last_address: int
    exact: bool

    def includes(self, other: Wanted) -> bool:
        """Say whether a machine that has this does for another recording."""
        enough = other.last_address == self.last_address
        if not self.exact and not other.exact:
            enough = other.last_address <= self.last_address
        return self.same_unit(other) and other.sources <= self.sources and enough

    def same_unit(self, other: Wanted) -> bool:
        """Say whether the unit is the same."""
        return (self.capability, self.extended_capability) == (
            other.capability,
            other.extended_capability,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Give the -device options of DMA devices and ports, and the buses behind those."""

    devices: Sequence[str]
    buses: dict[int, int]
    missing: frozenset[int]


@dataclass(frozen=True, slots=True)
class State:
    """Hold what a unit shows: IQH, FSTS and its fault record (low, high).

    interrupts are those that it has raised since it was asked before.
    """

    head: int
    status: int
    record: tuple[int, int]
    interrupts: tuple[Interrupt, ...]


class VtdCopy:
    """Own such a PC.

    missing are the sources at which it has no device, held the pages that exist for what they hold.
    """

    def __init__(self, wanted: Wanted, program: str = PROGRAM) -> None:
        self._cleanup = contextlib.ExitStack()
        size = ram_size_for(wanted.last_address)
        if size is None or not possible(wanted.last_address):
            raise HarnessError(
                f"the recording needs RAM at {wanted.last_address:#x}: a q35 has none there, or "
                f"would have more than {MOST_RAM >> 30} GiB"
            )
        self.ram_size = size
        self.memory = ram_ranges(size)
        place = placed(wanted.sources)
        self.missing = place.missing
        self.option = spelled(program, options_for(wanted.capability, wanted.extended_capability))
        devices = (self.option, *place.devices)
        self._said = TraceLines(_SAID)
        self._cleanup.callback(self._said.close)
        try:
            words, files = self._said.options, [self._said.file]
            pc = Pc(devices, program, size, words, files, buses=place.buses)
            self._pc = self._cleanup.enter_context(pc)
            self.version = self._pc.version
            self.pages = Residency(self._pc.ram, self._pc.memory)
            self.held: set[int] = set()
            self._check_pages()
            self._found()
            self._check(wanted, program)
        except BaseException:
            self.close()
            raise

    def _found(self) -> None:
        load = self._pc.machine.load
        self.unit_version = load(REGISTERS + VER.offset, VER.size)
        self.capability = load(REGISTERS + CAP.offset, CAP.size)
        self.extended_capability = load(REGISTERS + ECAP.offset, ECAP.size)
        record = REGISTERS + fault_record_offset(self.capability, 0)
        self._state = (
            qtest.load(REGISTERS + IQH.offset, IQH.size),
            qtest.load(REGISTERS + FSTS.offset, FSTS.size),
            qtest.load(record, FRCD_LOW.size),
            qtest.load(record + FRCD_HIGH.offset, FRCD_HIGH.size),
        )
        self._all = dma_devices(self._pc)
        self._devices: dict[int, DmaDevice] = {}
        for device in self._all:
            self._devices.setdefault(device.function.requester, device)

    def _check(self, wanted: Wanted, program: str) -> None:
        recorded = wanted.capability, wanted.extended_capability
        running = self.capability, self.extended_capability
        wrong = differing(recorded, running)
        if wrong:
            each = ", ".join(
                f"{register}.{name} {ours:#x} (it has {theirs:#x})"
                for register, name, ours, theirs in wrong
            )
            raise HarnessError(f"{program} has no intel-iommu with {each}")

    def _check_pages(self) -> None:
        """Find out whether pages come one by one; huge ones would show too much."""
        place = self.ram_size - PAGE
        self.pages.forget_all()
        self._pc.machine.load(ram_address(place, self.ram_size), 8)
        if not self.pages.touched(place) or self.pages.touched(place - PAGE):
            raise HarnessError(
                "where DMA leads does not show: the kernel gives shared memory in huge pages "
                "(/sys/kernel/mm/transparent_hugepage/shmem_enabled)"
            )
        self.pages.forget_all()

    @property
    def width(self) -> int:
        """Return the host address width, which is that of guest addresses, too."""
        return address_width(self.capability)

    def restart(self) -> None:
        """Start a QEMU that has ended, or does not answer, anew; RAM keeps its content."""
        self._pc.start()
        self._found()

    def reset(self) -> None:
        """Reset the whole system; RAM keeps its content."""
        self._pc.reset()
        prepare(self._pc, self._all)

    def clear(self) -> None:
        """Let all of RAM be zero."""
        self.held.clear()
        self.pages.forget_all()

    def is_ram(self, address: int) -> bool:
        """Say whether there is RAM at an address."""
        return is_ram(address, self.ram_size)

    def store(self, address: int, data: bytes) -> None:
        """Store within a page of RAM, which is held from then on: no DMA is to reach it."""
        self.held.add(address & -PAGE)
        place = ram_offset(address)
        self._pc.ram[place : place + len(data)] = data

    def load(self, address: int, size: int) -> bytes:
        """Load from within a page of RAM that is held."""
        place = ram_offset(address)
        return self._pc.ram[place : place + size]

    def free(self, address: int) -> bool:
        """Say whether DMA may reach a page: it is RAM, and nothing is held there."""
        return self.is_ram(address) and address & -PAGE not in self.held

    def release(self, address: int) -> None:
        """Hold a page no more."""
        if address & -PAGE in self.held:
            self.held.discard(address & -PAGE)
            self.pages.forget(ram_offset(address))

    def forget(self, addresses: Iterable[int]) -> None:
        """Forget that free pages were touched."""
        for address in addresses:
            if self.pages.touched(ram_offset(address)):
                self.pages.forget(ram_offset(address))

    def touched(self, addresses: Iterable[int]) -> list[int]:
        """Return those free pages that were touched."""
        return [address for address in addresses if self.pages.touched(ram_offset(address))]

    def strayed(self) -> list[int]:
        """Return all free pages that were touched; most often none, which costs nothing.

        What is held exists, so that others do shows in the number of pages.
        """
        more = self.pages.count() - len(self.held)
        if more <= 0:
            return []
        pages = (ram_address(place, self.ram_size) for place in self.pages.pages())
        return list(islice((page for page in pages if page not in self.held), more))

    def state(self) -> State:
        """Return what the unit shows."""
        return self._then(())

    def write_register(self, offset: int, size: int, value: int) -> State:
        """Write a register and return what the unit shows then.

        The unit takes nothing behind its page.
        """
        if offset + size > _REGISTER_BYTES:
            return self._then(())
        return self._then((qtest.store(REGISTERS + offset, size, value),))

    def read_register(self, offset: int, size: int) -> int | None:
        """Read a register; None where there is none."""
        if offset + size > _REGISTER_BYTES:
            return None
        return self._pc.machine.load(REGISTERS + offset, size)

    @property
    def sources(self) -> Collection[int]:
        """Return the sources at which there is a device."""
        return self._devices.keys()

    def can(self, source: int, kind: AccessKind) -> bool:
        """Say whether there is a device that can do DMA of a kind."""
        return source in self._devices and kind in (AccessKind.READ, AccessKind.WRITE)

    def dma(self, source: int, kind: AccessKind, iova: int) -> State:
        """Do DMA in the 64 bytes around an address, and return what the unit shows then."""
        device = self._devices[source]
        operation = device.operation(kind, iova - iova % _ALIGNMENT)
        assert operation is not None, "this device can do DMA to every multiple of 64"
        return self._then(operation.lines)

    def _then(self, lines: Sequence[str]) -> State:
        answers = self._pc.machine.commands((*lines, *self._state))
        head, status, low, high = (int(answer, 16) for answer in answers[-4:])
        raised = tuple(one for one in self._said.events() if isinstance(one, Interrupt))
        return State(head, status, (low, high), raised)

    def close(self) -> None:
        """End QEMU."""
        self._cleanup.close()


def possible(address: int) -> bool:
    """Say whether a machine can be given RAM at an address."""
    size = ram_size_for(address)
    return size is not None and size <= MOST_RAM


def placed(sources: Collection[int]) -> Place:
    """Return devices that do DMA as these sources.

    Sources on bus 0 are there; those in slot 0 of another bus are behind a port of their own, and
    others cannot be had. Function 0 is what makes others visible.
    """
    wanted = sorted(s for s in sources if (s >> 8 == 0 and s >> 3 in _SLOTS) or s >> 3 & 0x1F == 0)
    wanted = [source for source in wanted if source >> 3 != 0][:MOST_DEVICES]
    used = {source >> 3 for source in wanted if not source >> 8}
    free = iter([slot << 3 | f for slot in _SLOTS if slot not in used for f in range(_FUNCTIONS)])
    ports: dict[int, int] = {}
    for bus in sorted({source >> 8 for source in wanted} - {0}):
        function = next(free, None)
        if function is not None:
            ports[bus] = function
    wanted = [source for source in wanted if not source >> 8 or source >> 8 in ports]
    devices = [
        f"pcie-root-port,id=port{bus},chassis={bus},addr={_addr(function)}"
        for bus, function in ports.items()
    ]
    for source in sorted({*wanted, *(source & ~7 for source in wanted)}):
        where = f",bus=port{source >> 8}" if source >> 8 else ""
        devices.append(f"rtl8139{where},addr={_addr(source & 0xFF)}")
    buses = {function: bus for bus, function in ports.items()}
    return Place(devices, buses, frozenset(sources) - frozenset(wanted))


def _addr(function: int) -> str:
    return f"{function >> 3:#x}.{function & 7},multifunction=on"
