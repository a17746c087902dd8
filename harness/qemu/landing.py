"""Find out where DMA lands: pages of RAM full of marks, and what is no longer one."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import re
from collections.abc import Callable, Iterator
from typing import Final

PAGE: Final = 4096

_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_NON_ZERO: Final = re.compile(rb"[^\0]+")


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
        # The map outlives the pool; a view of it that was kept would keep it from being closed.
        self._marked = ctypes.cast(ctypes.c_char_p(self._marks), ctypes.c_void_p).value or 0
        self._place = ctypes.addressof(ctypes.c_char.from_buffer(ram)) + start
        self.restore()

    def restore(self) -> None:
        """Put all marks back."""
        self._ram[self.start : self.end] = self._marks

    def changes(self) -> list[tuple[int, bytes]]:
        """Return what is no mark any more, as address and content, and put the marks back.

        Bytes that were overwritten with what they were do not show.
        """
        if self._ram.closed:
            raise ValueError("the memory of the pool is not mapped any more")
        found = []
        for at in self._changed(0, len(self._marks)):
            found += self._runs(at)
            self._ram[self.start + at : self.start + at + PAGE] = self._marks[at : at + PAGE]
        return _joined(found)

    def _changed(self, at: int, size: int) -> Iterator[int]:
        """Yield the offsets of pages that are not what they were.

        Nothing is copied, and of what is unchanged little is looked at twice: this is called for
        every DMA.
        """
        if not _compare(self._place + at, self._marked + at, size):
            return
        if size == PAGE:
            yield at
            return
        half = size // PAGE // 2 * PAGE
        yield from self._changed(at, half)
        yield from self._changed(at + half, size - half)

    def _runs(self, at: int) -> list[tuple[int, bytes]]:
        """Return the runs of bytes of a page that are no marks."""
        now = self._ram[self.start + at : self.start + at + PAGE]
        marks = int.from_bytes(self._marks[at : at + PAGE], "big")
        differs = int.from_bytes(now, "big") ^ marks
        first = PAGE - (differs.bit_length() + 7) // 8
        behind = ((differs & -differs).bit_length() - 1) // 8
        differing = (differs >> 8 * behind).to_bytes(PAGE - first - behind, "big")
        return [
            (self.start + at + first + run.start(), now[first + run.start() : first + run.end()])
            for run in _NON_ZERO.finditer(differing)
        ]


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
