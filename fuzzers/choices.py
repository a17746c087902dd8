"""Let the bytes of an input take the place of chance, so that a generator's grammar is searched."""

from __future__ import annotations

from random import Random


class ByteRandom(Random):
    """Draw from bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Return how many bytes have not been drawn."""
        return max(0, len(self._data) - self._at)

    def _take(self, count: int) -> int:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return int.from_bytes(taken.ljust(count, b"\0"), "little")

    def getrandbits(self, k: int, /) -> int:
        """Return a number of k bits."""
        return self._take((k + 7) // 8) & (1 << k) - 1

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self._take(1) / 256

    def _randbelow(self, n: int) -> int:
        """Return a number below n; few bytes, so that one that changes changes one choice."""
        return self._take((n.bit_length() + 7) // 8) % n
