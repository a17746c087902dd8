"""`dmarewind diff --unit vtd` without a QEMU: what becomes of processes that share the work."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from harness import diff_pair
from harness.differential.in_step import Totals
from harness.errors import HarnessError

_FIRST = 25


def dies(machines: Sequence[str], seeds: tuple[int, int]) -> diff_pair.Found:
    """Stand for sequences of which those behind the first part kill their process."""
    if seeds[0] >= _FIRST:
        os.kill(os.getpid(), signal.SIGKILL)
    return Totals(), []


def test_a_process_that_dies_is_reported_with_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_pair, "_part", dies)
    with pytest.raises(HarnessError, match=r"a process died .* seeds .*\b\d+-\d+"):
        list(diff_pair._results(2, ["legacy"], 0, 100))
