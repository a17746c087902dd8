"""Tests of finding tables in memory, and of the linker's commands."""

from __future__ import annotations

import struct

import pytest

from decoders.errors import DecodeError
from harness.acpi.linker import add_checksums
from harness.acpi.memory import find_root_pointer, tables
from tests.decoders.acpi.blobs import MADE
from tests.writers import acpi as w

DMAR, VIOT = MADE["dmar"], MADE["viot"]


class Memory:
    """Place pieces at addresses; all else is zero."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        data = bytearray(size)
        for start, piece in self.pieces.items():
            for index, value in enumerate(piece):
                if 0 <= start + index - address < size:
                    data[start + index - address] = value
        return bytes(data)


def root_pointer(rsdt: int, xsdt: int = 0) -> bytes:
    revision = 2 if xsdt else 0
    data = bytearray(
        struct.pack("<8sB6sBIIQI", b"RSD PTR ", 0, b"TESTER", revision, rsdt, 36, xsdt, 0)
    )
    data[8] = -sum(data[:20]) & 0xFF
    return bytes(data)


def machine(wide: bool) -> Memory:
    memory = Memory()
    memory.pieces = {0x2000: DMAR, 0x3000: VIOT}
    addresses = struct.pack("<QQ" if wide else "<II", 0x2000, 0x3000)
    memory.pieces[0x1000] = w.table(b"XSDT" if wide else b"RSDT", addresses)
    pointer = root_pointer(0, 0x1000) if wide else root_pointer(0x1000)
    memory.pieces[0x40] = pointer
    return memory


@pytest.mark.parametrize("wide", [False, True])
def test_tables_are_found(wide: bool) -> None:
    memory = machine(wide)
    assert find_root_pointer(memory.read(0, 0x100)) == 0x40
    assert list(tables(memory.read, 0x40)) == [DMAR, VIOT]


def test_a_root_pointer_needs_its_checksum() -> None:
    pointer = root_pointer(0x1000)
    assert find_root_pointer(bytes(32) + pointer) == 32
    assert find_root_pointer(bytes(32) + pointer[:16] + b"\1" + pointer[17:]) is None
    assert find_root_pointer(bytes(31) + pointer) is None


def test_tables_are_bounded() -> None:
    memory = machine(False)
    memory.pieces[0x2000] = w.table(b"DMAR", b"", length=1 << 30)
    with pytest.raises(DecodeError, match=r"rsdt.entry\[0\].length: table of 1073741824 bytes"):
        list(tables(memory.read, 0x40))
    memory.pieces[0x1000] = w.table(b"RSDT", bytes(4 * 300))
    with pytest.raises(DecodeError, match="300 entries, more than the 256"):
        list(tables(memory.read, 0x40))
    with pytest.raises(DecodeError, match=r"rsdp\.signature"):
        list(tables(memory.read, 0x80))


def command(kind: int, place: int, start: int, length: int, file: bytes = b"t") -> bytes:
    return struct.pack("<I56sIII", kind, file, place, start, length).ljust(128, b"\0")


def test_checksums_are_added() -> None:
    raw = DMAR[:9] + b"\0" + DMAR[10:]
    commands = command(1, 0, 0, 0) + command(3, 5 + 9, 5, len(raw)) + command(3, 9, 0, 10, b"other")
    assert add_checksums(b"12345" + raw, commands, "t") == b"12345" + DMAR


@pytest.mark.parametrize(("place", "start", "length"), [(9, 0, 999), (0, 4, 10), (30, 0, 20)])
def test_checksums_stay_inside(place: int, start: int, length: int) -> None:
    with pytest.raises(DecodeError, match=r"loader.command\[0\]: checksum at"):
        add_checksums(bytes(40), command(3, place, start, length), "t")


def test_commands_are_bounded() -> None:
    with pytest.raises(DecodeError, match="4097 commands"):
        add_checksums(b"", bytes(128 * 4097), "t")
