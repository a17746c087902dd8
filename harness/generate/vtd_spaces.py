"""Lay out tables of every kind side by side: second, first and nested stages, by PASID, or none.

A nested space is two: a first stage whose tables, and where it leads, are looked up in a second
stage, its host. Hosts map pages to themselves, so a table lies where the first stage says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from decoders.events import Role
from decoders.layout import layout
from decoders.vtd.paging import ENTRY_SIZE
from decoders.vtd.tables import ContextEntry, PasidDirectoryEntry, PasidEntry, ScalableContextEntry
from harness.generate.vtd_tables import PAGE, Place, Space, Tables, packed
from harness.model.config import UnitConfig

PASIDS: Final = (1, 7, 63, 64, 100, 0x1FFF, 0x7FFF)
"""Those with entries besides 0; the directory of each device is one page."""

_DIRECTORY: Final = {0x1FFF: 0, 0x7FFF: 2}
"""PDTS that a PASID needs at least: 2^(PDTS + 7) directory entries."""

_HOSTED: Final = 12
"""Pages of the pool that a host maps, beside those that the first stage names."""

_EXTRA: Final = (
    ("sre", "srs", 0.7), ("ere", "ers", 0.7), ("wpe", "srs", 0.5), ("smep", "srs", 0.3),
    ("eafe", "eafs", 0.2), ("ssade", "ssads", 0.5), ("pgsnp", "sc", 0.2), ("pwsnp", "c", 0.5),
)  # fmt: skip
"""Fields of a PASID entry, the capability that each needs, and how often it is set."""


@dataclass(slots=True)
class NestedSpace(Space):
    """Describe the first stage of two; host is the index of the second."""

    host: int = -1


class MixedTables(Tables):
    """Make up tables in which any PASID may be translated in any way the unit offers."""

    def __init__(
        self, config: UnitConfig, sids: Sequence[int], pool: tuple[int, int], random: Random
    ) -> None:
        self.entries: dict[int, tuple[int, int]] = {}
        """PASID and space of each PASID entry, by its address."""
        self.pasids: list[dict[int, int]] = []
        """Spaces by PASID, of each place."""
        super().__init__(config, sids, pool, random)

    def relocated(self, address: int, to: int) -> None:
        """Take note that an entry lies elsewhere now."""
        if address in self.entries:
            self.entries[to] = self.entries.pop(address)

    def tables_of(self, index: int) -> list[int]:
        """Return the pages that the tables of a space lie in, the root first."""
        found = [self.spaces[index].root]
        found += [
            spot.words[0] & (1 << 52) - PAGE
            for spot in self.spots
            if spot.space == index and not spot.leaf
        ]
        return list(dict.fromkeys(found))

    # -- paging ------------------------------------------------------------------------------

    def _space(self, domain: int) -> None:
        config, random = self.config, self._random
        stages = [Role.SECOND_STAGE] if config.ecap("ssts") or not self.scalable else []
        if self.scalable and config.ecap("fsts"):
            stages.append(Role.FIRST_STAGE)
        if config.ecap("nest"):
            stages += stages[-1:] * 2
        self.stage = random.choice(stages or [Role.SECOND_STAGE])
        super()._space(domain)
        if self.stage == Role.FIRST_STAGE and config.ecap("nest") and random.random() < 0.9:
            self._nest(len(self.spaces) - 1)

    def _nest(self, index: int) -> None:
        """Give a first stage a host that maps its tables and where it leads."""
        first = self.spaces[index]
        self.stage = Role.SECOND_STAGE
        host = Space(first.domain, self.stage, self._levels(), self.page())
        self.spaces.append(host)
        targets = [spot.words[0] & (1 << 52) - PAGE for spot in self.spots if spot.space == index]
        shared = [self.pool_start + PAGE * number for number in range(_HOSTED)]
        mapped = dict.fromkeys([*self.tables_of(index), *targets, *shared])
        leaves = []
        for page in mapped:
            inside = self.pool_start <= page < self.pool_start + self.pool_pages * PAGE
            leaves.append((page, 1, self.target() if inside else page))
            if inside:
                host.iovas.append(page)
        self._grow(len(self.spaces) - 1, [leaf for leaf in leaves if leaf[0]])
        self.spaces[index] = NestedSpace(
            first.domain, first.stage, first.levels, first.root, first.iovas, len(self.spaces) - 1
        )
        self.stage = Role.FIRST_STAGE

    # -- context, PASID ----------------------------------------------------------------------

    def _device(self, sid: int) -> None:
        if not self.scalable:
            super()._device(sid)
            self.pasids.append({})
            return
        random, device = self._random, len(self.places)
        table = self._context_table(sid, device)
        chosen = sorted({0, *random.sample(PASIDS, random.choice((1, 2, 3)))})
        spaces = {pasid: self._any_space() for pasid in chosen}
        own = random.choice(chosen) if random.random() < 0.3 else 0
        place = Place(sid, spaces[own], own)
        self.places.append(place)
        self.pasids.append(spaces)
        directory = self.page()
        pages: dict[int, int] = {}
        for pasid, space in spaces.items():
            index = pasid >> 6
            if index not in pages:
                pages[index] = self.page()
                words = packed(layout(PasidDirectoryEntry), p=1, smptblptr=pages[index])
                self._spot(Role.PASID_DIRECTORY, directory + ENTRY_SIZE * index, words, device)
            at = pages[index] + layout(PasidEntry).size * (pasid & 63)
            self.entries[at] = pasid, space
            self._spot(Role.PASID_TABLE, at, self.pasid_words(space), device)
        words = packed(
            layout(ScalableContextEntry),
            p=1,
            paside=int(random.random() < 0.95),
            dte=int(bool(self.config.ecap("dt")) and random.random() < 0.8),
            pre=int(bool(self.config.ecap("prs")) and random.random() < 0.8),
            rid_priv=int(bool(self.config.ecap("rprivs")) and random.random() < 0.3),
            pdts=max(_DIRECTORY.get(chosen[-1], 0), random.choice((0, 0, 1))),
            pasiddirptr=directory,
            rid_pasid=own if self.config.ecap("rps") else 0,
        )
        at = table + layout(ScalableContextEntry).size * (sid & 0x7F)
        self._spot(Role.SCALABLE_CONTEXT, at, words, device)

    def _context_table(self, sid: int, device: int) -> int:
        """Return the table for half a bus; each half of a root entry is a spot of its own."""
        half = sid >> 7
        known = self._contexts.get((half, 0))
        if not self.scalable or known is not None:
            return known or super()._context_table(sid, device)
        table = self._contexts[half, 0] = self.page()
        self._spot(Role.ROOT, self.root + ENTRY_SIZE * half, (table | 1,), device)
        return table

    def _any_space(self) -> int:
        """Return a space, seldom the host of another, or -1 for pass-through."""
        random = self._random
        if self.config.ecap("pt") and random.random() < 0.1:
            return -1
        nested = {space.host for space in self.spaces if isinstance(space, NestedSpace)}
        own = [index for index in range(len(self.spaces)) if index not in nested]
        return random.choice(own if random.random() < 0.9 else range(len(self.spaces)))

    def context_words(self, place: Place) -> tuple[int, ...]:
        """Return a legacy context entry that does what a place says, often for device TLBs, too."""
        words = list(super().context_words(place))
        if place.space >= 0 and self.config.ecap("dt") and self._random.random() < 0.5:
            layout(ContextEntry)["tt"].put(words, 1)
        return tuple(words)

    def pasid_words(self, index: int) -> tuple[int, ...]:
        """Return a PASID entry that leads to a space, or passes through for -1."""
        words = list(super().pasid_words(index))
        shape, random = layout(PasidEntry), self._random
        space = self.spaces[index] if index >= 0 else None
        if isinstance(space, NestedSpace):
            host = self.spaces[space.host]
            more = packed(shape, ssptptr=host.root)
            words = [one | other for one, other in zip(words, more, strict=True)]
            shape["pgtt"].put(words, 3)
            shape["aw"].put(words, host.levels - 2)
        for name, capability, often in _EXTRA:
            if self.config.ecap(capability) and random.random() < often:
                shape[name].put(words, 1)
        if random.random() < 0.2:
            shape["nxe"].put(words, 1)
        return tuple(words)
