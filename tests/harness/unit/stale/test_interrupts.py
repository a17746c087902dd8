"""What is enough once an interrupt entry has changed (VT-d 6.5.2.7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.vtd.descriptors import InterruptEntryCacheInvalidation
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.writers.interrupts import INDEX, VECTOR, Interrupts, sent
from tests.writers.invalidations import GLOBAL, contexts, iotlb, pasid_entries
from tests.writers.platform import Platform, descriptor


def entries(**fields: int) -> Callable[[Platform], None]:
    """Return an invalidation of interrupt entries."""
    return lambda platform: platform.submit(descriptor(InterruptEntryCacheInvalidation, **fields))


CASES: dict[str, tuple[Callable[[Platform], None], bool]] = {
    "nothing": (lambda platform: None, False),
    "all entries": (entries(g=0), True),
    "the entry": (entries(g=1, iidx=INDEX), True),
    "the next entry": (entries(g=1, iidx=INDEX + 1), False),
    "2 entries from the one before": (entries(g=1, im=1, iidx=INDEX - 1), True),
    "2 entries behind it": (entries(g=1, im=1, iidx=INDEX + 1), False),
    "the first 8 entries": (entries(g=1, im=3, iidx=0), True),
    "the first 4 entries": (entries(g=1, im=2, iidx=0), False),
    "context entries": (lambda platform: contexts(platform, "queue", GLOBAL), False),
    "PASID entries": (lambda platform: pasid_entries(platform, 3), False),
    "translations": (lambda platform: iotlb(platform, "queue", GLOBAL), False),
}
"""Invalidations behind a change of entry INDEX, and whether they are enough."""

OLD, NEW = sent(VECTOR), sent(VECTOR + 1)


@pytest.mark.parametrize("case", CASES)
def test_what_is_enough(make_platform: MakePlatform, case: str) -> None:
    invalidate, enough = CASES[case]
    found = {}
    for recorded in (OLD, NEW):
        platform = make_platform()
        platform.start_queue(wide=True)
        table = Interrupts(platform)
        table.entry()
        assert table.send() == OLD
        table.entry(vector=VECTOR + 1)
        invalidate(platform)
        found[recorded] = [one.kind for one in table.judge(recorded)]
    if enough:
        assert found == {OLD: [FindingKind.STALE_AFTER_INVALIDATION], NEW: []}
    else:
        assert found == {OLD: [FindingKind.STALE_USE], NEW: [FindingKind.UNFLUSHED]}
