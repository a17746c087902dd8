"""Find out which pages of a PC's RAM were touched: what nobody has read or written has no page.

RAM is a sparse file in memory (tmpfs). The kernel gives a page of it when somebody first reads or
writes there, QEMU included: unlike marks in pages this shows where reads lead, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator

from harness.errors import HarnessError
from harness.qemu.landing import PAGE

_BLOCK = 512
"""Bytes of what st_blocks counts (stat(2))."""

_mincore = ctypes.CDLL(None, use_errno=True).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class Residency:
    """Look at the pages of one memory file; places are offsets in it."""

    def __init__(self, ram: mmap.mmap, memory: int) -> None:
        # This process gives single pages, too, where huge ones are the default.
        with contextlib.suppress(OSError):
            ram.madvise(mmap.MADV_NOHUGEPAGE)
        self._ram, self._memory = ram, memory
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(ram))
        self._answer = ctypes.create_string_buffer(1)

    def touched(self, place: int) -> bool:
        """Say whether the page at a place exists."""
        if self._ram.closed or not 0 <= place < len(self._ram):
            raise ValueError(f"no memory at {place:#x}")
        if _mincore(self._start + place - place % PAGE, PAGE, self._answer):
            raise HarnessError(
                f"the kernel does not tell of pages: {os.strerror(ctypes.get_errno())}"
            )
        return bool(self._answer.raw[0] & 1)

    def forget(self, place: int) -> None:
        """Give the page at a place back: it is zero, and was not touched."""
        self._ram.madvise(mmap.MADV_REMOVE, place - place % PAGE, PAGE)

    def count(self) -> int:
        """Return how many pages exist."""
        return os.fstat(self._memory).st_blocks * _BLOCK // PAGE

    def forget_all(self) -> None:
        """Give all pages back."""
        self._ram.madvise(mmap.MADV_REMOVE)

    def pages(self) -> Iterator[int]:
        """Yield the places of all pages that exist."""
        at = 0
        while True:
            try:
                at = os.lseek(self._memory, at, os.SEEK_DATA)
            except OSError:  # there is nothing behind
                return
            end = os.lseek(self._memory, at, os.SEEK_HOLE)
            yield from range(at - at % PAGE, end, PAGE)
            at = end
