"""Make up interrupt remapping: entries sound and not, invalidations, messages of devices."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from decoders.events import Event, InterruptRequest, RegWrite, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InterruptEntryCacheInvalidation
from decoders.vtd.interrupt import (
    InterruptRemapEntry,
    PostedInterruptDescriptor,
    PostedInterruptEntry,
)
from decoders.vtd.register_fields import GlobalCommand, Irta
from harness.generate.vtd_steps import Scene
from harness.generate.vtd_tables import NOWHERE, packed

_REMAPPED: Final = layout(InterruptRemapEntry)
_POSTED: Final = layout(PostedInterruptEntry)
_DESCRIPTOR: Final = layout(PostedInterruptDescriptor)
_ENTRIES: Final = layout(InterruptEntryCacheInvalidation)
_IRTA: Final = layout(Irta)
_SIRTP: Final = layout(GlobalCommand)["sirtp"].mask
_CFI: Final = layout(GlobalCommand)["cfi"].mask
_INDICES: Final = (*range(6), 200, 255, 300, 0xFFFF)
_CONTROL: Final = 32
"""Byte of a posted descriptor at which its control quadword is."""


class MixedInterrupts:
    """Make up entries and messages for a scene."""

    def __init__(self, scene: Scene, random: Random) -> None:
        self._scene, self._random = scene, random
        self._sids = (*(device.sid for device in scene.devices), None)
        self._tables: Sequence[int] = ()
        self._descriptors: Sequence[int] = ()

    def opening(
        self, pages: Sequence[int], level: int
    ) -> tuple[tuple[Store, ...], tuple[RegWrite, ...]]:
        """Return what fills tables and makes one the unit's; pages are for them."""
        *tables, posted = pages
        self._tables = (*tables, NOWHERE)
        self._descriptors = (posted, posted + 0x40, NOWHERE + 0x1000)
        stores = [store for index in _INDICES[:6] for store in self._entry(tables[0], index)]
        stores += [store for index in _INDICES[:3] for store in self._entry(tables[1], index)]
        stores += [self._posting(place) for place in self._descriptors[:2]]
        return tuple(stores), self.latch(level, tables[0])

    def latch(self, level: int, table: int | None = None) -> tuple[RegWrite, ...]:
        """Return the writes that make a table the one in use, by default any."""
        random = self._random
        fields = {"s": random.choice((2, 7, 7, 15)), "eime": random.getrandbits(1)}
        place = random.choice(self._tables) if table is None else table
        value = packed(_IRTA, irta=place, **fields)[0]
        level |= _CFI * (random.random() < 0.3)
        return (
            RegWrite(vtd.IRTA.offset, 8, value | (random.random() < 0.05) << 50),
            RegWrite(vtd.GCMD.offset, 4, level),
            RegWrite(vtd.GCMD.offset, 4, level | _SIRTP),
        )

    def change(self) -> tuple[list[Store], list[Event]]:
        """Return stores that change something, seldom nothing, and messages."""
        random = self._random
        index = random.choice(_INDICES[:6])
        draw = random.random()
        stores: list[Store] = []
        if draw < 0.6:
            stores = self._entry(random.choice(self._tables[:2]), index)
        elif draw < 0.75:
            stores = [self._posting(random.choice(self._descriptors[:2]))]
        asked: list[Event] = [self._message(index)]
        while random.random() < 0.5:
            asked.append(self._message(random.choice(_INDICES)))
        return stores, asked

    def invalidation(self) -> tuple[int, ...]:
        """Return what drops some or all entries."""
        random = self._random
        order = random.choice((0, 0, 1, 3, 15, 31))
        return packed(
            _ENTRIES, type=4, g=random.getrandbits(1), im=order, iidx=random.choice(_INDICES)
        )

    # -- inside ------------------------------------------------------------------------------

    def _entry(self, table: int, index: int) -> list[Store]:
        """Return the stores of an entry, most often a sound one."""
        random = self._random
        common = {
            "p": int(random.random() < 0.9),
            "fpd": random.getrandbits(1),
            "vector": random.choice((0x31, 0x32, 0xF2)),
            "sid": random.choice(self._sids[:-1]) or 0,
            "sq": random.randrange(4),
            "svt": random.choice((0, 0, 0, 1, 1, 2, 3)),
        }
        if self._scene.config.cap("pi") and random.random() < 0.4:
            place = random.choice(self._descriptors)
            words = list(packed(_POSTED, im=1, urg=random.getrandbits(1), **common))
            _POSTED["pda_low"].put(words, place >> 6 & 0x3FF_FFFF)
            _POSTED["pda_high"].put(words, place >> 32)
        else:
            words = list(
                packed(
                    _REMAPPED,
                    dm=random.getrandbits(1),
                    rh=random.getrandbits(1),
                    tm=random.getrandbits(1),
                    dlm=random.randrange(8),
                    dst=random.choice((0x100, 0x200, 0x200, 0x1234_5678)),
                    **common,
                )
            )
        if random.random() < 0.1:
            words[random.randrange(2)] ^= 1 << random.randrange(64)
        at = table + 16 * index
        return [Store(at + 8, 8, words[1]), Store(at, 8, words[0])]

    def _posting(self, place: int) -> Store:
        """Return the store of a posted descriptor's control quadword."""
        random = self._random
        fields = {"sn": random.getrandbits(1), "nv": 0xF2, "ndst": 0x900}
        words = packed(_DESCRIPTOR, **fields)
        flipped = 1 << random.randrange(64) if random.random() < 0.2 else 0
        return Store(place + _CONTROL, 8, words[4] ^ flipped)

    def _message(self, index: int) -> InterruptRequest:
        random = self._random
        sid = random.choice(self._sids)
        draw = random.random()
        if draw < 0.1:
            return InterruptRequest(sid, 0xFEE0_0000 | random.randrange(4) << 12, 0x31, None)
        if draw < 0.15:
            return InterruptRequest(sid, random.getrandbits(40), random.getrandbits(32), None)
        subhandle = random.choice((0, 1, 2, 0xFFFF, 0x1_0000)) if draw < 0.4 else None
        handle = index if subhandle is None else index - subhandle & 0xFFFF
        place = 0xFEE0_0010 | (handle & 0x7FFF) << 5 | handle >> 15 << 2
        if subhandle is None:
            return InterruptRequest(sid, place, 0, None)
        return InterruptRequest(sid, place | 1 << 3, subhandle, None)
