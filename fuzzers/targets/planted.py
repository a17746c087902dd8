"""Make mistakes on purpose: a run that does not find them shows that fuzzing does not work.

The core makes them in an instrumented build only (core/planted.cpp); "DMRx" raises in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fuzzers.target import MODEL, NONE, Runner
from harness.errors import HarnessError
from harness.native.loading import core


class Planted:
    """Run the mistake that an input asks for."""

    name = "planted"
    what = "mistakes that have to be found"
    against: Sequence[str] = (MODEL, NONE)
    traced: Sequence[str] = ()
    max_size = 16

    def seeds(self) -> Iterable[bytes]:
        """Return inputs to begin with."""
        return (b"",)

    def dictionary(self) -> Iterable[bytes]:
        """Return words that inputs consist of."""
        return ()

    def runner(self, against: str) -> Runner:
        """Return what makes the mistakes."""
        native = core()
        if not native.instrumented:
            raise HarnessError("mistakes are planted in an instrumented core only")
        planted: Any = native.planted

        def run(data: bytes) -> None:
            planted(data)
            if data[:4] == b"DMRx":
                raise ZeroDivisionError("planted")

        return planted if against == NONE else run


def create() -> Planted:
    """Build the target."""
    return Planted()
