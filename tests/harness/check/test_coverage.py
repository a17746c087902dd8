"""What the checker takes an invalidation for: what it covers, and when."""

from __future__ import annotations

import pytest

from harness.check.coverage import NEVER, Coverage

SID, DOMAIN, PASID = 0x18, 5, 3
OTHER = DOMAIN + 1


def after(granularity: int, domain: int, *, ignores_domain: bool = False) -> Coverage:
    coverage = Coverage(ignores_domain)
    coverage.context(7, granularity, domain, SID, 0)
    return coverage


@pytest.mark.parametrize("granularity", [2, 3])
def test_a_context_entry_is_covered_under_its_own_domain(granularity: int) -> None:
    assert after(granularity, DOMAIN).of_context(SID, DOMAIN) == 7
    assert after(granularity, OTHER).of_context(SID, DOMAIN) == NEVER


def test_a_scalable_context_entry_has_no_domain() -> None:
    for granularity in (1, 2, 3):
        assert after(granularity, OTHER).of_context(SID, -1) == 7


def test_some_units_take_no_notice_of_the_domain_of_a_device() -> None:
    assert after(3, OTHER, ignores_domain=True).of_context(SID, DOMAIN) == 7
    assert after(2, OTHER, ignores_domain=True).of_context(SID, DOMAIN) == NEVER


def test_any_second_stage_page_covers_what_first_stages_gave() -> None:
    coverage = Coverage()
    coverage.iotlb(7, 3, DOMAIN, 0x1000, 0, True)
    for page in (0x1000, 0x7000_0000):
        assert coverage.of_page(DOMAIN, page, PASID) == 7
        assert coverage.of_page(DOMAIN, page, PASID, "tables") == 7
        assert coverage.of_page(OTHER, page, PASID) == NEVER
    assert coverage.of_domain(DOMAIN, PASID) == 7


def test_a_second_stage_page_covers_itself_alone() -> None:
    coverage = Coverage()
    coverage.iotlb(7, 3, DOMAIN, 0x1000, 0, True)
    assert coverage.of_page(DOMAIN, 0x1000) == 7
    assert coverage.of_page(DOMAIN, 0x2000) == coverage.of_domain(DOMAIN) == NEVER
    assert coverage.of_page(DOMAIN, 0x1000, kind="tables") == NEVER
