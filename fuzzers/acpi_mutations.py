"""Ways to change a table; each takes the bytes, the seed that they came from, and chance."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Final

from decoders.acpi import HEADER_SIZE, checksum
from fuzzers.acpi_seeds import Seed

_LENGTH_AT, _CHECKSUM_AT = 4, 9
_MOST_CHANGES = 4
_LONGEST_PIECE = 48

_BYTES: Final = (0, 1, 2, 3, 4, 5, 0x10, 0x30, 0x40, 0x7F, 0x80, 0x81, 0xFF)
_NUMBERS: Final = (0, 1, 2, 4, 6, 16, 20, 36, 48, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)

Change = Callable[[bytearray, Seed, Random], None]


def flip(data: bytearray, seed: Seed, choose: Random) -> None:
    """Turn one bit around."""
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def set_byte(data: bytearray, seed: Seed, choose: Random) -> None:
    """Put a byte that means something in many formats, or any."""
    if data:
        value = choose.choice(_BYTES) if choose.random() < 0.7 else choose.randrange(256)
        data[choose.randrange(len(data))] = value


def set_number(data: bytearray, seed: Seed, choose: Random) -> None:
    """Change a number field of the seed: to an extreme, to one close by, or to a size."""
    if not seed.numbers:
        return
    at, size = choose.choice(seed.numbers)
    if at + size > len(data):
        return
    now = int.from_bytes(data[at : at + size], "little")
    near = (
        now + choose.randint(-2, 2),
        now * 2,
        len(data),
        len(data) - at,
        choose.choice(_NUMBERS),
        1 << choose.randrange(8 * size),  # products wrap at powers of two
    )
    value = choose.choice(near) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, "little")


def refer(data: bytearray, seed: Seed, choose: Random) -> None:
    """Make a number field the place of a node, as references between nodes are."""
    if not seed.numbers or not seed.nodes:
        return
    at, size = choose.choice(seed.numbers)
    place = choose.choice(seed.nodes)[0] - seed.start
    if size >= 2 and at + size <= len(data) and place < 1 << 8 * size:
        data[at : at + size] = place.to_bytes(size, "little")


def cut(data: bytearray, seed: Seed, choose: Random) -> None:
    """Drop the end."""
    del data[choose.randrange(len(data) + 1) :]


def remove(data: bytearray, seed: Seed, choose: Random) -> None:
    """Drop a piece."""
    at = choose.randrange(len(data) + 1)
    del data[at : at + choose.randint(1, _LONGEST_PIECE)]


def repeat(data: bytearray, seed: Seed, choose: Random) -> None:
    """Have a piece once more."""
    at = choose.randrange(len(data) + 1)
    data[at:at] = data[at : at + choose.randint(1, _LONGEST_PIECE)]


def shuffle(data: bytearray, seed: Seed, choose: Random) -> None:
    """Put the nodes of the seed into another order."""
    nodes = list(seed.nodes)
    if not nodes or nodes[-1][1] > len(data):
        return
    pieces = [bytes(data[start:end]) for start, end in nodes]
    choose.shuffle(pieces)
    data[nodes[0][0] : nodes[-1][1]] = b"".join(pieces)


def replace_node(data: bytearray, seed: Seed, choose: Random) -> None:
    """Have one node of the seed in the place of another."""
    if seed.nodes:
        start, end = choose.choice(seed.nodes)
        from_, to = choose.choice(seed.nodes)
        data[start:end] = data[from_:to]


CHANGES: Final[tuple[Change, ...]] = (
    *(flip, set_byte, set_number, set_number, set_number, refer),
    *(cut, remove, repeat, shuffle, replace_node),
)


def mutate(seed: Seed, choose: Random) -> bytes:
    """Change a table a few times; give it the right length and checksum, or leave them."""
    data = bytearray(seed.data)
    for _ in range(choose.randint(1, _MOST_CHANGES)):
        choose.choice(CHANGES)(data, seed, choose)
    if choose.random() < 0.7:
        _set_length(data, 0)
        if seed.start and choose.random() < 0.7:
            _set_length(data, seed.start)
    if choose.random() < 0.5 and len(data) >= HEADER_SIZE:
        data[_CHECKSUM_AT] = (data[_CHECKSUM_AT] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def _set_length(data: bytearray, start: int) -> None:
    if len(data) >= start + HEADER_SIZE:
        struct.pack_into("<I", data, start + _LENGTH_AT, len(data) - start)
