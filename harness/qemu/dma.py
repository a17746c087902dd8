"""Devices whose DMA is done when the register write that asks for it is: no clock is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from decoders.events import AccessKind
from harness.qemu import qtest
from harness.qemu.pc import Pc
from harness.qemu.pci import Function


@dataclass(frozen=True, slots=True)
class Piece:
    """Describe one transfer of a DMA operation: what it writes, or how much it reads."""

    offset: int
    size: int
    data: bytes | None = None

    @property
    def kind(self) -> AccessKind:
        """Say whether it reads or writes."""
        return AccessKind.READ if self.data is None else AccessKind.WRITE


@dataclass(frozen=True, slots=True)
class Operation:
    """Describe what a device does at one address: qtest commands, and transfers in their order."""

    lines: Sequence[str]
    pieces: Sequence[Piece]


class DmaDevice(Protocol):
    """Start DMA at an address of the device's own address space, which has `width` bits.

    Writes go to multiples of write_alignment only.
    """

    model: str
    width: int
    write_alignment: int

    @property
    def function(self) -> Function:
        """Return the PCI function; its requester id is what the IOMMU sees."""
        ...

    def prepare(self) -> Sequence[str]:
        """Return the commands that make the device ready after a reset of the system."""
        ...

    def operation(self, kind: AccessKind, iova: int, /) -> Operation | None:
        """Return how to do DMA there, None when the device cannot do this kind there."""
        ...


def _writes(*sizes: int) -> tuple[Piece, ...]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(Piece(at, size, bytes(size)))
        at += size
    return tuple(pieces)


class Rtl8139:
    """Use an RTL8139C+: it dumps its counters (64 bytes of zeros) and reads a descriptor."""

    model = "rtl8139"
    width = 64
    write_alignment = 64
    ids: Final = (0x10EC, 0x8139)
    _DUMP: Final = _writes(8, 8, 8, 4, 2, 2, 4, 4, 8, 8, 4, 2, 2)
    _FETCH: Final = tuple(Piece(offset, 4) for offset in (0, 4, 8, 12))
    # Registers: RTL8139C+ datasheet 1.6, section 6.
    _DUMP_COUNTERS, _RING, _COMMAND, _POLL, _CPLUS = 0x10, 0x20, 0x37, 0xD9, 0xE0
    _TRANSMITTER, _CPLUS_TRANSMITTER, _GO, _NORMAL_PRIORITY = 0x04, 0x01, 0x08, 0x40

    def __init__(self, function: Function) -> None:
        self._function = function
        self._base = function.bars[1]

    @property
    def function(self) -> Function:
        """Return the PCI function."""
        return self._function

    def prepare(self) -> Sequence[str]:
        """Return the commands that enable the transmitter in C+ mode."""
        return (
            qtest.store(self._base + self._CPLUS, 2, self._CPLUS_TRANSMITTER),
            qtest.store(self._base + self._COMMAND, 1, self._TRANSMITTER),
        )

    def operation(self, kind: AccessKind, iova: int) -> Operation | None:
        """Dump the counters to a multiple of 64, or read a descriptor.

        A descriptor whose highest bit of the first four bytes is set would be executed: such
        memory must not be reachable.
        """
        base, low, high = self._base, iova & 0xFFFF_FFFF, iova >> 32
        if kind is AccessKind.WRITE and not iova % self.write_alignment:
            # The low half starts the dump.
            lines: tuple[str, ...] = (
                qtest.store(base + self._DUMP_COUNTERS + 4, 4, high),
                qtest.store(base + self._DUMP_COUNTERS, 4, low | self._GO),
            )
            return Operation(lines, self._DUMP)
        if kind is AccessKind.READ and iova + 16 <= 1 << 64:
            lines = (
                qtest.store(base + self._RING, 4, low),
                qtest.store(base + self._RING + 4, 4, high),
                qtest.store(base + self._POLL, 1, self._NORMAL_PRIORITY),
            )
            return Operation(lines, self._FETCH)
        return None


class I82559:
    """Use an i82559er: its self test reads 8 bytes and writes 8."""

    model = "i82559er"
    width = 32
    write_alignment = 4
    ids: Final = (0x8086, 0x1209)
    _TEST: Final = (Piece(0, 8), Piece(0, 8, b"\xff\xff\xff\xff\0\0\0\0"))
    # Intel 8255x Open Source Software Developer Manual 1.3, 6.3.3.
    _PORT, _SELF_TEST = 8, 1

    def __init__(self, function: Function) -> None:
        self._function = function
        self._base = function.bars[0]

    @property
    def function(self) -> Function:
        """Return the PCI function."""
        return self._function

    def prepare(self) -> Sequence[str]:
        """Return no commands: the device is ready."""
        return ()

    def operation(self, kind: AccessKind, iova: int) -> Operation | None:
        """Run the self test at a multiple of 4 below 4 GiB; it both reads and writes."""
        if kind is not AccessKind.WRITE or iova % self.write_alignment or iova >> self.width:
            return None
        return Operation(
            (qtest.store(self._base + self._PORT, 4, iova | self._SELF_TEST),), self._TEST
        )


MODELS: Final[tuple[type[Rtl8139] | type[I82559], ...]] = (Rtl8139, I82559)


def dma_devices(pc: Pc) -> list[DmaDevice]:
    """Return the devices of a PC that can do DMA, made ready."""
    found: list[DmaDevice] = []
    for function in pc.setup.functions.values():
        for model in MODELS:
            if (function.vendor, function.device) == model.ids:
                found.append(model(function))
    prepare(pc, found)
    return found


def prepare(pc: Pc, devices: Sequence[DmaDevice]) -> None:
    """Make devices ready, anew after a reset."""
    pc.machine.commands([line for device in devices for line in device.prepare()])
