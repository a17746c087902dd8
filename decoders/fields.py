"""Little-endian bit-field words on top of Scapy, written the way a datasheet lists them.

Scapy wants the highest bit first and the group size on the outer fields; a datasheet starts at bit
0 and speaks of quadwords. The functions here turn the second into the first, so that a structure
is a list of (name, width) pairs per word and no bit position is ever written twice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

from scapy.fields import AnyField, BitField
from scapy.packet import Packet

from decoders.errors import DecodeError

Columns = Sequence[tuple[str, int]]
"""Fields of one word as (name, width in bits), lowest bit first."""

# Fields of these names are numbered by their place (reserved1_24: word 1, bit 24), because a
# structure has several of each and Scapy wants names to be unique.
UNNAMED = ("reserved", "ignored")


class Structure(Packet):
    """Base every wire or table format; a structure carries no payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Leave whatever follows to the caller."""
        return b"", s


S = TypeVar("S", bound=Structure)


def _word(index: int, columns: Columns, size: int) -> list[AnyField]:
    names: list[tuple[str, int]] = []
    low = 0
    for name, width in columns:
        names.append((f"{name}{index}_{low}" if name in UNNAMED else name, width))
        low += width
    if low != size * 8:
        raise ValueError(f"word {index} has {low} bits, not {size * 8}")
    # The first field turns the bytes of the whole word around when read, the last one when built.
    # Sizes of 1 keep them from turning a part of it as well, which BitField does by default where
    # a field happens to start or end at a byte.
    fields: list[AnyField] = []
    for place, (name, width) in enumerate(reversed(names)):
        start = -size if place == 0 else 1
        end = -size if place == len(names) - 1 else 1
        fields.append(BitField(name, 0, width, tot_size=start, end_tot_size=end))
    return fields


def quadwords(*words: Columns) -> list[AnyField]:
    """Return the Scapy fields of little-endian 64-bit words, given lowest bit first."""
    return [field for index, word in enumerate(words) for field in _word(index, word, 8)]


def doubleword(*columns: tuple[str, int]) -> list[AnyField]:
    """Return the Scapy fields of one little-endian 32-bit word, given lowest bit first."""
    return _word(0, columns, 4)


def bit_fields(cls: type[Structure]) -> list[tuple[str, int]]:
    """Return (name, width) of every field of a structure in Scapy's order, highest bit first."""
    return [(field.name, field.size) for field in cls.fields_desc if isinstance(field, BitField)]


def word_size(cls: type[Structure]) -> int:
    """Return the size in bytes of the words a structure is made of."""
    first = cls.fields_desc[0]
    if not isinstance(first, BitField):
        raise TypeError(f"{cls.__name__} is not made of bit fields")
    return first.tot_size


def structure_size(cls: type[Structure]) -> int:
    """Return the size of a structure in bytes."""
    return sum(width for _, width in bit_fields(cls)) // 8


def decode(cls: type[S], data: bytes | Sequence[int], path: str) -> S:
    """Dissect exactly one structure from its bytes, or from its words; raise DecodeError.

    path names the data in the error (``queue[3]``).
    """
    size, word = structure_size(cls), word_size(cls)
    if not isinstance(data, bytes | bytearray | memoryview):
        for index, value in enumerate(data):
            if not 0 <= value < 1 << word * 8:
                problem = f"{value:#x} does not fit {word * 8} bits"
                raise DecodeError(f"{path}.word[{index}]", problem, index * word)
        data = b"".join(value.to_bytes(word, "little") for value in data)
    if len(data) < size:
        problem = f"{cls.__name__} takes {size} bytes, the data ends after {len(data)}"
        raise DecodeError(path, problem, len(data))
    if len(data) > size:
        problem = f"{cls.__name__} takes {size} bytes, {len(data) - size} more follow"
        raise DecodeError(path, problem, size)
    return cls(bytes(data))


def build(cls: type[S], **values: int) -> S:
    """Make a structure from the values of its fields, the others zero.

    Raise ValueError for a value that does not fit, which Scapy would cut.
    """
    widths = dict(bit_fields(cls))
    for name, value in values.items():
        if name not in widths:
            raise ValueError(f"{cls.__name__} has no field {name}")
        if not 0 <= value < 1 << widths[name]:
            raise ValueError(f"{cls.__name__}.{name}: {value:#x} does not fit {widths[name]} bits")
    packet = cls()
    for name, value in values.items():
        packet.setfieldval(name, value)
    return packet


def encode(packet: Structure) -> bytes:
    """Return the bytes of a structure."""
    return bytes(packet)


def words(packet: Structure) -> tuple[int, ...]:
    """Return a structure as the words it is made of (64 bits, or 32 for a 32-bit register)."""
    data, size = bytes(packet), word_size(type(packet))
    return struct.unpack(f"<{len(data) // size}{'Q' if size == 8 else 'I'}", data)
