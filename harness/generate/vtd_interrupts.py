"""Make up a table of interrupt entries, sound or not, requests that use it, and what drops them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from decoders.events import RegWrite, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InterruptEntryCacheInvalidation
from decoders.vtd.interrupt import InterruptRemapEntry, RemappableAddress
from harness.generate.vtd_tables import packed
from harness.message import Msi

TABLES: Final = (0x20_0000, 0x30_0000)
"""Where tables are: one of up to 65536 entries, one of up to 32768."""

_ENTRY: Final = layout(InterruptRemapEntry)
_ADDRESS: Final = layout(RemappableAddress)
_INVALIDATION: Final = layout(InterruptEntryCacheInvalidation)
_EIME: Final = layout(vtd.Irta)["eime"].mask
_MOST: Final = 14
"""S of a table of 32768 entries."""

_INDICES: Final = (0, 1, 2, 3, 5, 15, 16, 17, 63, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
_XAPIC_SHIFT: Final = 8
_SUBHANDLES: Final = (0, 1, 2, 3, 15, 255, 0x8000, 0xFFFF)

Words = tuple[int, ...]


class Interrupts:
    """Own the tables of a sequence; sids are those of the senders."""

    def __init__(self, sids: Sequence[int], random: Random) -> None:
        self._sids, self._random = sids, random
        self._entries: dict[int, Words] = {}
        self._extended = random.random() < 0.3
        self._place = TABLES[0]
        self._order = random.choice((0, 3, 7, 15))
        self._used = [index for index in _INDICES if index < 2 << self._order]

    @property
    def root(self) -> int:
        """Return what IRTA should hold."""
        return self._place | self._order | (_EIME if self._extended else 0)

    def start(self) -> list[Store]:
        """Return the stores that fill the table."""
        return [
            store for index in self._used if self._random.random() < 0.8
            for store in self._put(index, self._sound())
        ]  # fmt: skip

    def moved(self) -> tuple[list[Store], list[RegWrite]]:
        """Change table, size or mode; return the stores that copy entries, and writes to IRTA."""
        random = self._random
        draw = random.random()
        stores: list[Store] = []
        if draw < 0.4:
            self._extended = not self._extended
        elif draw < 0.7:
            self._order = random.choice((0, 2, 3, 7, _MOST))
        else:
            self._place = TABLES[self._place == TABLES[0]]
            self._order = min(self._order, _MOST)
            kept, self._entries = self._entries, {}
            for index, words in kept.items():
                if index < 2 << self._order and random.random() < 0.8:
                    stores += self._put(index, words)
        return stores, [RegWrite(vtd.IRTA.offset, 8, self.root)]

    def edit(self) -> tuple[list[Store], int]:
        """Change an entry, one behind a small table, too; return the stores and its index."""
        index = self._index()
        if self._place != TABLES[0]:
            index %= 2 << _MOST  # behind it is the pool
        words = self._sound() if self._random.random() < 0.5 else self._broken()
        return self._put(index, words), index

    def dropping(self, index: int) -> list[Words]:
        """Return the invalidation of an entry, or less, or something that is none."""
        random = self._random
        draw = random.random()
        if draw < 0.3:
            return [packed(_INVALIDATION, type=4)]
        if draw < 0.7:
            order = random.choice((0, 0, 1, 4, 15))
            return [packed(_INVALIDATION, type=4, g=1, im=order, iidx=index >> order << order)]
        if draw < 0.9:
            return [packed(_INVALIDATION, type=4, g=1, im=random.choice((0, 2)), iidx=index ^ 8)]
        if draw < 0.95:
            return [packed(_INVALIDATION, type=4, g=1, im=random.choice((16, 31)), iidx=index)]
        return []

    def request(self, index: int | None = None) -> Msi:
        """Return a message that names an entry: that one, another, none."""
        random = self._random
        sender, data = random.randrange(len(self._sids)), random.getrandbits(16)
        address = 0xFEE << 20
        if random.random() < 0.1:
            return Msi(sender, address | (random.getrandbits(20) & ~0x13), data)
        if index is None:
            index = self._index() if random.random() < 0.9 else random.getrandbits(16)
        shv = 0
        if random.random() < 0.3:
            shv, data = 1, random.choice(_SUBHANDLES)
            # Their sum may have 17 bits.
            index = index - data if index >= data else index
        low = _ADDRESS["handle_low"].width
        (word,) = packed(
            _ADDRESS, fee=0xFEE, format=1, shv=shv, handle_high=index >> low,
            handle_low=index & (1 << low) - 1,
        )  # fmt: skip
        return Msi(sender, word, data)

    # -- entries -----------------------------------------------------------------------------

    def _index(self) -> int:
        chosen = self._used if self._random.random() < 0.85 else _INDICES
        return self._random.choice(chosen)

    def _put(self, index: int, words: Words) -> list[Store]:
        before = self._entries.get(index, (0, 0))
        self._entries[index] = words
        at = self._place + _ENTRY.size * index
        return [
            Store(at + 8 * n, 8, word)
            for n, (word, old) in enumerate(zip(words, before, strict=True))
            if word != old
        ]

    def _sound(self, **more: int) -> Words:
        random = self._random
        target = random.choice((0, 1, 0xFF))
        svt = random.choice((0, 0, 1, 1, 2))
        sid = random.choice(self._sids)
        values = {
            "p": 1,
            "vector": random.randrange(0x10, 0xFF),
            "dlm": random.choice((0, 0, 1, 2, 4, 5, 7)),
            "dm": random.getrandbits(1),
            "rh": random.getrandbits(1),
            "tm": random.getrandbits(1),
            "avail": random.getrandbits(4),
            "dst": target if self._extended else target << _XAPIC_SHIFT,
            "svt": svt,
            "sq": random.randrange(4) if svt == 1 else 0,
            "sid": sid >> 8 << 8 | sid >> 8 if svt == 2 else sid,
        }
        return packed(_ENTRY, **(values | more))

    def _broken(self) -> Words:
        random = self._random
        fpd = {"fpd": 1} if random.random() < 0.3 else {}
        match random.randrange(8):
            case 0:
                return self._sound(p=0, **fpd)
            case 1:
                return self._sound(svt=3, **fpd)
            case 2:
                return self._sound(svt=1, sq=random.randrange(4), sid=self._other(), **fpd)
            case 3:
                first, last = random.choice(((0, 0), (1, 1), (2, 3), (3, 2), (0, 255)))
                return self._sound(svt=2, sid=last << 8 | first, **fpd)
            case 4:
                return self._sound(im=1, **fpd)
            case 5:
                return self._sound(dst=random.getrandbits(32), **fpd)
            case 6:
                words = list(self._sound(**fpd))
                number = random.randrange(2)
                bits = [bit for bit in range(64) if _ENTRY.reserved[number] >> bit & 1]
                words[number] |= 1 << random.choice(bits)
                return tuple(words)
            case _:
                return (0, 0)

    def _other(self) -> int:
        """Return an id that only differs from a sender's in function, or more."""
        return self._random.choice(self._sids) ^ self._random.choice((1, 2, 4, 7, 8, 0x100))
