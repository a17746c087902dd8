"""Read the configuration files that QEMU has for its firmware (fw_cfg)."""

from __future__ import annotations

import struct
from typing import Final

from harness.acpi.linker import add_checksums
from harness.errors import HarnessError
from harness.qemu.qtest import Machine

_SELECT, _READ, _ERROR = 8, 2, 1
_DIRECTORY: Final = 0x19

LARGEST_FILE: Final = 1 << 24
"""Bytes that are read of one firmware configuration file."""


class FirmwareFiles:
    """Read the files that QEMU has for firmware (fw_cfg) by DMA.

    dma is the address of the DMA register, scratch that of RAM which nobody uses.
    """

    def __init__(self, machine: Machine, dma: int, scratch: int) -> None:
        self._machine, self._dma, self._scratch = machine, dma, scratch
        (count,) = struct.unpack(">I", self._item(_DIRECTORY, 4))
        listing = self._item(_DIRECTORY, 4 + 64 * min(count, 1024))
        self._files: dict[str, tuple[int, int]] = {}
        for size, key, _, name in struct.iter_unpack(">IHH56s", listing[4:]):
            self._files[name.rstrip(b"\0").decode("ascii", "replace")] = key, size

    def read(self, name: str) -> bytes:
        """Return the content of a file; raise HarnessError when there is none."""
        if name not in self._files:
            raise HarnessError(f"this machine has no firmware file {name}")
        key, size = self._files[name]
        if size > LARGEST_FILE:
            raise HarnessError(f"{name} has {size} bytes, more than {LARGEST_FILE}")
        return self._item(key, size)

    def acpi_tables(self) -> bytes:
        """Return the ACPI tables, one after another, with their checksums."""
        name = "etc/acpi/tables"
        return add_checksums(self.read(name), self.read("etc/table-loader"), name)

    def _item(self, key: int, size: int) -> bytes:
        target = self._scratch + 16
        control = key << 16 | _SELECT | _READ
        self._machine.write(self._scratch, struct.pack(">IIQ", control, size, target))
        self._machine.write(self._dma, struct.pack(">Q", self._scratch))
        (status,) = struct.unpack(">I", self._machine.read(self._scratch, 4))
        if status & _ERROR:
            raise HarnessError(f"QEMU refuses to give firmware item {key:#x}")
        return self._machine.read(target, size)
