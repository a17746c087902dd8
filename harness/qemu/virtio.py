"""Drive a virtio device: the modern PCI transport and split queues (virtio 1.2, 2.7 and 4.1)."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from decoders.virtio_iommu.constants import GeneralFeature
from harness.errors import HarnessError
from harness.qemu import qtest
from harness.qemu.pc import Pc
from harness.qemu.pci import Function

# Bits of the device status (virtio 1.2, 2.1).
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 0x40
VERSION_1: Final = int(GeneralFeature.VERSION_1)

# Types of vendor capabilities (4.1.4): what the structures they place are.
_COMMON, _NOTIFY, _DEVICE = 1, 2, 4
_VENDOR_CAPABILITY: Final = 9

# Offset and size of the fields of the common structure (4.1.4.3).
_FEATURE_SELECT, _FEATURES = (0x00, 4), (0x04, 4)
_ACCEPT_SELECT, _ACCEPT = (0x08, 4), (0x0C, 4)
_STATUS, _QUEUE_SELECT = (0x14, 1), (0x16, 2)
_QUEUE_SIZE, _QUEUE_ENABLE, _QUEUE_NOTIFY = (0x18, 2), (0x1C, 2), (0x1E, 2)
_RING_ADDRESSES: Final = (0x20, 0x28, 0x30)

_NEXT, _WRITE = 1, 2
_NO_INTERRUPT: Final = 1
_DESCRIPTOR: Final = struct.Struct("<QIHH")
_PAIR: Final = struct.Struct("<II")
_HALF: Final = struct.Struct("<H")

BUFFER: Final = 1024
"""Bytes that a descriptor's buffer may have."""

FILL: Final = 0xA5
"""What a buffer holds before the device writes it."""


@dataclass(frozen=True, slots=True)
class Used:
    """Give what came back of a chain: its head, the length the device says, all writable bytes."""

    head: int
    length: int
    data: bytes


class Queue:
    """Own a split queue in RAM: each descriptor has a buffer of its own."""

    def __init__(self, ram: mmap.mmap, base: int, size: int, kick: str) -> None:
        self.kick = kick
        self.size, self._ram = size, ram
        self.descriptors = base
        self.available = base + 16 * size
        self.used_ring = self.available + 6 + 2 * size + 3 & ~3
        self._buffers = self.used_ring + 6 + 8 * size + 63 & ~63
        self.end = self._buffers + BUFFER * size
        if base % 16 or self.end > len(ram) or size & (size - 1) or not size:
            raise ValueError(f"no queue of {size} fits at {base:#x}")
        self.clear()

    def clear(self) -> None:
        """Begin anew, as the device does when it is reset."""
        self._ram[self.descriptors : self._buffers] = bytes(self._buffers - self.descriptors)
        _HALF.pack_into(self._ram, self.available, _NO_INTERRUPT)
        self._posted = self._taken = 0
        self._free = list(range(self.size - 1, -1, -1))
        self._chains: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}

    def has_room(self, count: int) -> bool:
        """Say whether a chain of so many buffers fits beside those the device still has."""
        return count <= len(self._free)

    def post(self, readable: Sequence[bytes], writable: Sequence[int]) -> int:
        """Make a chain of buffers available, those to read first; return its head."""
        sizes = [*map(len, readable), *writable]
        if not sizes or not self.has_room(len(sizes)) or not 0 < min(sizes) <= max(sizes) <= BUFFER:
            raise ValueError(f"a chain of {len(sizes)} buffers does not fit into the queue")
        ram, chain = self._ram, [self._free.pop() for _ in sizes]
        places = []
        for position, (index, size) in enumerate(zip(chain, sizes, strict=True)):
            place, flags, following = self._buffers + BUFFER * index, 0, 0
            if position < len(readable):
                ram[place : place + size] = readable[position]
            else:
                ram[place : place + size] = bytes((FILL,)) * size
                places.append((place, size))
                flags = _WRITE
            if position + 1 < len(chain):
                flags, following = flags | _NEXT, chain[position + 1]
            _DESCRIPTOR.pack_into(ram, self.descriptors + 16 * index, place, size, flags, following)
        head = chain[0]
        self._chains[head] = (chain, places)
        _HALF.pack_into(ram, self.available + 4 + 2 * (self._posted % self.size), head)
        self._posted = self._posted + 1 & 0xFFFF
        _HALF.pack_into(ram, self.available + 2, self._posted)
        return head

    def take(self) -> list[Used]:
        """Return what the device has given back since the last call."""
        (now,) = _HALF.unpack_from(self._ram, self.used_ring + 2)
        found: list[Used] = []
        while self._taken != now:
            at = self.used_ring + 4 + 8 * (self._taken % self.size)
            head, length = _PAIR.unpack_from(self._ram, at)
            if head not in self._chains:
                raise HarnessError(f"the device gives back chain {head}, which it does not have")
            chain, places = self._chains.pop(head)
            data = b"".join(self._ram[place : place + size] for place, size in places)
            self._free += reversed(chain)
            self._taken = self._taken + 1 & 0xFFFF
            found.append(Used(head, length, data))
        return found


class VirtioPci:
    """Reach a virtio device through its PCI function."""

    def __init__(self, pc: Pc, function: Function) -> None:
        self._pc, self._machine = pc, pc.machine
        self._places = dict(_structures(pc, function))
        missing = {_COMMON, _NOTIFY, _DEVICE} - self._places.keys()
        if missing:
            raise HarnessError(f"function {function.number:#x} is no modern virtio device")
        self._common = self._places[_COMMON][0]

    def reset(self) -> None:
        """Reset the device and wait until it says so (4.1.4.3.1)."""
        line = self._set(_STATUS, 0)
        answers = self._machine.commands([line, self._get(_STATUS)])
        for _ in range(1000):
            if int(answers[-1], 16) == 0:
                return
            answers = [self._machine.command(self._get(_STATUS))]
        raise HarnessError("the virtio device does not come out of reset")

    def negotiate(self, wanted: int) -> tuple[int, int]:
        """Accept those of the wanted features that are offered; return both (3.1.1)."""
        lines = [self._set(_STATUS, ACKNOWLEDGE), self._set(_STATUS, ACKNOWLEDGE | DRIVER)]
        for half in (0, 1):
            lines += [self._set(_FEATURE_SELECT, half), self._get(_FEATURES)]
        answers = self._machine.commands(lines)
        offered = int(answers[3], 16) | int(answers[5], 16) << 32
        accepted = offered & wanted
        lines = []
        for half in (0, 1):
            value = accepted >> 32 * half & 0xFFFF_FFFF
            lines += [self._set(_ACCEPT_SELECT, half), self._set(_ACCEPT, value)]
        lines += [self._set(_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK), self._get(_STATUS)]
        if not int(self._machine.commands(lines)[-1], 16) & FEATURES_OK:
            raise HarnessError(f"the virtio device refuses the features {accepted:#x}")
        return offered, accepted

    def queue(self, index: int, base: int, size: int) -> Queue:
        """Make a queue at an address of RAM; enable it before the device starts."""
        base_line = self._set(_QUEUE_SELECT, index)
        answers = self._machine.commands(
            [base_line, self._get(_QUEUE_SIZE), self._get(_QUEUE_NOTIFY)]
        )
        largest, notify = (int(answer, 16) for answer in answers[1:])
        if size > largest:
            raise HarnessError(f"queue {index} has {largest} entries at most")
        place, multiplier = self._places[_NOTIFY]
        return Queue(self._pc.ram, base, size, qtest.store(place + notify * multiplier, 2, index))

    def start(self, queues: Sequence[Queue]) -> None:
        """Enable queues, numbered from 0, and let the device work."""
        lines = []
        for index, queue in enumerate(queues):
            lines += [self._set(_QUEUE_SELECT, index), self._set(_QUEUE_SIZE, queue.size)]
            rings = (queue.descriptors, queue.available, queue.used_ring)
            for offset, address in zip(_RING_ADDRESSES, rings, strict=True):
                lines += [self._set((offset, 4), address), self._set((offset + 4, 4), 0)]
            lines.append(self._set(_QUEUE_ENABLE, 1))
        ready = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        self._machine.commands([*lines, self._set(_STATUS, ready)])

    def status(self) -> int:
        """Return the device status."""
        return int(self._machine.command(self._get(_STATUS)), 16)

    def read_config(self, offset: int, size: int) -> bytes:
        """Read the device's own configuration from a multiple of 4."""
        place = self.config_address + offset
        lines = [qtest.load(place + at, 4) for at in range(0, size, 4)]
        answers = self._machine.commands(lines)
        return b"".join(int(answer, 16).to_bytes(4, "little") for answer in answers)[:size]

    @property
    def config_address(self) -> int:
        """Return where the device's own configuration is."""
        return self._places[_DEVICE][0]

    def _get(self, field: tuple[int, int]) -> str:
        return qtest.load(self._common + field[0], field[1])

    def _set(self, field: tuple[int, int], value: int) -> str:
        return qtest.store(self._common + field[0], field[1], value)


def _structures(pc: Pc, function: Function) -> list[tuple[int, tuple[int, int]]]:
    """Return where the vendor capabilities place structures: type, address, notify multiplier."""
    found = []
    for kind, at in function.capabilities:
        if kind != _VENDOR_CAPABILITY:
            continue
        words = [pc.config.load(function.number, at + 4 * index, 4) for index in range(5)]
        structure, bar = words[0] >> 24, words[1] & 0xFF
        if bar in function.bars:
            found.append((structure, (function.bars[bar] + words[2], words[4])))
    # The first of a type counts (4.1.4.1).
    return found[::-1]
