"""Every entry a unit could have kept: context, PASID, paging-structure and IOTLB caches.

What was used and not invalidated since may still be in use, so it is kept: up to WAYS different
entries under one key, of which the oldest goes first, and ENTRIES in one cache, which is emptied
when one more comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from decoders.events import Outcome, Role
from decoders.vtd.descriptors import IGNORED_FUNCTION_BITS
from decoders.vtd.paging import LARGEST_LEAF, PAGE_BITS, PAGE_SHIFT
from harness.model.lookup import Blocked, Entry
from harness.model.stages import NESTED_STAGE, NO_PASID, Rights
from harness.model.walk import NonLeaf, Step

WAYS = 4
ENTRIES = 1 << 18
"""Entries kept in one cache: context, PASID, paging-structure or IOTLB."""
TABLE_USERS = 16
"""Regions of a tag that may lead to a table page; one with more is not watched for its reuse."""
DROPPED_LIMIT = 1 << 16
"""Keys of dropped IOTLB entries remembered to explain a unit that serves them still."""
LEAF_SHIFTS = tuple(PAGE_SHIFT[level] for level in range(1, LARGEST_LEAF + 1))
LEAF_REGIONS = tuple((shift, shift) for shift in LEAF_SHIFTS)
TABLE_REGIONS = tuple((level, shift) for level, shift in PAGE_SHIFT.items() if level > 1)

Tag = tuple[int, int, int]
"""(domain id, PASID or -1, Role of the stage or NESTED_STAGE)."""
IotlbKey = tuple[int, int]
"""Page shift, page number."""
StructureKey = tuple[int, int]
"""Level of the entry, address bits above that level's reach."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class CachedWords:
    """A context or PASID entry as it was when an access used it.

    blocked is set for one that is not present or not valid, which caching mode allows to keep; its
    words are zero, and so is its domain, because nothing in it counts.
    """

    words: tuple[int, ...]
    steps: tuple[Step, ...]
    filled_by: int
    domain: int
    blocked: Blocked | None = None

    def is_of(self, found: Entry | Blocked) -> bool:
        """Say whether it says what the entry in memory does."""
        if isinstance(found, Blocked):
            return self.blocked is not None and self.blocked.reason == found.reason
        return self.blocked is None and self.words == found.words

    def same(self, other: CachedWords) -> bool:
        """Say whether another one answers as this does."""
        return self.is_of(other.blocked or Entry(other.words, ())) and len(self.words) == len(
            other.words
        )


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
    return (domain, NO_PASID, int(Role.SECOND_STAGE))


def first_stage_tags(domain: int, pasid: int) -> tuple[Tag, Tag]:
    """Return what first-stage entries of a PASID are tagged with, plain and nested."""
    return (domain, pasid, int(Role.FIRST_STAGE)), (domain, pasid, NESTED_STAGE)


class Caches:
    """Hold the entries and apply what each invalidation must drop."""

    def __init__(self) -> None:
        self.contexts: dict[int, list[CachedWords]] = {}
        self.pasids: dict[tuple[int, int], list[CachedWords]] = {}
        self.structures: dict[Tag, dict[StructureKey, list[CachedStructure]]] = {}
        self.iotlb: dict[Tag, dict[IotlbKey, list[CachedTranslation]]] = {}
        self.dropped: dict[tuple[Tag, IotlbKey], tuple[Dropped, ...]] = {}
        self._tables: dict[int, set[tuple[Tag, StructureKey]]] = {}
        self._contexts = self._pasids = self._structures = self._leaves = 0  # entries kept
        self.looked_at = 0
        """Keys that invalidations of less than everything have looked at so far."""

    # -- filling -----------------------------------------------------------------------------

    def add_context(self, sid: int, entry: CachedWords) -> None:
        """Keep a context entry under its source id."""
        ways = self.contexts.get(sid, [])
        if any(way.same(entry) for way in ways):
            return
        if len(ways) == WAYS:
            ways.pop(0)
        else:
            if self._contexts == ENTRIES:
                self.drop_contexts()
            self._contexts += 1
        self.contexts.setdefault(sid, []).append(entry)

    def add_pasid(self, sid: int, pasid: int, entry: CachedWords) -> None:
        """Keep a PASID entry under source id and PASID."""
        ways = self.pasids.get((sid, pasid), [])
        if any(way.same(entry) for way in ways):
            return
        if len(ways) == WAYS:
            ways.pop(0)
        else:
            if self._pasids == ENTRIES:
                self.drop_pasids()
            self._pasids += 1
        self.pasids.setdefault((sid, pasid), []).append(entry)

    def add_structure(self, tag: Tag, iova: int, entry: CachedStructure) -> None:
        """Keep a non-leaf entry for the region it serves."""
        level = entry.nonleaf.step.level
        key = (level, iova >> PAGE_SHIFT[level])
        ways = self.structures.get(tag, {}).get(key, [])
        child, rights = entry.nonleaf.child, entry.nonleaf.rights
        if any((way.nonleaf.child, way.nonleaf.rights) == (child, rights) for way in ways):
            return
        if len(ways) == WAYS:
            oldest = ways.pop(0).nonleaf.child
            if all(way.nonleaf.child != oldest for way in ways):
                self._forget_table(oldest, tag, key)
        else:
            if self._structures == ENTRIES:
                self.structures.clear()
                self._tables.clear()
                self._structures = 0
            self._structures += 1
        self.structures.setdefault(tag, {}).setdefault(key, []).append(entry)
        self._tables.setdefault(child, set()).add((tag, key))

    def add_translation(self, tag: Tag, shift: int, iova: int, entry: CachedTranslation) -> None:
        """Keep a leaf or a not-present outcome for its page."""
        key = (shift, iova >> shift)
        ways = self.iotlb.get(tag, {}).get(key, [])
        payload = (entry.outcome, entry.rights)
        if any((way.outcome, way.rights) == payload for way in ways):
            return
        if len(ways) == WAYS:
            ways.pop(0)
        else:
            if self._leaves == ENTRIES:
                self.iotlb.clear()
                self._leaves = 0
            self._leaves += 1
        self.iotlb.setdefault(tag, {}).setdefault(key, []).append(entry)

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
        """Return the kept non-leaf entries that lead to a table page; none if too many do."""
        users = self._tables.get(page, ())
        if len(users) > TABLE_USERS:
            return []
        return [
            (tag, way)
            for tag, key in sorted(users)
            for way in self.structures[tag][key]
            if way.nonleaf.child == page
        ]

    def dropped_at(self, tag: Tag, iova: int) -> list[Dropped]:
        """Return the remembered invalidated entries that covered iova.

        Those of small pages come first, and of one page the entry that was used last.
        """
        return [
            entry
            for shift in LEAF_SHIFTS
            for entry in self.dropped.get((tag, (shift, iova >> shift)), ())
        ]

    # -- invalidation (VT-d specification 6.5) -----------------------------------------------

    def drop_all(self, event: int) -> None:
        """Forget everything: a reset, or setting the root table with CAP.ESRTPS."""
        self.drop_contexts()
        self.drop_pasids()
        self.drop_iotlb(event)

    def drop_contexts(self) -> None:
        """Forget every context entry."""
        self.contexts.clear()
        self._contexts = 0

    def drop_contexts_of_domain(self, domain: int) -> None:
        """Forget context entries of a domain; scalable ones carry none and all go."""
        self.looked_at += len(self.contexts)
        for sid, ways in list(self.contexts.items()):
            kept = [way for way in ways if way.domain not in (domain, -1)]
            self._contexts -= self._keep(self.contexts, sid, kept)

    def drop_contexts_of_device(
        self, sid: int, function_mask: int, domain: int | None = None
    ) -> None:
        """Forget context entries of the functions that sid and a function mask (FM) select.

        With a domain id only those that were cached in it; scalable ones carry none.
        """
        # FM 0 compares all function bits, 1 ignores bit 2, 2 bits 2:1, 3 bits 2:0.
        ignored = IGNORED_FUNCTION_BITS[function_mask]
        self.looked_at += len(self.contexts)
        for other, ways in list(self.contexts.items()):
            if (other ^ sid) & ~ignored == 0:
                spared = () if domain is None else (way for way in ways if way.domain >= 0)
                kept = [way for way in spared if way.domain != domain]
                self._contexts -= self._keep(self.contexts, other, kept)

    def drop_pasids(self, domain: int | None = None, pasid: int | None = None) -> None:
        """Forget PASID entries: all, of a domain, or of one PASID in a domain.

        One that was not present goes with its PASID in any domain, besides domain 0: Linux gives
        the id that the entry has now (pasid_flush_caches).
        """
        if domain is None:
            self.pasids.clear()
            self._pasids = 0
            return
        self.looked_at += len(self.pasids)
        for key, ways in list(self.pasids.items()):
            if pasid is None or key[1] == pasid:
                kept = [way for way in ways if way.domain != domain]
                if pasid is not None:
                    kept = [way for way in kept if way.blocked is None]
                self._pasids -= self._keep(self.pasids, key, kept)

    def drop_iotlb(self, event: int, domain: int | None = None) -> None:
        """Forget IOTLB and paging-structure entries: all, or all of a domain."""
        self.looked_at += len(self.iotlb) + len(self.structures)
        for tag in [tag for tag in self.iotlb if domain is None or tag[0] == domain]:
            self._drop_leaves(tag, list(self.iotlb[tag]), event)
        for tag in [tag for tag in self.structures if domain is None or tag[0] == domain]:
            self._drop_structures(tag, list(self.structures[tag]))

    def drop_second_stage(
        self, event: int, domain: int, address: int, mask: int, leaves_only: bool
    ) -> None:
        """Forget what covers 2^mask second-stage pages of a domain.

        All that a first stage of the domain gave goes too, its table entries included: where
        nested tables lie is decided by the second stage (VT-d 6.5.2; QEMU says the same of
        first-stage entries, vtd_hash_remove_by_page). leaves_only is the invalidation hint.
        """
        self._drop_range(event, second_stage_tag(domain), address, mask, leaves_only)
        for store in (self.iotlb, self.structures):
            tags = [tag for tag in store if tag[0] == domain and tag[1] != NO_PASID]
            self.looked_at += len(tags)
            for tag in tags:
                self._drop_all_of(event, tag)

    def drop_pasid_pages(
        self, event: int, domain: int, pasid: int, address: int, mask: int, leaves_only: bool
    ) -> None:
        """Forget what covers 2^mask first-stage or nested pages of a PASID."""
        for tag in first_stage_tags(domain, pasid):
            self._drop_range(event, tag, address, mask, leaves_only)

    def drop_pasid(self, event: int, domain: int, pasid: int) -> None:
        """Forget all first-stage and nested entries of a PASID."""
        for tag in first_stage_tags(domain, pasid):
            self._drop_all_of(event, tag)

    # -- inside ------------------------------------------------------------------------------

    @staticmethod
    def _keep(store: dict[_Key, list[CachedWords]], key: _Key, ways: list[CachedWords]) -> int:
        """Leave only ways under a key; return how many went."""
        gone = len(store.pop(key)) - len(ways)
        if ways:
            store[key] = ways
        return gone

    def _drop_range(self, event: int, tag: Tag, address: int, mask: int, leaves_only: bool) -> None:
        address &= ~((1 << PAGE_BITS + mask) - 1)
        last = address + (1 << PAGE_BITS + mask) - 1
        leaves = self._touching(self.iotlb.get(tag, {}), LEAF_REGIONS, address, last)
        self._drop_leaves(tag, leaves, event)
        if not leaves_only:
            store = self.structures.get(tag, {})
            self._drop_structures(tag, self._touching(store, TABLE_REGIONS, address, last))

    def _drop_all_of(self, event: int, tag: Tag) -> None:
        self._drop_leaves(tag, list(self.iotlb.get(tag, ())), event)
        self._drop_structures(tag, list(self.structures.get(tag, ())))

    def _touching(
        self,
        store: Mapping[tuple[int, int], object],
        regions: Sequence[tuple[int, int]],
        first: int,
        last: int,
    ) -> list[tuple[int, int]]:
        """Return the keys of store whose region touches [first, last].

        regions are the first members of keys and the shifts they stand for.
        """
        probes = sum((last >> shift) - (first >> shift) + 1 for _, shift in regions)
        self.looked_at += min(probes, len(store))
        if probes > len(store):
            shifts = dict(regions)
            return [
                (kind, page)
                for kind, page in store
                if first >> shifts[kind] <= page <= last >> shifts[kind]
            ]
        return [
            (kind, page)
            for kind, shift in regions
            for page in range(first >> shift, (last >> shift) + 1)
            if (kind, page) in store
        ]

    def _drop_leaves(self, tag: Tag, keys: list[IotlbKey], event: int) -> None:
        if not keys:
            return
        # Per tag, before its entries are added: the order of entries within a tag has no say.
        if len(self.dropped) + len(keys) > DROPPED_LIMIT:
            self.dropped.clear()
        store = self.iotlb[tag]
        for key in keys:
            ways = store.pop(key)
            self._leaves -= len(ways)
            if len(keys) <= DROPPED_LIMIT:
                self.dropped[tag, key] = tuple(
                    Dropped(way.outcome, way.filled_by, event) for way in reversed(ways)
                )
        if not store:
            del self.iotlb[tag]

    def _drop_structures(self, tag: Tag, keys: list[StructureKey]) -> None:
        store = self.structures.get(tag, {})
        for key in keys:
            ways = store.pop(key)
            self._structures -= len(ways)
            for way in ways:
                self._forget_table(way.nonleaf.child, tag, key)
        if tag in self.structures and not store:
            del self.structures[tag]

    def _forget_table(self, page: int, tag: Tag, key: StructureKey) -> None:
        users = self._tables.get(page)
        if users is not None:
            users.discard((tag, key))
            if not users:
                del self._tables[page]
