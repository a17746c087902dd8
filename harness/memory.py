"""Sparse guest-physical memory that remembers who wrote each quadword last."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from harness.errors import HarnessError

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
QUADWORDS = PAGE_SIZE // 8
TOP = (1 << 64) - 1
DEFAULT_PAGE_BUDGET = 1 << 18
"""Pages a trace may touch before it is refused (1 GiB): hostile traces scatter their stores."""


class MemoryBudgetError(HarnessError):
    """Refuse a trace that touches more pages than the budget allows."""


class _Page:
    """One page and who wrote it: one number for all quadwords until they differ, 0 for nobody.

    Numbers are those of events plus one.
    """

    __slots__ = ("data", "writers")

    def __init__(self) -> None:
        self.data = bytearray(PAGE_SIZE)
        self.writers: int | array[int] = 0

    def written(self, offset: int, length: int, event: int) -> None:
        """Remember that an event wrote some bytes."""
        if length == PAGE_SIZE:
            self.writers = event + 1
            return
        if isinstance(self.writers, int):
            self.writers = array("Q", [self.writers]) * QUADWORDS
        for quadword in range(offset >> 3, (offset + length - 1 >> 3) + 1):
            self.writers[quadword] = event + 1


class Memory:
    """Hold 4 KiB pages; bytes nobody wrote read as zero.

    ranges lists (start, length) of the machine's RAM; a read that is not inside one fails. With no
    ranges everything is readable. Addresses wrap at the end of the address space.
    """

    def __init__(
        self, ranges: Sequence[tuple[int, int]] = (), page_budget: int = DEFAULT_PAGE_BUDGET
    ):
        self._pages: dict[int, _Page] = {}
        self._ranges = tuple((start, start + length) for start, length in ranges)
        self._budget = page_budget

    def readable(self, address: int, length: int) -> bool:
        """Say whether all of [address, address + length) is RAM."""
        for start, end in self._ranges:
            if start <= address and address + length <= end:
                return True
        return not self._ranges

    def known(self, address: int) -> bool:
        """Say whether anything ever wrote to the page that holds address."""
        return address >> PAGE_SHIFT in self._pages

    def pages(self) -> Iterator[int]:
        """Yield the addresses of the pages that anything ever wrote to."""
        return (number << PAGE_SHIFT for number in self._pages)

    def read(self, address: int, length: int) -> bytes:
        """Return length bytes from address, whether RAM or not."""
        offset = address % PAGE_SIZE
        if length <= PAGE_SIZE - offset:
            one = self._pages.get(address >> PAGE_SHIFT)
            return bytes(length) if one is None else bytes(one.data[offset : offset + length])
        out = bytearray()
        while length:
            offset = address % PAGE_SIZE
            step = min(length, PAGE_SIZE - offset)
            page = self._pages.get(address >> PAGE_SHIFT)
            out += page.data[offset : offset + step] if page is not None else bytes(step)
            address = address + step & TOP
            length -= step
        return bytes(out)

    def quadword(self, address: int) -> int | None:
        """Return the little-endian quadword at an aligned address; None is a read error.

        Addresses wrap at 2^64: a ring or table that begins below it goes on at zero.
        """
        address &= TOP
        if self._ranges and not self.readable(address, 8):
            return None
        page = self._pages.get(address >> PAGE_SHIFT)
        if page is None:
            return 0
        offset = address % PAGE_SIZE
        return int.from_bytes(page.data[offset : offset + 8], "little")

    def write(self, address: int, data: bytes, event: int | None = None) -> None:
        """Write data at address; event is the number to remember for the quadwords touched.

        Raise MemoryBudgetError when the write needs more pages than the budget.
        """
        position = 0
        while position < len(data):
            at = address + position & TOP
            offset = at % PAGE_SIZE
            step = min(len(data) - position, PAGE_SIZE - offset)
            page = self._page(at)
            page.data[offset : offset + step] = data[position : position + step]
            if event is not None:
                page.written(offset, step, event)
            position += step

    def last_writer(self, address: int) -> int | None:
        """Return the number of the event that last wrote the quadword at address, if any did."""
        address &= TOP
        page = self._pages.get(address >> PAGE_SHIFT)
        if page is None:
            return None
        writers = page.writers
        writer = writers if isinstance(writers, int) else writers[address % PAGE_SIZE >> 3]
        return writer - 1 if writer else None

    def _page(self, address: int) -> _Page:
        number = address >> PAGE_SHIFT
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= self._budget:
                raise MemoryBudgetError(
                    f"the trace touches more than {self._budget} pages of guest memory; "
                    "raise --page-budget if it is yours"
                )
            page = self._pages[number] = _Page()
        return page
