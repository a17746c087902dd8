"""Every entry a unit could have kept: context, PASID, paging-structure and IOTLB caches.

The caches have no capacity: what was used and not invalidated since may still be in use. Up to
WAYS different entries are kept under one key, the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from decoders.events import Outcome, Role
from decoders.vtd.paging import LARGEST_LEAF, PAGE_BITS, PAGE_SHIFT
from harness.model.walk import NonLeaf, Rights, Step

WAYS = 4
DROPPED_LIMIT = 1 << 16
"""Dropped IOTLB entries remembered to explain a unit that serves them still."""
LEAF_SHIFTS = tuple(PAGE_SHIFT[level] for level in range(1, LARGEST_LEAF + 1))

Tag = tuple[int, int, int]
"""(domain id, PASID or -1, Role of the stage)."""
IotlbKey = tuple[int, int]
"""Page shift, page number."""
StructureKey = tuple[int, int]
"""Level of the entry, address bits above that level's reach."""

_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class CachedWords:
    """A context or PASID entry as it was when an access used it."""

    words: tuple[int, ...]
    steps: tuple[Step, ...]
    filled_by: int
    domain: int


@dataclass(frozen=True, slots=True)
class CachedStructure:
    """A non-leaf entry: what it said and the table it led to."""

    nonleaf: NonLeaf
    filled_by: int


@dataclass(frozen=True, slots=True)
class CachedTranslation:
    """A leaf, or in caching mode a not-present outcome."""

    outcome: Outcome
    rights: Rights
    steps: tuple[Step, ...]
    filled_by: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """An IOTLB entry that the invalidation of event dropped_by covered."""

    outcome: Outcome
    filled_by: int
    dropped_by: int


def second_stage_tag(domain: int) -> Tag:
    """Return what second-stage entries of a domain are tagged with."""
    return (domain, -1, int(Role.SECOND_STAGE))


def _insert(ways: list[_Entry], entry: _Entry, same: Callable[[_Entry], bool]) -> bool:
    """Keep entry among ways unless an equal one is there; say whether it was new."""
    if any(same(way) for way in ways):
        return False
    ways.append(entry)
    if len(ways) > WAYS:
        ways.pop(0)
    return True


def _overlaps(key_shift: int, key_page: int, address: int, last: int) -> bool:
    return key_page << key_shift <= last and address <= (key_page + 1 << key_shift) - 1


class Caches:
    """Hold the entries and apply what each invalidation must drop."""

    def __init__(self) -> None:
        self.contexts: dict[int, list[CachedWords]] = {}
        self.pasids: dict[tuple[int, int], list[CachedWords]] = {}
        self.structures: dict[Tag, dict[StructureKey, list[CachedStructure]]] = {}
        self.iotlb: dict[Tag, dict[IotlbKey, list[CachedTranslation]]] = {}
        self.dropped: dict[tuple[Tag, IotlbKey], Dropped] = {}
        self._tables: dict[int, set[tuple[Tag, StructureKey]]] = {}

    # -- filling -----------------------------------------------------------------------------

    def add_context(self, sid: int, entry: CachedWords) -> None:
        """Keep a context entry under its source id."""
        ways = self.contexts.setdefault(sid, [])
        _insert(ways, entry, lambda way: way.words == entry.words)

    def add_pasid(self, sid: int, pasid: int, entry: CachedWords) -> None:
        """Keep a PASID entry under source id and PASID."""
        ways = self.pasids.setdefault((sid, pasid), [])
        _insert(ways, entry, lambda way: way.words == entry.words)

    def add_structure(self, tag: Tag, iova: int, entry: CachedStructure) -> None:
        """Keep a non-leaf entry for the region it serves."""
        level = entry.nonleaf.step.level
        key = (level, iova >> PAGE_SHIFT[level])
        ways = self.structures.setdefault(tag, {}).setdefault(key, [])
        oldest = ways[0].nonleaf.child if ways else None
        child, rights = entry.nonleaf.child, entry.nonleaf.rights
        if _insert(
            ways, entry, lambda way: (way.nonleaf.child, way.nonleaf.rights) == (child, rights)
        ):
            self._tables.setdefault(child, set()).add((tag, key))
            if oldest is not None and all(way.nonleaf.child != oldest for way in ways):
                self._forget_table(oldest, tag, key)

    def add_translation(self, tag: Tag, shift: int, iova: int, entry: CachedTranslation) -> None:
        """Keep a leaf or a not-present outcome for its page."""
        ways = self.iotlb.setdefault(tag, {}).setdefault((shift, iova >> shift), [])
        payload = (entry.outcome, entry.rights)
        _insert(ways, entry, lambda way: (way.outcome, way.rights) == payload)

    # -- asking ------------------------------------------------------------------------------

    def translations(self, tag: Tag, iova: int) -> list[CachedTranslation]:
        """Return every kept entry that covers iova, small pages first, oldest first."""
        store = self.iotlb.get(tag)
        if not store:
            return []
        return [way for shift in LEAF_SHIFTS for way in store.get((shift, iova >> shift), ())]

    def structure(self, tag: Tag, level: int, iova: int) -> list[CachedStructure]:
        """Return the kept non-leaf entries of a level that serve iova, oldest first."""
        return self.structures.get(tag, {}).get((level, iova >> PAGE_SHIFT[level]), [])

    def tables_at(self, page: int) -> list[tuple[Tag, CachedStructure]]:
        """Return the kept non-leaf entries that lead to a table page."""
        return [
            (tag, way)
            for tag, key in sorted(self._tables.get(page, ()))
            for way in self.structures[tag][key]
            if way.nonleaf.child == page
        ]

    def dropped_at(self, tag: Tag, iova: int) -> list[Dropped]:
        """Return the remembered invalidated entries that covered iova, small pages first."""
        found = (self.dropped.get((tag, (shift, iova >> shift))) for shift in LEAF_SHIFTS)
        return [entry for entry in found if entry is not None]

    # -- invalidation (VT-d specification 6.5) -----------------------------------------------

    def drop_all(self, event: int) -> None:
        """Forget everything: a reset, or setting the root table with CAP.ESRTPS."""
        self.contexts.clear()
        self.pasids.clear()
        self.drop_iotlb(event)

    def drop_contexts(self) -> None:
        """Forget every context entry."""
        self.contexts.clear()

    def drop_contexts_of_domain(self, domain: int) -> None:
        """Forget context entries of a domain; scalable ones carry none and all go."""
        for sid, ways in list(self.contexts.items()):
            self._keep(self.contexts, sid, [w for w in ways if w.domain not in (domain, -1)])

    def drop_contexts_of_device(self, sid: int, function_mask: int) -> None:
        """Forget context entries of the functions that sid and a function mask (FM) select."""
        # FM 0 compares all function bits, 1 ignores bit 2, 2 bits 2:1, 3 bits 2:0.
        ignored = (0, 4, 6, 7)[function_mask]
        for other in [other for other in self.contexts if (other ^ sid) & ~ignored == 0]:
            del self.contexts[other]

    def drop_pasids(self, domain: int | None = None, pasid: int | None = None) -> None:
        """Forget PASID entries: all, of a domain, or of one PASID in a domain."""
        for key, ways in list(self.pasids.items()):
            if pasid is None or key[1] == pasid:
                kept = [w for w in ways if domain is not None and w.domain != domain]
                self._keep(self.pasids, key, kept)

    def drop_iotlb(self, event: int, domain: int | None = None) -> None:
        """Forget IOTLB and paging-structure entries: all, or all of a domain."""
        for tag in [tag for tag in self.iotlb if domain is None or tag[0] == domain]:
            self._drop_leaves(tag, list(self.iotlb[tag]), event)
        for tag in [tag for tag in self.structures if domain is None or tag[0] == domain]:
            self._drop_structures(tag, list(self.structures[tag]))

    def drop_pages(self, event: int, tag: Tag, address: int, mask: int, leaves_only: bool) -> None:
        """Forget what covers 2^mask pages from address under a tag.

        leaves_only is the invalidation hint: paging-structure entries may stay.
        """
        address &= ~((1 << PAGE_BITS + mask) - 1)
        last = address + (1 << PAGE_BITS + mask) - 1
        leaves = [key for key in self.iotlb.get(tag, ()) if _overlaps(*key, address, last)]
        self._drop_leaves(tag, leaves, event)
        if not leaves_only:
            regions = [
                (level, page)
                for level, page in self.structures.get(tag, ())
                if _overlaps(PAGE_SHIFT[level], page, address, last)
            ]
            self._drop_structures(tag, regions)

    def drop_tag(self, event: int, tag: Tag) -> None:
        """Forget all IOTLB and paging-structure entries of one tag."""
        self._drop_leaves(tag, list(self.iotlb.get(tag, ())), event)
        self._drop_structures(tag, list(self.structures.get(tag, ())))

    # -- inside ------------------------------------------------------------------------------

    @staticmethod
    def _keep(store: dict[_Key, list[CachedWords]], key: _Key, ways: list[CachedWords]) -> None:
        if ways:
            store[key] = ways
        else:
            del store[key]

    def _drop_leaves(self, tag: Tag, keys: list[IotlbKey], event: int) -> None:
        if not keys:
            return
        # The limit is applied to whole invalidations so that it does not depend on their order.
        if len(self.dropped) + len(keys) > DROPPED_LIMIT:
            self.dropped.clear()
        store = self.iotlb[tag]
        for key in keys:
            newest = store.pop(key)[-1]
            if len(keys) <= DROPPED_LIMIT:
                self.dropped[tag, key] = Dropped(newest.outcome, newest.filled_by, event)
        if not store:
            del self.iotlb[tag]

    def _drop_structures(self, tag: Tag, keys: list[StructureKey]) -> None:
        store = self.structures.get(tag, {})
        for key in keys:
            for way in store.pop(key):
                self._forget_table(way.nonleaf.child, tag, key)
        if tag in self.structures and not store:
            del self.structures[tag]

    def _forget_table(self, page: int, tag: Tag, key: StructureKey) -> None:
        users = self._tables.get(page)
        if users is not None:
            users.discard((tag, key))
            if not users:
                del self._tables[page]
