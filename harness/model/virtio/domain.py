"""Domains: what an endpoint's addresses mean while it is attached."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass

TOP = (1 << 64) - 1
DOUBTFUL_KEPT = 256
"""Mappings of a domain that may be gone; more are taken to be there."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Map the addresses from start to end, which is included; event is the one that made it."""

    start: int
    end: int
    physical: int
    flags: int
    event: int

    def address(self, iova: int) -> int:
        """Return where an address leads."""
        return iova - self.start + self.physical & TOP

    def block(self, iova: int) -> int:
        """Return the mask of the largest aligned block around an address that maps as one."""
        mask = 0
        shift = self.start ^ self.physical  # low bits that are equal on both sides are zero here
        while True:
            wider = mask << 1 | 1
            low, high = iova & ~wider, iova | wider
            if wider > TOP or low < self.start or high > self.end or shift & wider:
                return mask
            mask = wider


class Domain:
    """Hold the mappings of a domain, ordered by address, and who is attached.

    doubtful are the starts of mappings that a refused UNMAP may have removed.
    """

    __slots__ = ("_by_start", "_starts", "bypass", "doubtful", "endpoints")

    def __init__(self, bypass: bool) -> None:
        self.bypass = bypass
        self.endpoints: set[int] = set()
        self.doubtful: set[int] = set()
        self._starts: list[int] = []
        self._by_start: dict[int, Mapping] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Mapping]:
        return (self._by_start[start] for start in self._starts)

    def at(self, address: int) -> Mapping | None:
        """Return the mapping of an address."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        found = self._by_start[self._starts[index]]
        return found if address <= found.end else None

    def overlapping(self, start: int, end: int) -> Iterator[Mapping]:
        """Yield the mappings that share an address with a range, in order.

        None may be added or removed meanwhile.
        """
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._by_start[self._starts[first]].end < start:
            first += 1
        last = bisect_right(self._starts, end)
        for index in range(first, last):
            yield self._by_start[self._starts[index]]

    def doubt(self, start: int, end: int) -> None:
        """Remember that the mappings inside a range may be gone."""
        for mapping in self.overlapping(start, end):
            if len(self.doubtful) == DOUBTFUL_KEPT:
                return
            if start <= mapping.start and mapping.end <= end:
                self.doubtful.add(mapping.start)

    def is_doubtful(self, mapping: Mapping | None) -> bool:
        """Say whether a mapping may be gone."""
        return mapping is not None and mapping.start in self.doubtful

    def overlaps(self, start: int, end: int) -> bool:
        """Say whether a range shares an address with a mapping."""
        index = bisect_right(self._starts, end) - 1
        return index >= 0 and self._by_start[self._starts[index]].end >= start

    def add(self, mapping: Mapping) -> None:
        """Add a mapping that overlaps none."""
        insort(self._starts, mapping.start)
        self._by_start[mapping.start] = mapping

    def remove(self, mapping: Mapping) -> None:
        """Remove a mapping."""
        del self._starts[bisect_left(self._starts, mapping.start)]
        del self._by_start[mapping.start]
        self.doubtful.discard(mapping.start)
