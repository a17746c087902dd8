"""The header that all ACPI tables share, and structures that several kinds of table have."""

from __future__ import annotations

from scapy.fields import StrField

from decoders.bytewise import ByteStructure, octets, u8, u32, u64


class Header(ByteStructure):
    """Begin every table (ACPI 5.2.6); all bytes of the table sum up to 0 modulo 256."""

    fields_desc = [
        *octets("signature", 4),
        *u32("length"),
        *u8("revision", "checksum"),
        *octets("oem_id", 6),
        *octets("oem_table_id", 8),
        *u32("oem_revision"),
        *octets("creator_id", 4),
        *u32("creator_revision"),
    ]


class Text(ByteStructure):
    """Hold the name of an object of the ACPI namespace, with the NUL that ends it."""

    fields_desc = [StrField("text", b"")]

    @property
    def string(self) -> str:
        """Return the name without what follows its first NUL."""
        text: bytes = self.text
        return text.split(b"\0", 1)[0].decode("ascii", "backslashreplace")


class Number32(ByteStructure):
    """Hold one element of an array of 32-bit numbers."""

    fields_desc = u32("value")


class Number64(ByteStructure):
    """Hold one element of an array of 64-bit numbers."""

    fields_desc = u64("value")


HEADER_SIZE = 36


def checksum(data: bytes) -> int:
    """Return the sum of all bytes modulo 256, which is 0 for a sound table (ACPI 5.2.6)."""
    return sum(data) & 0xFF


def seal(table: bytes) -> bytes:
    """Return a table with the length and the checksum that it should have.

    Raise ValueError for less than a header.
    """
    if len(table) < HEADER_SIZE:
        raise ValueError(f"a table has at least {HEADER_SIZE} bytes, not {len(table)}")
    sealed = bytearray(table)
    sealed[4:8] = len(table).to_bytes(4, "little")
    sealed[9] = 0
    sealed[9] = -sum(sealed) & 0xFF
    return bytes(sealed)
