"""The register page: bytes with write masks, as the register table describes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from decoders.layout import Field
from decoders.vtd import registers as vtd
from decoders.vtd.registers import Register, register_map

PAGE_BYTES = 0x6000
"""CAP.FRO and ECAP.IRO reach 16 KiB, 256 fault records need 4 KiB more."""
ACCESS_SIZES = (4, 8)


class RegisterFile:
    """Hold the registers of one unit; software sees read and write, the unit load and poke."""

    def __init__(
        self,
        version: int,
        capability: int,
        extended_capability: int,
        vccap: int = 0,
        absent: Collection[Register] = (),
    ):
        missing = {register.offset for register in absent}
        known = register_map(capability, extended_capability, vccap)
        self.map = {offset: one for offset, one in known.items() if offset not in missing}
        self._fixed = {
            vtd.VER.offset: version,
            vtd.CAP.offset: capability,
            vtd.ECAP.offset: extended_capability,
        }
        self._bytes = bytearray(PAGE_BYTES)
        self._writable = bytearray(PAGE_BYTES)
        self._clear = bytearray(PAGE_BYTES)
        self._hidden = bytearray(PAGE_BYTES)
        for register in self.map.values():
            for masks, value in (
                (self._writable, register.writable),
                (self._clear, register.w1c),
                (self._hidden, register.write_only),
            ):
                self._put(masks, register.offset, register.size, value)
        self.reset()

    def reset(self) -> None:
        """Give every register its value after reset."""
        self._bytes = bytearray(PAGE_BYTES)
        for register in self.map.values():
            value = self._fixed.get(register.offset, register.reset)
            self._put(self._bytes, register.offset, register.size, value)

    def write(self, offset: int, size: int, value: int) -> bool:
        """Apply a software write; say whether it was one the page takes (4 or 8 bytes, aligned)."""
        if size not in ACCESS_SIZES or offset % 4 or offset + size > PAGE_BYTES:
            return False
        for index, byte in enumerate(value.to_bytes(size, "little")):
            at = offset + index
            kept = self._bytes[at] & ~self._writable[at] & ~(byte & self._clear[at])
            self._bytes[at] = kept | byte & self._writable[at]
        return True

    def read(self, offset: int, size: int) -> int:
        """Return what software reads; all ones where there is nothing to read."""
        if size not in ACCESS_SIZES or offset % 4 or offset + size > PAGE_BYTES:
            return (1 << 8 * size) - 1
        return sum(
            (self._bytes[offset + index] & ~self._hidden[offset + index] & 0xFF) << 8 * index
            for index in range(size)
        )

    def load(self, register: Register, offset: int | None = None) -> int:
        """Return the whole register as the unit sees it; offset is for those CAP or ECAP place."""
        at = register.offset if offset is None else offset
        return int.from_bytes(self._bytes[at : at + register.size], "little")

    def poke(self, register: Register, value: int, offset: int | None = None) -> None:
        """Set the whole register from inside the unit."""
        self._put(self._bytes, register.offset if offset is None else offset, register.size, value)

    def field(self, register: Register, field: Field, offset: int | None = None) -> int:
        """Return one field of a register."""
        return field.get((self.load(register, offset),))

    def put(self, register: Register, field: Field, value: int, offset: int | None = None) -> None:
        """Set one field of a register from inside the unit."""
        words = [self.load(register, offset)]
        field.put(words, value)
        self.poke(register, words[0], offset)

    @staticmethod
    def _put(target: bytearray, offset: int, size: int, value: int) -> None:
        target[offset : offset + size] = value.to_bytes(size, "little")


def touches(offset: int, size: int, at: int, length: int = 4) -> bool:
    """Say whether a write of size bytes at offset reaches [at, at + length)."""
    return offset < at + length and at < offset + size


__all__: Sequence[str] = ("RegisterFile", "touches")
