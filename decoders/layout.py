"""Masks, shifts and reserved bits, derived from the Scapy classes.

A Scapy dissection is far too slow for a hot path. Code that runs per event takes the place of a
field from here and works on plain integers; the header of the native core is generated from the
same source (tools/generate_layout.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decoders.fields import Structure, bit_fields, structure_size, word_size


@dataclass(frozen=True, slots=True)
class Field:
    """Locate a field: the word it is in, its lowest bit there, its width in bits."""

    word: int
    low: int
    width: int

    @property
    def mask(self) -> int:
        """Cover the field, in place in its word."""
        return ((1 << self.width) - 1) << self.low

    def get(self, words: Sequence[int]) -> int:
        """Return the value of the field."""
        return words[self.word] >> self.low & ((1 << self.width) - 1)

    def put(self, words: list[int], value: int) -> None:
        """Set the field in words; raise ValueError when value does not fit."""
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"{value:#x} does not fit {self.width} bits")
        words[self.word] = words[self.word] & ~self.mask | value << self.low

    def address(self, words: Sequence[int]) -> int:
        """Return an aligned pointer whose low bits other fields share: masked, not shifted."""
        return words[self.word] & self.mask


@dataclass(frozen=True, slots=True)
class Layout:
    """Describe a structure as words: where fields are, which bits are reserved or ignored.

    words counts the words and word_size is their size in bytes (8, or 4 for a 32-bit register);
    reserved and ignored hold one mask per word. Reserved bits have no entry in fields.
    """

    name: str
    words: int
    word_size: int
    fields: dict[str, Field]
    reserved: tuple[int, ...]
    ignored: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return the size of the structure in bytes."""
        return self.words * self.word_size

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    def mask(self, *names: str) -> int:
        """Cover the named fields, which must share one word."""
        chosen = [self.fields[name] for name in names]
        if len({field.word for field in chosen}) > 1:
            raise ValueError(f"{self.name}: {', '.join(names)} are not in one word")
        return sum(field.mask for field in chosen)


_LAYOUTS: dict[type[Structure], Layout] = {}


def layout(cls: type[Structure]) -> Layout:
    """Return the layout of a Scapy class built by decoders.fields; the same one every time."""
    known = _LAYOUTS.get(cls)
    if known is None:
        known = _LAYOUTS[cls] = _derive(cls)
    return known


def _derive(cls: type[Structure]) -> Layout:
    size = word_size(cls)
    count = structure_size(cls) // size
    fields: dict[str, Field] = {}
    reserved, ignored = [0] * count, [0] * count
    word, high = 0, size * 8
    for name, width in bit_fields(cls):
        high -= width
        field = Field(word, high, width)
        if name.startswith("reserved"):
            reserved[word] |= field.mask
        elif name.startswith("ignored"):
            ignored[word] |= field.mask
        else:
            fields[name] = field
        if high == 0:
            word, high = word + 1, size * 8
    ordered = dict(sorted(fields.items(), key=lambda item: (item[1].word, item[1].low)))
    return Layout(cls.__name__, count, size, ordered, tuple(reserved), tuple(ignored))
