"""Lay out root, context, PASID and paging tables that a VT-d unit of given capabilities accepts.

Every entry becomes a Spot: where it is, what a sound value for it is, and what it is about. Edits
keep away from what would let DMA change tables: pointers lead to tables of the same level, to pages
of zeros or beyond RAM, leaves into the pool or beyond RAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from decoders.events import Role, Store
from decoders.layout import Layout, layout
from decoders.vtd.paging import ENTRY_SIZE, PAGE_SHIFT, entry_index
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.model.config import UnitConfig

PAGE: Final = 4096
TABLES_START: Final = 0x10_0000
TABLES_END: Final = 0x1E_0000
QUEUE: Final = 0x1E_0000
STATUS: Final = 0x1F_0000
"""Where wait descriptors write to."""

NOWHERE: Final = 0x9000_0000
"""No RAM is there, nor anything else."""

_LARGE, _HUGE = PAGE_SHIFT[2], PAGE_SHIFT[3]
NEAR: Final = 0x8000_0000
"""Where mappings are that every device reaches: pages, then a 2 MiB leaf."""

HUGE: Final = 0xC000_0000
"""Where a 1 GiB leaf is."""

FAR: Final = 0x12_3400_0000
WIDE: Final = 0x4001_4000_0000
"""Where mappings are that devices with 64 bits reach, the latter with 48 bits and more."""

_PAGES: Final = 4
"""Pages of each group."""

_SECOND_LINK, _FIRST_LINK = 0x3, 0x7
_PS: Final = 0x80


@dataclass(frozen=True, slots=True)
class Spot:
    """Describe one entry of 1, 2, 4 or 8 quadwords, and a sound content for it.

    level is that of a paging entry; iovas are addresses that need the entry. space is an index
    into Tables.spaces for a paging entry, device one into Tables.devices for others.
    """

    role: Role
    address: int
    words: tuple[int, ...]
    level: int = 0
    leaf: bool = False
    space: int = -1
    device: int = -1
    iovas: tuple[int, ...] = ()


@dataclass(slots=True)
class Space:
    """Describe one set of paging tables."""

    domain: int
    stage: Role
    levels: int
    root: int
    iovas: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Place:
    """Say how one source id is translated: through a space, or -1 for pass-through."""

    sid: int
    space: int
    pasid: int = 0
    ats: bool = False


def packed(shape: Layout, **values: int) -> tuple[int, ...]:
    """Return the words of an entry; pointers are given as addresses."""
    words = [0] * shape.words
    for name, value in values.items():
        place = shape.fields[name]
        if place.width >= 40:
            words[place.word] |= value & place.mask
        else:
            place.put(words, value)
    return tuple(words)


class Tables:
    """Make up tables for some source ids; `stores` is what puts them into memory."""

    def __init__(
        self,
        config: UnitConfig,
        sids: Sequence[int],
        pool: tuple[int, int],
        random: Random,
        ats: frozenset[int] = frozenset(),
    ) -> None:
        self.config, self._random, self._ats = config, random, ats
        self.pool_start, self.pool_pages = pool
        self._next = TABLES_START
        self.stores: list[Store] = []
        self.spots: list[Spot] = []
        self.spaces: list[Space] = []
        self.places: list[Place] = []
        self.zeros = self.page()
        # A unit without the second stage in scalable mode may still have legacy mode.
        self.scalable = bool(config.ecap("smts")) and random.random() < 0.8
        self.stage = Role.SECOND_STAGE
        if self.scalable and config.ecap("fsts"):
            self.stage = Role.FIRST_STAGE
        for index in range(random.choice((1, 2, 2, 3))):
            self._space(1 + index if random.random() < 0.9 else random.choice((0, 0x1234, 0xFFFF)))
        self.root = self.page()
        self._contexts: dict[tuple[int, int], int] = {}
        for sid in dict.fromkeys(sids):
            self._device(sid)

    def page(self) -> int:
        """Return a page of zeros that nothing uses."""
        if self._next >= TABLES_END:
            raise ValueError("the tables do not fit")
        self._next += PAGE
        return self._next - PAGE

    @property
    def pages_left(self) -> int:
        """Return how many pages are not used yet."""
        return (TABLES_END - self._next) // PAGE

    def relocated(self, address: int, to: int) -> None:
        """Take note that an entry lies elsewhere now."""

    def put(self, address: int, words: Sequence[int]) -> list[Store]:
        """Return the stores of an entry."""
        return [Store(address + 8 * n, 8, word) for n, word in enumerate(words)]

    def target(self) -> int:
        """Return a page of the pool."""
        return self.pool_start + PAGE * self._random.randrange(self.pool_pages)

    # -- paging ------------------------------------------------------------------------------

    def _levels(self) -> int:
        config, random = self.config, self._random
        if self.stage == Role.FIRST_STAGE:
            return 5 if config.cap("fs5lp") and random.random() < 0.5 else 4
        return random.choice([aw + 2 for aw in (1, 2, 3) if config.width_supported(aw)])

    def _space(self, domain: int) -> None:
        random, config = self._random, self.config
        first = self.stage == Role.FIRST_STAGE
        space = Space(domain, self.stage, self._levels(), self.page())
        self.spaces.append(space)
        leaves: list[tuple[int, int, int]] = []
        groups = [NEAR, FAR]
        if space.levels > 3:
            groups.append(WIDE)
        if first:
            # The upper canonical half.
            groups.append((1 << 64) - (1 << 9 * space.levels + 11) + NEAR)
        for group in groups:
            for number in range(_PAGES):
                leaves.append((group + PAGE * number, 1, self.target()))
        large = config.cap("sslps") & 1 or first
        if large and random.random() < 0.7:
            leaves.append((NEAR + (1 << _LARGE), 2, self.pool_start & -(1 << _LARGE)))
        huge = config.cap("fs1gp") if first else config.cap("sslps") & 2
        if huge and random.random() < 0.7:
            leaves.append((HUGE, 3, 0))
        self._grow(len(self.spaces) - 1, leaves)

    def _grow(self, index: int, leaves: Sequence[tuple[int, int, int]]) -> None:
        """Map leaves (address, level, target) in a space that has a root and nothing else."""
        space = self.spaces[index]
        first = space.stage == Role.FIRST_STAGE
        tables: dict[tuple[int, int], int] = {(space.levels, 0): space.root}
        links: dict[tuple[int, int], list[int]] = {}
        for iova, level, target in leaves:
            # A large leaf leads to the pool in a part of its page.
            inside = self.pool_start & (1 << PAGE_SHIFT[level]) - 1
            pages = 1 if level == 1 else _PAGES
            used = [iova + inside * (level > 1) + PAGE * n for n in range(pages)]
            space.iovas += used
            table = space.root
            low = iova & (1 << 9 * space.levels + 12) - 1
            for at in range(space.levels, level, -1):
                key = (at - 1, low >> PAGE_SHIFT[at])
                links.setdefault((at, low >> PAGE_SHIFT[at]), []).extend(used)
                if key not in tables:
                    tables[key] = self.page()
                    self.stores += self.put(
                        table + ENTRY_SIZE * entry_index(iova, at), [self._link(tables[key])]
                    )
                table = tables[key]
            value = target | (_FIRST_LINK if first else _SECOND_LINK) | (_PS if level > 1 else 0)
            entry = table + ENTRY_SIZE * entry_index(iova, level)
            self.stores += self.put(entry, [value])
            self.spots.append(
                Spot(self.stage, entry, (value,), level, True, index, -1, tuple(used))
            )
        for (at, prefix), used in links.items():
            table = tables[at, prefix >> 9] if at < space.levels else space.root
            entry = table + ENTRY_SIZE * (prefix & 0x1FF)
            value = self._link(tables[at - 1, prefix])
            self.spots.append(
                Spot(self.stage, entry, (value,), at, False, index, -1, tuple(used[:8]))
            )

    def _link(self, table: int) -> int:
        return table | (_FIRST_LINK if self.stage == Role.FIRST_STAGE else _SECOND_LINK)

    # -- root, context, PASID ----------------------------------------------------------------

    def _device(self, sid: int) -> None:
        random, config = self._random, self.config
        passes = config.ecap("pt") and random.random() < 0.2
        space = -1 if passes else random.randrange(len(self.spaces))
        place = Place(sid, space, ats=sid in self._ats)
        device = len(self.places)
        self.places.append(place)
        table = self._context_table(sid, device)
        if not self.scalable:
            words = self.context_words(place)
            at = table + layout(ContextEntry).size * (sid & 0xFF)
            self._spot(Role.CONTEXT, at, words, device)
            return
        if random.random() < 0.25:
            place.pasid = random.choice((1, 7, 64, 100))
        directory = self.page()
        pages: dict[int, int] = {}
        for pasid in dict.fromkeys((0, place.pasid)):
            index = pasid >> 6
            if index not in pages:
                pages[index] = self.page()
                words = packed(layout(PasidDirectoryEntry), p=1, smptblptr=pages[index])
                self._spot(Role.PASID_DIRECTORY, directory + 8 * index, words, device)
            other = space if pasid == place.pasid else random.randrange(len(self.spaces))
            at = pages[index] + layout(PasidEntry).size * (pasid & 63)
            self._spot(Role.PASID_TABLE, at, self.pasid_words(other), device)
        words = packed(
            layout(ScalableContextEntry),
            p=1,
            pdts=random.choice((0, 0, 1)),
            pasiddirptr=directory,
            rid_pasid=place.pasid,
            dte=int(place.ats),
        )
        at = table + layout(ScalableContextEntry).size * (sid & 0x7F)
        self._spot(Role.SCALABLE_CONTEXT, at, words, device)

    def _context_table(self, sid: int, device: int) -> int:
        bus, upper = sid >> 8, self.scalable and sid >> 7 & 1
        known = self._contexts.get((bus, upper))
        if known is not None:
            return known
        table = self._contexts[bus, upper] = self.page()
        if not self.scalable:
            words = packed(layout(RootEntry), p=1, ctp=table)
        elif upper:
            words = packed(layout(ScalableRootEntry), up=1, uctp=table)
        else:
            words = packed(layout(ScalableRootEntry), lp=1, lctp=table)
        self._spot(Role.ROOT, self.root + 16 * bus, words, device)
        return table

    def _spot(self, role: Role, address: int, words: tuple[int, ...], device: int) -> None:
        self.stores += self.put(address, words)
        self.spots.append(Spot(role, address, words, device=device))

    def context_words(self, place: Place) -> tuple[int, ...]:
        """Return a legacy context entry that does what a place says."""
        shape = layout(ContextEntry)
        if place.space < 0:
            return packed(shape, p=1, tt=2, aw=self.config.widest, did=0x40)
        space = self.spaces[place.space]
        tt = int(place.ats)
        return packed(shape, p=1, tt=tt, ssptptr=space.root, aw=space.levels - 2, did=space.domain)

    def pasid_words(self, index: int) -> tuple[int, ...]:
        """Return a PASID entry that leads to a space, or passes through for -1."""
        shape = layout(PasidEntry)
        widest = self.config.widest
        if index < 0:
            return packed(shape, p=1, pgtt=4, aw=widest, did=0x40)
        space = self.spaces[index]
        if space.stage == Role.SECOND_STAGE:
            return packed(
                shape, p=1, pgtt=2, aw=space.levels - 2, ssptptr=space.root, did=space.domain
            )
        return packed(
            shape,
            p=1,
            pgtt=1,
            aw=widest,
            fspm=space.levels - 4,
            fsptptr=space.root,
            did=space.domain,
        )
