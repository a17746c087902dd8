"""The invalidations that a change is tried with: every type and granularity, right and wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.harness.unit.stale.changes import (
    CACHES,
    CONTEXTS,
    PASIDS,
    SOURCE,
    TRANSLATIONS,
    Situation,
)
from tests.writers.invalidations import (
    BY_DOMAIN,
    GLOBAL,
    SELECTIVE,
    contexts,
    iotlb,
    pasid_entries,
    pasid_iotlb,
)
from tests.writers.platform import DOMAIN, PAGE

OTHER = DOMAIN + 1
NOTHING = "nothing"
Done = tuple[tuple[str, str], ...]
"""Invalidations in their order, each by its cache and name."""

Invalidate = Callable[[Situation, str], None]
"""Does an invalidation, through registers or the queue."""


def _context(g: int, domain: int = DOMAIN, sid: int = SOURCE, fm: int = 0) -> Invalidate:
    return lambda at, way: contexts(at.platform, way, g, domain=domain, sid=sid, fm=fm)


def _pasid(g: int, domain: int = DOMAIN, beside: int = 0) -> Invalidate:
    return lambda at, way: pasid_entries(at.platform, g, domain=domain, pasid=at.entry + beside)


def _iotlb(g: int, domain: int = DOMAIN, beside: int = 0, am: int = 0, ih: int = 0) -> Invalidate:
    return lambda at, way: iotlb(
        at.platform, way, g, domain=domain, address=at.place + beside, am=am, ih=ih
    )


def _first(
    g: int, domain: int = DOMAIN, other: int = 0, beside: int = 0, am: int = 0, ih: int = 0
) -> Invalidate:
    return lambda at, way: pasid_iotlb(
        at.platform, g, domain=domain, pasid=at.entry + other, address=at.iova + beside,
        am=am, ih=ih,
    )  # fmt: skip


INVALIDATIONS: dict[str, dict[str, Invalidate]] = {
    CONTEXTS: {
        "all": _context(GLOBAL),
        "of the domain": _context(BY_DOMAIN),
        "of another domain": _context(BY_DOMAIN, OTHER),
        "of the device": _context(SELECTIVE),
        # FM leaves bits of the function out: 2; 2 and 1; all.
        "of the device, FM 1": _context(SELECTIVE, sid=SOURCE ^ 4, fm=1),
        "of the device, FM 2": _context(SELECTIVE, sid=SOURCE ^ 6, fm=2),
        "of the device, FM 3": _context(SELECTIVE, sid=SOURCE ^ 7, fm=3),
        "of another function, FM 0": _context(SELECTIVE, sid=SOURCE ^ 4),
        "of another function, FM 1": _context(SELECTIVE, sid=SOURCE ^ 2, fm=1),
        "of another function, FM 2": _context(SELECTIVE, sid=SOURCE ^ 1, fm=2),
        "of another device, FM 3": _context(SELECTIVE, sid=SOURCE ^ 8, fm=3),
        "of the device in another domain": _context(SELECTIVE, OTHER),
    },
    PASIDS: {
        "all": _pasid(3),
        "of the domain": _pasid(0),
        "of another domain": _pasid(0, OTHER),
        "of the PASID": _pasid(1),
        "of another PASID": _pasid(1, beside=1),
        "of the PASID in another domain": _pasid(1, OTHER),
    },
    TRANSLATIONS: {
        "all": _iotlb(GLOBAL),
        "of the domain": _iotlb(BY_DOMAIN),
        "of another domain": _iotlb(BY_DOMAIN, OTHER),
        "page": _iotlb(SELECTIVE),
        "page, IH": _iotlb(SELECTIVE, ih=1),
        "2 pages (AM 1)": _iotlb(SELECTIVE, am=1),
        "next page": _iotlb(SELECTIVE, beside=1 << 21),
        "page of another domain": _iotlb(SELECTIVE, OTHER),
        "of the PASID": _first(2),
        "of another PASID": _first(2, other=1),
        "of the PASID in another domain": _first(2, OTHER),
        "page of the PASID": _first(3),
        "page of the PASID, IH": _first(3, ih=1),
        "2 pages of the PASID (AM 1)": _first(3, am=1),
        "next page of the PASID": _first(3, beside=PAGE << 9),
        "page of another PASID": _first(3, other=1),
        "page of the PASID in another domain": _first(3, OTHER),
    },
}
"""By cache and name; those of a PASID are for first-stage and nested translations."""


def sequences(needs: Mapping[str, frozenset[str]], wide: bool) -> list[Done]:
    """Return what to try: for each cache every invalidation, with what others need beside it.

    One that concerns a cache without need stands alone: it is of the wrong type. wide says whether
    there are descriptors about PASIDs.
    """
    found: list[Done] = [()]
    for cache in CACHES:
        for name in (NOTHING, *INVALIDATIONS[cache]):
            if not wide and ("PASID" in name or cache == PASIDS):
                continue
            if cache not in needs:
                if name != NOTHING:
                    found.append(((cache, name),))
                continue
            found.append(
                tuple(
                    (one, name if one == cache else "all")
                    for one in CACHES
                    if one in needs and (one != cache or name != NOTHING)
                )
            )
    return list(dict.fromkeys(found))


def enough(needs: Mapping[str, frozenset[str]], done: Done) -> bool:
    """Say whether invalidations are enough."""
    return all(dict(done).get(cache) in names for cache, names in needs.items())


def invalidate(situation: Situation, done: Done, way: str) -> None:
    """Do invalidations in their order."""
    for cache, name in done:
        INVALIDATIONS[cache][name](situation, way)
