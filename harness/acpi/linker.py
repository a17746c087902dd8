"""Finish the ACPI tables that QEMU offers to firmware (QEMU hw/acpi/bios-linker-loader.c).

QEMU leaves checksums and pointers to firmware, with a list of commands for it. No IOMMU table holds
a pointer, so the checksums are enough here.
"""

from __future__ import annotations

import struct
from typing import Final

from decoders.errors import DecodeError

_COMMAND_SIZE: Final = 128
_ADD_CHECKSUM: Final = 3
MOST_COMMANDS: Final = 4096
"""Commands that are read of one list."""


def add_checksums(tables: bytes, commands: bytes, file: str) -> bytes:
    """Return the file of tables with the checksums that the commands ask for in it.

    Raise DecodeError for a command that goes beyond the file.
    """
    count = len(commands) // _COMMAND_SIZE
    if count > MOST_COMMANDS:
        problem = f"{count} commands, more than the {MOST_COMMANDS} that are read"
        raise DecodeError("loader", problem)
    finished = bytearray(tables)
    for index in range(count):
        at = index * _COMMAND_SIZE
        kind, name, place, start, length = struct.unpack_from("<I56sIII", commands, at)
        if kind != _ADD_CHECKSUM or name.rstrip(b"\0") != file.encode():
            continue
        end = start + length
        if not start <= place < end <= len(finished):
            problem = f"checksum at {place:#x} of {start:#x} to {end:#x} is not in {file}"
            raise DecodeError(f"loader.command[{index}]", problem, at)
        finished[place] = -sum(finished[start:end]) & 0xFF
    return bytes(finished)
