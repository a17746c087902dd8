"""Byte-aligned structures of ACPI tables on top of Scapy, and the header that all tables share.

A field is a little-endian number or a run of bytes. Where single bits of a number have names, the
class lists them in `bits`, lowest first, so that no bit position is written twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeVar

from scapy.fields import (
    AnyField,
    ByteField,
    LEIntField,
    LELongField,
    LEShortField,
    StrField,
    StrFixedLenField,
)

from decoders.errors import DecodeError
from decoders.fields import Columns, Structure


class AcpiStructure(Structure):
    """Base every structure of an ACPI table; `bits` names the bits of its number fields."""

    bits: ClassVar[Mapping[str, Columns]] = {}


S = TypeVar("S", bound=AcpiStructure)


def u8(*names: str) -> list[AnyField]:
    """Return 8-bit fields."""
    return [ByteField(name, 0) for name in names]


def u16(*names: str) -> list[AnyField]:
    """Return 16-bit little-endian fields."""
    return [LEShortField(name, 0) for name in names]


def u32(*names: str) -> list[AnyField]:
    """Return 32-bit little-endian fields."""
    return [LEIntField(name, 0) for name in names]


def u64(*names: str) -> list[AnyField]:
    """Return 64-bit little-endian fields."""
    return [LELongField(name, 0) for name in names]


def octets(name: str, size: int) -> list[AnyField]:
    """Return a field of `size` bytes that are no number."""
    return [StrFixedLenField(name, bytes(size), size)]


class Header(AcpiStructure):
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


class Opaque(AcpiStructure):
    """Keep bytes that nothing describes: padding, unknown structures, what follows the table."""

    fields_desc = [StrField("data", b"")]


class Text(AcpiStructure):
    """Hold the name of an object of the ACPI namespace, with the NUL that ends it."""

    fields_desc = [StrField("text", b"")]

    @property
    def string(self) -> str:
        """Return the name without what follows its first NUL."""
        text: bytes = self.text
        return text.split(b"\0", 1)[0].decode("ascii", "backslashreplace")


class Number32(AcpiStructure):
    """Hold one element of an array of 32-bit numbers."""

    fields_desc = u32("value")


class Number64(AcpiStructure):
    """Hold one element of an array of 64-bit numbers."""

    fields_desc = u64("value")


HEADER_SIZE = 36


_FIELD_SIZES: dict[type[AcpiStructure], tuple[tuple[str, int], ...]] = {}
_SIZES: dict[type[AcpiStructure], int] = {}


def field_sizes(cls: type[AcpiStructure]) -> tuple[tuple[str, int], ...]:
    """Return name and size in bytes of each field; a run of bytes without an own size has 0."""
    known = _FIELD_SIZES.get(cls)
    if known is None:
        known = _FIELD_SIZES[cls] = tuple(
            (field.name, 0 if type(field) is StrField else int(field.sz))
            for field in cls.fields_desc
        )
    return known


def size_of(cls: type[AcpiStructure]) -> int:
    """Return the size of a structure in bytes."""
    known = _SIZES.get(cls)
    if known is None:
        known = _SIZES[cls] = sum(size for _, size in field_sizes(cls))
    return known


def decode(cls: type[S], data: bytes, path: str, offset: int = 0) -> S:
    """Dissect exactly one structure; raise DecodeError when data has another size.

    path names the structure in the error, and offset is where data begins.
    """
    size = size_of(cls)
    if size and len(data) < size:
        raise DecodeError(f"{path}.{first_missing(cls, len(data))}", "the data ends here", offset)
    if size and len(data) > size:
        problem = f"{cls.__name__} takes {size} bytes, {len(data) - size} more follow"
        raise DecodeError(path, problem, offset + size)
    return cls(data)


def encode(body: AcpiStructure) -> bytes:
    """Return the bytes of a structure, made from its fields."""
    body.clear_cache()  # Scapy would give back what it has read
    return bytes(body)


def build(cls: type[S], **values: int | bytes) -> S:
    """Make a structure from the values of its fields, the others zero.

    Raise ValueError for a field that is not there, or a value that does not fit.
    """
    sizes = dict(field_sizes(cls))
    for name, value in values.items():
        if name not in sizes:
            raise ValueError(f"{cls.__name__} has no field {name}")
        size = sizes[name]
        if isinstance(value, int):
            if not 0 <= value < 1 << 8 * size:
                raise ValueError(f"{cls.__name__}.{name}: {value:#x} does not fit {size} bytes")
        elif size and len(value) != size:
            raise ValueError(f"{cls.__name__}.{name}: {len(value)} bytes instead of {size}")
    body = cls()
    for name, value in values.items():
        body.setfieldval(name, value)
    return body


def first_missing(cls: type[AcpiStructure], size: int) -> str:
    """Name the first field that is not whole when only `size` bytes are there."""
    at = 0
    for name, width in field_sizes(cls):
        at += width
        if at > size:
            return name
    return field_sizes(cls)[-1][0]


def number(value: int | bytes) -> int:
    """Return a field's value as a number, whatever it is."""
    return value if isinstance(value, int) else int.from_bytes(value, "little")


def bits_of(body: AcpiStructure, name: str) -> Iterator[tuple[str, int]]:
    """Yield name and value of the bits of one field, lowest first, reserved ones as well."""
    value: int = body.getfieldval(name)
    for column, width in body.bits.get(name, ()):
        yield column, value & ((1 << width) - 1)
        value >>= width


def bit(body: AcpiStructure, name: str, column: str) -> int:
    """Return the value of the named bits of a field; raise KeyError when there are none."""
    return dict(bits_of(body, name))[column]


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
