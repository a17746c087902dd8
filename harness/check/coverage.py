"""When did an invalidation last cover something? Asked by place, answered with a moment.

A moment is the number of an event, and the place of a descriptor among those it set off.
"""

from __future__ import annotations

from collections.abc import Sequence

from decoders.layout import layout
from decoders.vtd.descriptors import (
    IGNORED_FUNCTION_BITS,
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    InterruptEntryCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidDeviceTlbInvalidation,
    PasidIotlbInvalidation,
    descriptor_type,
)
from decoders.vtd.paging import PAGE_BITS

CONTEXT = layout(ContextCacheInvalidation)
IOTLB = layout(IotlbInvalidation)
DEVICE = layout(DeviceTlbInvalidation)
INTERRUPT = layout(InterruptEntryCacheInvalidation)
WAIT = layout(InvalidationWait)
PASID_IOTLB = layout(PasidIotlbInvalidation)
PASID_CACHE = layout(PasidCacheInvalidation)
PASID_DEVICE = layout(PasidDeviceTlbInvalidation)

KEYS = 1 << 17
"""Places that are remembered; one more and all are taken as covered just now."""
NEVER = -1
INDEX_BITS = 20
NO_PASID = -1


def moment(event: int, index: int = 0) -> int:
    """Return a moment; later ones are greater. A store comes first in its event."""
    return event << INDEX_BITS | index


def event_of(when: int) -> int:
    """Return the event of a moment."""
    return when >> INDEX_BITS


class Coverage:
    """Remember the last invalidation of each place.

    ignores_domain says that the unit takes no notice of the domain where the context entry of a
    device is invalidated (Dialect.device_selective_ignores_domain).
    """

    def __init__(self, ignores_domain: bool = False) -> None:
        self._ignores_domain = ignores_domain
        self._last: dict[tuple[object, ...], int] = {}
        self._masks: set[int] = set()
        self._floor = NEVER
        self.unconfirmed = NEVER
        """The first invalidation that no wait descriptor has followed."""
        self.hinted = NEVER
        """The last invalidation that spared paging-structure caches (IH = 1)."""

        self.all_contexts = self.all_pasids = self.all_translations = NEVER
        """The last invalidation of each cache as a whole."""
        self.contexts_before = self.pasids_before = NEVER
        """Those that preceded the last invalidation of all translations."""

    # -- recording -----------------------------------------------------------------------------

    def context(self, when: int, granularity: int, domain: int, sid: int, mask: int) -> None:
        """Record an invalidation of context entries."""
        match granularity:
            case 1:
                self.all_contexts = when
                self._put(when, "context")
            case 2:
                self._put(when, "context", domain)
                self._put(when, "any context")
            case 3:
                self._put(when, "device", mask, sid & ~IGNORED_FUNCTION_BITS[mask])
                self._put(when, "device", mask, sid & ~IGNORED_FUNCTION_BITS[mask], domain)

    def iotlb(
        self, when: int, granularity: int, domain: int, address: int, mask: int, hint: bool
    ) -> None:
        """Record an invalidation of translations, not by PASID."""
        match granularity:
            case 1:
                self.contexts_before, self.pasids_before = self.all_contexts, self.all_pasids
                self.all_translations = when
                self._put(when, "iotlb")
            case 2:
                self._put(when, "iotlb", domain)
            case 3:
                self._pages(when, domain, NO_PASID, address, mask, hint)
                # Whatever a first stage of the domain gave goes with any second-stage page.
                self._put(when, "first stages", domain)

    def descriptor(self, when: int, words: Sequence[int]) -> None:
        """Record a descriptor that the unit took."""
        kind = descriptor_type(words[0])
        if kind == 5:
            self.unconfirmed = NEVER
            return
        if self.unconfirmed == NEVER:
            self.unconfirmed = when
        match kind:
            case 1:
                self.context(
                    when, *(CONTEXT[name].get(words) for name in ("g", "did", "sid", "fm"))
                )
            case 2:
                self.iotlb(
                    when,
                    IOTLB["g"].get(words),
                    IOTLB["did"].get(words),
                    IOTLB["addr"].address(words),
                    IOTLB["am"].get(words),
                    bool(IOTLB["ih"].get(words)),
                )
            case 4 if not INTERRUPT["g"].get(words):
                self._put(when, "interrupts")
            case 6:
                self._pasid_iotlb(when, words)
            case 7:
                self._pasids(when, words)

    def _pasid_iotlb(self, when: int, words: Sequence[int]) -> None:
        domain, pasid = PASID_IOTLB["did"].get(words), PASID_IOTLB["pasid"].get(words)
        if PASID_IOTLB["g"].get(words) == 2:
            self._put(when, "iotlb", domain, pasid)
        elif PASID_IOTLB["g"].get(words) == 3:
            address, mask = PASID_IOTLB["addr"].address(words), PASID_IOTLB["am"].get(words)
            self._pages(when, domain, pasid, address, mask, bool(PASID_IOTLB["ih"].get(words)))

    def _pasids(self, when: int, words: Sequence[int]) -> None:
        domain, pasid = PASID_CACHE["did"].get(words), PASID_CACHE["pasid"].get(words)
        match PASID_CACHE["g"].get(words):
            case 0:
                self._put(when, "pasid", domain)
            case 1:
                self._put(when, "pasid", domain, pasid)
            case 3:
                self.all_pasids = when
                self._put(when, "pasid")

    def _pages(
        self, when: int, domain: int, pasid: int, address: int, mask: int, hint: bool
    ) -> None:
        self._masks.add(mask)
        page = address >> PAGE_BITS + mask
        self._put(when, "leaves", domain, pasid, mask, page)
        if hint:
            self.hinted = when
        else:
            self._put(when, "tables", domain, pasid, mask, page)

    def _put(self, when: int, *place: object) -> None:
        if len(self._last) >= KEYS:
            self._last.clear()
            self._floor = when
        self._last[place] = when

    # -- asking --------------------------------------------------------------------------------

    def _get(self, *place: object) -> int:
        return max(self._last.get(place, NEVER), self._floor)

    def of_context(self, sid: int, domain: int) -> int:
        """Return when a context entry was covered last.

        One of scalable mode has no domain (-1); any domain's invalidation may drop it.
        """
        of_it = () if self._ignores_domain or domain < 0 else (domain,)
        found = [
            self._get("device", mask, sid & ~ignored, *of_it)
            for mask, ignored in enumerate(IGNORED_FUNCTION_BITS)
        ]
        by_domain = self._get("context", domain) if domain >= 0 else self._get("any context")
        return max(self._get("context"), by_domain, *found)

    def of_pasid(self, domain: int, pasid: int) -> int:
        """Return when a PASID entry was covered last."""
        places = (("pasid",), ("pasid", domain), ("pasid", domain, pasid))
        return max(self._get(*place) for place in places)

    def of_domain(self, domain: int, pasid: int = NO_PASID) -> int:
        """Return when all translations of a domain, or of a PASID in it, were covered last."""
        places: list[tuple[object, ...]] = [("iotlb",), ("iotlb", domain)]
        if pasid != NO_PASID:
            places += [("iotlb", domain, pasid), ("first stages", domain)]
        return max(self._get(*place) for place in places)

    def of_page(self, domain: int, iova: int, pasid: int = NO_PASID, kind: str = "leaves") -> int:
        """Return when a page was covered last; kind "tables" leaves hinted invalidations out."""
        page = iova >> PAGE_BITS
        found = [self._get(kind, domain, pasid, mask, page >> mask) for mask in self._masks]
        return max(self.of_domain(domain, pasid), *found, NEVER)

    def of_interrupts(self) -> int:
        """Return when the whole interrupt entry cache was covered last."""
        return self._get("interrupts")
