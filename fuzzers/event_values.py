"""Give fields of events other values: near, at limits, those of other events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from decoders.bytewise import ByteStructure, field_sizes, packed, size_of
from decoders.virtio_iommu.requests import REQUESTS

_INTERESTING: Final = (
    0, 1, 2, 3, 4, 7, 8, 0x10, 0x1F, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xFF, 0x100, 0x1FF, 0xFFF,
    0x1000, 0xFFFF, 0x10000, 0xFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFEE00000, 1 << 32,
    1 << 39, 1 << 47, 1 << 48, 1 << 52, 1 << 56, 1 << 63, (1 << 47) - 0x1000, (1 << 64) - 1,
    (1 << 64) - 8, (1 << 64) - 0x1000, (1 << 64) - (1 << 47), (1 << 64) - (1 << 56),
)  # fmt: skip
_WIDTHS: Final = (8, 16, 20, 32, 64)
"""Bits of numbers: flags, source ids, PASIDs, registers, addresses."""

_NEAR: Final = (-0x1000, -8, -1, 1, 8, 0x1000)
_LOOKED_THROUGH: Final = 64
"""Bytes in which numbers are looked for where no form is known."""


def _fields_of(request: type[ByteStructure]) -> list[tuple[int, int]]:
    form = packed(request)
    sizes = field_sizes(request)
    return [(form.offset(name), size) for name, size in sizes if size in (4, 8)]


_SIZES: Final = {int(kind): size_of(request) for kind, request in REQUESTS.items()}
_FIELDS: Final = {int(kind): _fields_of(request) for kind, request in REQUESTS.items()}
"""Offset and size of the numbers of each request of a virtio-iommu."""


def other(value: Any, random: Random) -> Any:
    """Return another value of a field."""
    if isinstance(value, bool) or value is None:
        return random.choice((None, 0, random.choice(_INTERESTING), [0x1000, 0xFFF]))
    if isinstance(value, int):
        return other_number(value, random)
    if isinstance(value, bytes):
        return _other_octets(value, random)
    if isinstance(value, list) and value:
        changed = list(value)
        place = random.randrange(len(changed))
        changed[place] = other(changed[place], random)
        return changed
    return None


def other_number(value: int, random: Random) -> int:
    """Return another number: of one bit more or less, near, at a limit, or any."""
    match random.randrange(6):
        case 0 | 1:
            return value ^ 1 << random.randrange(random.choice(_WIDTHS))
        case 2:
            return value ^ 1 << random.randrange(max(1, value.bit_length() + 1))
        case 3:
            return max(0, value + random.choice(_NEAR))
        case 4:
            return random.choice(_INTERESTING)
        case _:
            return random.getrandbits(random.choice((1, 4, 8, 16, 32, 64)))


def _other_octets(value: bytes, random: Random) -> bytes:
    if not value or random.random() < 0.1:
        return value + random.randbytes(random.choice((1, 4, 8)))
    if random.random() < 0.1:
        return value[: random.randrange(len(value))]
    places = _places(value)
    if places and random.random() < 0.6:
        at, size = random.choice(places)
        if random.random() < 0.3:
            # Beginnings and ends meet.
            start, length = random.choice(places)
            return _put(value, at, size, _number(value, start, length))
    else:
        at, size = random.randrange(len(value)), 1
    return _put(value, at, size, other_number(_number(value, at, size), random))


def numbers(fields: Sequence[Any]) -> list[int]:
    """Return the numbers of an event, those within its octets, too."""
    return [number for value in fields[1:] for number in _within(value)]


def has_numbers(value: Any) -> bool:
    """Say whether placed() can give a number to a field."""
    return type(value) is int or isinstance(value, bytes)


def placed(value: int | bytes, number: int, random: Random) -> int | bytes:
    """Return a field that is, or somewhere has, a number or one near it."""
    if random.random() < 0.3:
        number = max(0, number + random.choice(_NEAR))
    if isinstance(value, int):
        return number
    places = [one for one in _places(value) if number >> 8 * one[1] == 0]
    return _put(value, *random.choice(places), number) if places else value


def _within(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, bytes):
        yield from (_number(value, at, size) for at, size in _places(value))


def _places(data: bytes) -> list[tuple[int, int]]:
    """Return where numbers stand: those of a request, else quadwords and their halves."""
    if data and len(data) >= _SIZES.get(data[0], len(data) + 1):
        return _FIELDS[data[0]]
    end = min(len(data), _LOOKED_THROUGH)
    return [(at, size) for size in (4, 8) for at in range(0, end - size + 1, size)]


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _put(data: bytes, at: int, size: int, number: int) -> bytes:
    return data[:at] + (number & (1 << 8 * size) - 1).to_bytes(size, "little") + data[at + size :]
