"""Change and cross memory images: fields of entries and descriptors, quadwords, whole descriptors.

What decides about an entry are mostly one or two fields, beside others that stay sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

from decoders.layout import Layout

_WORD: Final = 8
_MOST_CHANGES: Final = 4
_LONGEST_RUN: Final = 4
_ADDRESS_BITS: Final = 40
"""Fields of so many bits are addresses."""

_ADDRESSES: Final = 2
"""How often more than others an address is changed, which has many values worth having."""

_NEAR: Final = (-0x1000, -1, 1, 0x1000, 0x20_0000, 1 << 32)

Change = Callable[[bytearray, Random], None]
Entries = Callable[[bytes], Sequence[tuple[int, Layout]]]
"""Says where in an input's image entries may be, and of which form."""


class WordMutator:
    """Change images behind a first byte, which chooses a scaffold.

    words are quadwords to change others with, places are addresses that lead somewhere, entries
    finds fields. steps has a number for each scaffold: where it is not 0 an image is a queue of
    units of so many bytes, which come, go and move, and are taken from seeds; else its size is
    kept.
    """

    def __init__(
        self,
        words: Iterable[bytes],
        places: Iterable[int],
        entries: Entries,
        steps: Iterable[int],
        seeds: Iterable[bytes],
    ) -> None:
        self._entries = entries
        self._places = tuple(places)
        self._words = [int.from_bytes(word, "little") for word in words if len(word) == _WORD]
        self._steps = tuple(steps)
        self._seeds = tuple(seeds)
        self._changes: tuple[Change, ...] = (
            *(self._toggle, self._replace, _flip, _add, _copy, _clear),
        )

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Return an image with a few changes."""
        random = Random(seed)
        if self._seeds and random.random() < 0.2:
            # Most of what was kept is unsound somewhere, and hides what a second change would do.
            data = random.choice(self._seeds)
        head, image = self._head(data, random), bytearray(data[1:] or bytes(_WORD))
        step = self._steps[head % len(self._steps)]
        for _ in range(random.randint(1, _MOST_CHANGES)):
            chance = random.random()
            if step and chance < 0.3:
                self._move(image, step, random)
            elif chance < 0.8:
                self._set_field(head, image, random)
            else:
                random.choice(self._changes)(image, random)
        return (bytes((head,)) + image)[:max_size]

    def cross(self, first: bytes, second: bytes, max_size: int, seed: int) -> bytes:
        """Return the beginning of one image and the end of another, cut between quadwords.

        Where they are for different scaffolds nothing would fit, and one is changed instead.
        """
        random = Random(seed)
        if first[:1] != second[:1]:
            return self.mutate(first, max_size, seed)
        at = 1 + _WORD * random.randint(0, max(len(first), len(second)) // _WORD)
        return ((first[:1] or b"\0") + first[1:at] + second[at:])[:max_size]

    def _head(self, data: bytes, random: Random) -> int:
        if not data or random.random() < 0.05:
            return random.randrange(len(self._steps))
        return data[0]

    def _set_field(self, head: int, image: bytearray, random: Random) -> None:
        """Give a field of an entry another value, or set a reserved bit."""
        entries = self._entries(bytes((head,)) + image)
        if not entries:
            return _flip(image, random)
        # What is empty matters less.
        filled = [one for one in entries if any(image[one[0] : one[0] + one[1].size])]
        at, shape = random.choice(filled if filled and random.random() < 0.8 else entries)
        masks = [(field.word, field.mask) for field in shape.fields.values()]
        masks += [one for one in masks if _is_address(one[1])] * _ADDRESSES
        masks += [(word, mask) for word, mask in enumerate(shape.reserved) if mask]
        # Fields of one entry count together.
        for word, mask in random.choices(masks, k=2 if random.random() < 0.3 else 1):
            self._set_bits(image, at + _WORD * word, mask, random)
        return None

    def _set_bits(self, image: bytearray, at: int, mask: int, random: Random) -> None:
        low = mask & -mask
        if _is_address(mask) and self._places and random.random() < 0.5:
            place = random.choice(self._places) & mask
            return _put(image, at, lambda now: now & ~mask | place)
        value = random.choice((0, mask, low, 1 << random.randrange(64), random.getrandbits(64)))
        return _put(image, at, lambda now: now & ~mask | (value & mask or now & mask ^ low))

    def _toggle(self, image: bytearray, random: Random) -> None:
        if self._words:
            _change(image, random, lambda now: now ^ random.choice(self._words))

    def _replace(self, image: bytearray, random: Random) -> None:
        if self._words:
            _change(image, random, lambda now: random.choice(self._words))

    def _move(self, image: bytearray, step: int, random: Random) -> None:
        """Take a run of units away, or insert one: from here or from a seed."""
        at = step * random.randint(0, len(image) // step)
        size = step * random.randint(1, _LONGEST_RUN)
        if random.random() < 0.3:
            del image[at : at + size]
            return
        source = bytes(image)
        if random.random() < 0.7:
            fitting = [one for one in self._seeds if self._steps[one[0] % len(self._steps)] == step]
            source = random.choice(fitting or [b"\0"])[1:]
        start = step * random.randint(0, max(0, len(source) // step - 1))
        image[at:at] = source[start : start + size]


def _is_address(mask: int) -> bool:
    return mask.bit_count() >= _ADDRESS_BITS


def _change(image: bytearray, random: Random, change: Callable[[int], int]) -> None:
    _put(image, _WORD * random.randrange(max(1, len(image) // _WORD)), change)


def _put(image: bytearray, at: int, change: Callable[[int], int]) -> None:
    size = min(_WORD, len(image) - at)
    if size <= 0:
        return
    now = int.from_bytes(image[at : at + size], "little")
    image[at : at + size] = (change(now) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _flip(image: bytearray, random: Random) -> None:
    _change(image, random, lambda now: now ^ 1 << random.randrange(64))


def _add(image: bytearray, random: Random) -> None:
    _change(image, random, lambda now: now + random.choice(_NEAR))


def _clear(image: bytearray, random: Random) -> None:
    _change(image, random, lambda now: 0)


def _copy(image: bytearray, random: Random) -> None:
    """Give a quadword the value of another, so that they lead to the same place."""
    at = _WORD * random.randrange(max(1, len(image) // _WORD))
    other = int.from_bytes(image[at : at + _WORD], "little")
    _change(image, random, lambda now: other)
