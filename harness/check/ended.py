"""Find the mapping of a virtio-iommu that was the last one at an address."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from harness.model.virtio.state import Dropped

PIECES = 1 << 16
"""Ranges that are remembered; one more and all are forgotten."""


class LastEnded:
    """Remember, of each address in each domain, which mapping of it has ended last.

    A search takes no longer where many mappings had the same address.
    """

    def __init__(self) -> None:
        # Of each domain: where ranges start, in order; the last address of each, and what ended.
        self._domains: dict[int, tuple[list[int], list[tuple[int, Dropped]]]] = {}
        self._count = 0

    def add(self, ended: Dropped) -> None:
        """Remember a mapping; it hides those that ended before it."""
        if self._count >= PIECES:
            self._domains.clear()
            self._count = 0
        starts, ranges = self._domains.setdefault(ended.domain, ([], []))
        start, end = ended.mapping.start, ended.mapping.end
        first, last = bisect_left(starts, start), bisect_right(starts, end)
        if first and ranges[first - 1][0] >= start:
            first -= 1
        new = [(start, (end, ended))]
        if first < last:
            # What the two outermost ranges have beyond the new one stays.
            if starts[first] < start:
                new.insert(0, (starts[first], (start - 1, ranges[first][1])))
            if ranges[last - 1][0] > end:
                new.append((end + 1, ranges[last - 1]))
        self._count += len(new) - (last - first)
        starts[first:last] = [at for at, _ in new]
        ranges[first:last] = [one for _, one in new]

    def at(self, domain: int, address: int) -> Dropped | None:
        """Return what ended last of the mappings of an address; None where there was none."""
        starts, ranges = self._domains.get(domain, ([], []))
        index = bisect_right(starts, address) - 1
        if index < 0:
            return None
        end, ended = ranges[index]
        return ended if address <= end else None
