"""Do nothing: what any target is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fuzzers.target import NONE, Runner


class Empty:
    """Take inputs and leave them alone."""

    name = "empty"
    what = "nothing"
    against: Sequence[str] = (NONE,)
    traced: Sequence[str] = ()
    max_size = 256

    def seeds(self) -> Iterable[bytes]:
        """Return an input to begin with."""
        return (b"",)

    def dictionary(self) -> Iterable[bytes]:
        """Return words that inputs consist of."""
        return ()

    def runner(self, against: str) -> Runner:
        """Return what does nothing."""
        return lambda data: None


def create() -> Empty:
    """Build the target."""
    return Empty()
