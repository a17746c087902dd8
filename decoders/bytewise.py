"""Structures whose fields are whole bytes, on top of Scapy: ACPI tables, virtio messages.

A field is a little-endian number or a run of bytes. Where single bits of a number have names, the
class lists them in `bits`, lowest first, so that no bit position is written twice. Code that runs
per event takes `packed(cls)`, which knows the same fields without a dissection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

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


class ByteStructure(Structure):
    """Base every structure of whole bytes; `bits` names the bits of its number fields."""

    bits: ClassVar[Mapping[str, Columns]] = {}


S = TypeVar("S", bound=ByteStructure)


class Opaque(ByteStructure):
    """Keep bytes that nothing describes: padding, unknown structures, what follows the last one."""

    fields_desc = [StrField("data", b"")]


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


_FIELD_SIZES: dict[type[ByteStructure], tuple[tuple[str, int], ...]] = {}
_SIZES: dict[type[ByteStructure], int] = {}


def field_sizes(cls: type[ByteStructure]) -> tuple[tuple[str, int], ...]:
    """Return name and size in bytes of each field; a run of bytes without an own size has 0."""
    known = _FIELD_SIZES.get(cls)
    if known is None:
        known = _FIELD_SIZES[cls] = tuple(
            (field.name, 0 if type(field) is StrField else int(field.sz))
            for field in cls.fields_desc
        )
    return known


def size_of(cls: type[ByteStructure]) -> int:
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


def encode(body: ByteStructure) -> bytes:
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


def first_missing(cls: type[ByteStructure], size: int) -> str:
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


def bits_of(body: ByteStructure, name: str) -> Iterator[tuple[str, int]]:
    """Yield name and value of the bits of one field, lowest first, reserved ones as well."""
    value: int = body.getfieldval(name)
    for column, width in body.bits.get(name, ()):
        yield column, value & ((1 << width) - 1)
        value >>= width


def bit(body: ByteStructure, name: str, column: str) -> int:
    """Return the value of the named bits of a field; raise KeyError when there are none."""
    return dict(bits_of(body, name))[column]


_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Packed:
    """Read and write a structure as a tuple of plain values, in the order of its fields.

    A run of bytes is bytes. `format` does the work: its methods raise struct.error for data of
    another size, so whoever calls them looks at the size first.
    """

    name: str
    names: tuple[str, ...]
    offsets: Mapping[str, int]
    format: struct.Struct

    @property
    def size(self) -> int:
        """Return the size of the structure in bytes."""
        return self.format.size

    def offset(self, name: str) -> int:
        """Return the offset of a field; raise KeyError for one that is not there."""
        return self.offsets[name]

    def unpack(self, data: bytes | memoryview, at: int = 0) -> tuple[Any, ...]:
        """Return the values of the structure that begins at an offset of data."""
        return self.format.unpack_from(data, at)

    def pack(self, *values: int | bytes) -> bytes:
        """Return the bytes of a structure with these values."""
        return self.format.pack(*values)


_PACKED: dict[type[ByteStructure], Packed] = {}


def packed(cls: type[ByteStructure]) -> Packed:
    """Return the fast form of a structure of fixed size; the same one every time."""
    known = _PACKED.get(cls)
    if known is None:
        known = _PACKED[cls] = _derive(cls)
    return known


def _derive(cls: type[ByteStructure]) -> Packed:
    codes, offsets, at = "<", {}, 0
    for field, (name, size) in zip(cls.fields_desc, field_sizes(cls), strict=True):
        if not size:
            raise TypeError(f"{cls.__name__}.{name} has no fixed size")
        codes += f"{size}s" if isinstance(field, StrFixedLenField) else _CODES[size]
        offsets[name] = at
        at += size
    return Packed(cls.__name__, tuple(offsets), offsets, struct.Struct(codes))
