"""What is enough once a page that a device keeps has been mapped elsewhere (VT-d 6.5.2.5, .6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import Attribute
from decoders.vtd.descriptors import InvalidationWait
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.harness.unit.test_device_tlb import with_pasid, without_pasid
from tests.writers.invalidations import GLOBAL, iotlb
from tests.writers.platform import DEVICE, PAGE, READ, WRITE, Platform, descriptor, page

IOVA, OLD, NEW = 0x40_1000, 0x50_1000, 0x60_1000
PASID = 3
WAIT = descriptor(InvalidationWait, fn=1)
TWO = 2 * PAGE

Words = tuple[int, ...]
CASES: dict[str, tuple[tuple[Words, ...], frozenset[int | None]]] = {
    "a wait alone": ((WAIT,), frozenset()),
    "everything of those without": ((without_pasid(), WAIT), frozenset({None})),
    "the page": ((without_pasid(IOVA, PAGE), WAIT), frozenset({None})),
    "2 pages with it": ((without_pasid(IOVA - PAGE, TWO), WAIT), frozenset({None})),
    "2 pages behind it": ((without_pasid(IOVA + PAGE, TWO), WAIT), frozenset()),
    "the next page": ((without_pasid(IOVA + PAGE, PAGE), WAIT), frozenset()),
    "the page of another device": ((without_pasid(IOVA, PAGE, DEVICE + 1), WAIT), frozenset()),
    "everything of the PASID": ((with_pasid(PASID), WAIT), frozenset({PASID})),
    "the page of the PASID": ((with_pasid(PASID, IOVA, PAGE), WAIT), frozenset({PASID})),
    "2 pages of the PASID": ((with_pasid(PASID, IOVA - PAGE, TWO), WAIT), frozenset({PASID})),
    "the next page of the PASID": ((with_pasid(PASID, IOVA + PAGE, PAGE), WAIT), frozenset()),
    "the page of another PASID": ((with_pasid(PASID + 1, IOVA, PAGE), WAIT), frozenset()),
    "the page of all PASIDs": ((with_pasid(0, IOVA, PAGE, g=1), WAIT), frozenset({PASID})),
    "the next page of all PASIDs": ((with_pasid(0, IOVA + PAGE, PAGE, g=1), WAIT), frozenset()),
}
"""Descriptors behind the invalidation of the IOTLB, and whose translations they are enough for."""


def used(platform: Platform, address: int) -> list[FindingKind]:
    """Use a translated address that is let through; return the kinds of findings."""
    platform.request(address, WRITE, recorded=page(address), attributes=Attribute.TRANSLATED)
    return [finding.kind for finding in platform.unit.findings()]


def asked(platform: Platform, pasid: int | None) -> int:
    """Let the device ask for the page; return where it leads."""
    verdict = platform.request(IOVA, READ, pasid=pasid, attributes=Attribute.TRANSLATION_REQUEST)
    (outcome,) = {one.outcome for one in verdict.permitted}
    assert outcome in (page(OLD), page(NEW)), outcome
    return OLD if outcome == page(OLD) else NEW


@pytest.fixture
def setup(make_platform: MakePlatform) -> Callable[[int | None], Platform]:
    """Return what makes a platform whose device keeps the old translation of a moved page."""

    def make(pasid: int | None) -> Platform:
        platform = make_platform()
        platform.start_queue(wide=True)
        platform.scalable_context(dte=1)
        space = platform.first_stage(pasid or 0)
        space.map(IOVA, OLD)
        assert asked(platform, pasid) == OLD
        space.map(IOVA, NEW)
        return platform

    return make


@pytest.mark.parametrize("pasid", [None, PASID])
@pytest.mark.parametrize("case", CASES)
def test_what_is_enough(
    setup: Callable[[int | None], Platform], case: str, pasid: int | None
) -> None:
    descriptors, enough = CASES[case]
    platform = setup(pasid)
    iotlb(platform, "queue", GLOBAL)
    platform.submit(*descriptors)
    if pasid in enough:
        assert used(platform, OLD) == [FindingKind.STALE_AFTER_INVALIDATION]
        assert asked(platform, pasid) == NEW and used(platform, NEW) == []
    else:
        assert used(platform, OLD) == [FindingKind.STALE_USE]


def test_what_is_not_awaited_is_not_judged(setup: Callable[[int | None], Platform]) -> None:
    platform = setup(None)
    iotlb(platform, "queue", GLOBAL)
    platform.submit(without_pasid(IOVA, PAGE))
    assert used(platform, OLD) == []


def test_a_device_may_get_the_old_translation_from_the_iotlb(
    setup: Callable[[int | None], Platform],
) -> None:
    """Device TLBs come last: before the IOTLB is told, the device may ask and be answered so."""
    platform = setup(None)
    platform.submit(without_pasid(), WAIT)
    verdict = platform.request(
        IOVA, READ, recorded=page(OLD), attributes=Attribute.TRANSLATION_REQUEST
    )
    assert {one.outcome for one in verdict.permitted} == {page(OLD), page(NEW)}
    assert [one.kind for one in platform.unit.findings()] == [FindingKind.STALE_USE]
    iotlb(platform, "queue", GLOBAL)
    assert used(platform, OLD) == [FindingKind.STALE_USE]
