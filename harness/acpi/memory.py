"""Find ACPI tables in the memory of a machine, as an operating system does (ACPI 5.2.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from decoders.acpi.reading import LARGEST_TABLE
from decoders.acpi.structures import HEADER_SIZE, checksum
from decoders.errors import DecodeError

Read = Callable[[int, int], bytes]
"""Reads guest-physical memory: address, size."""

BIOS_AREA: Final = (0xE_0000, 0x2_0000)
"""Where a PC without UEFI keeps the root pointer: address and size."""

MOST_TABLES: Final = 256
"""Tables that are followed from one root table."""


def find_root_pointer(area: bytes) -> int | None:
    """Return the offset of a root pointer with a sound checksum, or None (ACPI 5.2.5.1)."""
    for at in range(0, len(area) - 20 + 1, 16):
        if area[at : at + 8] == b"RSD PTR " and checksum(area[at : at + 20]) == 0:
            return at
    return None


def tables(read: Read, root_pointer: int) -> Iterator[bytes]:
    """Yield the tables that a root pointer leads to; raise DecodeError for one out of bounds.

    The tables that the FADT points to (FACS and DSDT) are left out.
    """
    pointer = read(root_pointer, 36)
    if pointer[:8] != b"RSD PTR ":
        raise DecodeError("rsdp.signature", f"it is {pointer[:8]!r}", root_pointer)
    rsdt, xsdt = int.from_bytes(pointer[16:20], "little"), int.from_bytes(pointer[24:32], "little")
    wide = pointer[15] >= 2 and xsdt
    root = _table(read, xsdt if wide else rsdt, "xsdt" if wide else "rsdt")
    size = 8 if wide else 4
    entries = root[HEADER_SIZE:]
    count = len(entries) // size
    if count > MOST_TABLES:
        raise DecodeError("rsdt", f"{count} entries, more than the {MOST_TABLES} that are read")
    for index in range(count):
        address = int.from_bytes(entries[index * size : (index + 1) * size], "little")
        yield _table(read, address, f"rsdt.entry[{index}]")


def _table(read: Read, address: int, path: str) -> bytes:
    header = read(address, HEADER_SIZE)
    length = int.from_bytes(header[4:8], "little")
    if not HEADER_SIZE <= length <= LARGEST_TABLE:
        problem = f"table of {length} bytes, {HEADER_SIZE} to {LARGEST_TABLE} are possible"
        raise DecodeError(f"{path}.length", problem, address + 4)
    return read(address, length)
