"""Old answers whose cause lies above the page tables, or that only a write could have cached."""

from __future__ import annotations

from decoders.events import AccessKind
from harness.findings import Finding, FindingKind
from tests.harness.unit.test_staleness import NEW, OLD, kinds
from tests.writers.invalidations import SELECTIVE, contexts, pages
from tests.writers.platform import DEVICE, DOMAIN, Platform

OTHER_DOMAIN = DOMAIN + 1


def moved(platform: Platform) -> None:
    """Use a page, then give the device other tables and another domain."""
    platform.legacy().map(0x1000, OLD.address)
    platform.read(0x1000)
    platform.legacy(domain=OTHER_DOMAIN).map(0x1000, NEW.address)


def test_a_write_only_page_is_stale_for_an_access_of_unknown_kind(platform: Platform) -> None:
    space = platform.legacy()
    space.map(0x1000, OLD.address, r=0, w=1)
    platform.unit.access(DEVICE, None, 0x1000, AccessKind.UNKNOWN)
    space.unmap(0x1000)
    changed = platform.unit.event
    (found,) = platform.judge(0x1000, OLD, AccessKind.UNKNOWN)
    assert (found.kind, found.cache) == (FindingKind.STALE_USE, "iotlb")
    assert found.changed_by == changed


def test_the_old_domain_after_all_invalidations(platform: Platform) -> None:
    moved(platform)
    contexts(platform, "register", SELECTIVE)
    pages(platform, 0x1000)
    assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_AFTER_INVALIDATION]


def test_the_old_domain_after_the_context_invalidation_alone(platform: Platform) -> None:
    moved(platform)
    contexts(platform, "register", SELECTIVE)
    assert kinds(platform.judge(0x1000, OLD)) == [FindingKind.STALE_AFTER_INVALIDATION]
    assert platform.judge(0x1000, NEW) == []


def test_new_tables_under_the_same_domain_name_the_store(platform: Platform) -> None:
    platform.legacy().map(0x1000, OLD.address)
    platform.read(0x1000)
    platform.legacy().map(0x1000, NEW.address)
    contexts(platform, "register", SELECTIVE)
    found: list[Finding] = platform.judge(0x1000, OLD)
    assert kinds(found) == [FindingKind.STALE_USE]
    assert found[0].changed_by > found[0].filled_by >= 0
