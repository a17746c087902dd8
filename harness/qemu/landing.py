"""Find out where DMA lands: pages of RAM full of marks, and what is no longer one."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator
from typing import Final

PAGE: Final = 4096


class Pool:
    """Own marked pages; no byte of a mark is 0 or has its highest bit set.

    Each page has another mark, so that copied data can be told from marks of the place.
    """

    def __init__(self, ram: mmap.mmap, start: int, pages: int) -> None:
        if start % PAGE or start + pages * PAGE > len(ram):
            raise ValueError(f"no pool of {pages} pages fits at {start:#x}")
        self._ram = ram
        self.start, self.end = start, start + pages * PAGE
        self._marks = b"".join(mark(start + index * PAGE) for index in range(pages))
        self.restore()

    def restore(self) -> None:
        """Put all marks back."""
        self._ram[self.start : self.end] = self._marks

    def changes(self) -> list[tuple[int, bytes]]:
        """Return what is no mark any more, as address and content, and put the marks back.

        Bytes that were overwritten with what they were do not show.
        """
        now = self._ram[self.start : self.end]
        if now == self._marks:
            return []
        found = []
        for at in range(0, len(now), PAGE):
            if now[at : at + PAGE] != self._marks[at : at + PAGE]:
                found += self._runs(now, at)
                self._ram[self.start + at : self.start + at + PAGE] = self._marks[at : at + PAGE]
        return _joined(found)

    def _runs(self, now: bytes, at: int) -> list[tuple[int, bytes]]:
        """Return the runs of bytes of a page that are no marks."""
        end, runs = at + PAGE, []
        while at < end:
            if now[at] == self._marks[at]:
                at += 1
                continue
            first = at
            while at < end and now[at] != self._marks[at]:
                at += 1
            runs.append((self.start + first, now[first:at]))
        return runs


@contextlib.contextmanager
def watching(ram: mmap.mmap, page: int) -> Iterator[Callable[[], list[tuple[int, bytes]]]]:
    """Mark one page; give what says how it has changed. It is zero afterwards."""
    pool = Pool(ram, page, 1)
    yield pool.changes
    ram.madvise(mmap.MADV_REMOVE, page, PAGE)


def mark(address: int) -> bytes:
    """Return the content of a marked page."""
    number = address // PAGE
    return bytes((1 + number % 0x7F, 1 + number // 0x7F % 0x7F, 0x5A, 0x3C)) * (PAGE // 4)


def _joined(runs: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join runs that touch where a page ends."""
    found: list[tuple[int, bytes]] = []
    for address, data in runs:
        if found and found[-1][0] + len(found[-1][1]) == address:
            before = found.pop()
            found.append((before[0], before[1] + data))
        else:
            found.append((address, data))
    return found
