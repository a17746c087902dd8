"""Guests to record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.recording import Guest
from tools.guest.__main__ import prepare
from tools.guest.kernel import CACHE


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Return a function that gives a guest's command line; its disk is its own."""
    disks: list[Path] = []

    def words(name: str) -> list[str]:
        # The folder's own name is the same in another run of the tests, or in a worker beside.
        run = "-".join(("", *tmp_path.parts[-3:]))
        disks.append(CACHE / f"disk{run}.raw")
        return prepare(name, download=False, mebibytes=1, run=run)

    yield words
    for disk in disks:
        disk.unlink(missing_ok=True)
