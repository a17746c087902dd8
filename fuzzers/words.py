"""Words for libFuzzer's dictionaries, from the layouts: types, fields, reserved bits, pointers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from decoders.fields import Structure
from decoders.layout import layout

_MOST_BITS = 6
"""Fields up to so many bits have each of their single bits as a word."""


def quadword(value: int) -> bytes:
    """Return a quadword as it lies in memory."""
    return (value & (1 << 64) - 1).to_bytes(8, "little")


def of_layouts(shapes: Iterable[type[Structure]]) -> Iterator[bytes]:
    """Yield a quadword for each field (all of it, its lowest bit), and for reserved bits."""
    for cls in shapes:
        shape = layout(cls)
        for field in shape.fields.values():
            yield quadword(field.mask)
            yield quadword(1 << field.low)
            if field.width <= _MOST_BITS:
                yield from (quadword(1 << field.low + bit) for bit in range(1, field.width))
        for mask in shape.reserved:
            yield quadword(mask)
            yield quadword(mask & -mask)


def of_types(shapes: Iterable[tuple[int, type[Structure]]]) -> Iterator[bytes]:
    """Yield the lowest quadword of each descriptor type, alone and with each granularity."""
    for kind, cls in shapes:
        shape = layout(cls)
        words = [0] * shape.words
        shape["type"].put(words, kind)
        yield quadword(words[0])
        if "g" in shape.fields and shape["g"].word == 0:
            yield from (
                quadword(words[0] | value << shape["g"].low)
                for value in range(1, 1 << shape["g"].width)
            )
