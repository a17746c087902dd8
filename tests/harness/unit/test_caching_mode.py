"""Caching mode: root, context and PASID entries that block may be kept (VT-d 6.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import Outcome
from decoders.vtd.faults import Reason
from harness.findings import FindingKind
from tests.harness.unit.conftest import MakePlatform
from tests.writers.invalidations import BY_DOMAIN, GLOBAL, SELECTIVE, contexts, pasid_entries
from tests.writers.platform import DOMAIN, Platform, fault, page

HOST = 0x20_0000
OTHER = 0x0020


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    return make_platform(cm=1)


def appear(platform: Platform, reason: Reason, write: Callable[[], object]) -> Outcome:
    """Meet an entry that blocks, then write a good one; return the fault that may be kept."""
    assert platform.read(0x1000) == fault(reason)
    write()
    assert platform.permitted(0x1000) == {page(HOST), fault(reason)}
    return fault(reason)


def context_appears(platform: Platform, reason: Reason, **fields: int) -> Outcome:
    platform.context(**fields)
    return appear(platform, reason, lambda: platform.legacy().map(0x1000, HOST))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"p": 0}, Reason.CONTEXT_NOT_PRESENT), ({"aw": 0}, Reason.CONTEXT_INVALID)],
)
@pytest.mark.parametrize(
    ("g", "domain", "kept"),
    [
        (GLOBAL, DOMAIN, False),
        (BY_DOMAIN, 0, False),
        (BY_DOMAIN, DOMAIN, True),
        # Linux gives domain 0 for a context entry that appears (context_present_cache_flush).
        (SELECTIVE, 0, False),
        (SELECTIVE, DOMAIN, True),
    ],
)
def test_a_context_entry_that_blocks(
    platform: Platform, fields: dict[str, int], reason: Reason, g: int, domain: int, kept: bool
) -> None:
    old = context_appears(platform, reason, **fields)
    contexts(platform, "register", g, domain=domain)
    assert platform.permitted(0x1000) == ({page(HOST), old} if kept else {page(HOST)})


def test_the_findings_about_it(platform: Platform) -> None:
    old = context_appears(platform, Reason.CONTEXT_NOT_PRESENT, p=0)
    (found,) = platform.judge(0x1000, old)
    assert (found.kind, found.cache) == (FindingKind.STALE_USE, "context")
    (found,) = platform.judge(0x1000, page(HOST))
    assert found.kind == FindingKind.UNFLUSHED
    contexts(platform, "register", SELECTIVE, domain=0)
    assert platform.judge(0x1000, page(HOST)) == []


def test_the_context_entry_of_another_device_is_another(platform: Platform) -> None:
    old = context_appears(platform, Reason.CONTEXT_NOT_PRESENT, p=0)
    contexts(platform, "register", SELECTIVE, domain=0, sid=OTHER)
    assert platform.permitted(0x1000) == {page(HOST), old}


def test_a_root_entry_that_is_not_present(platform: Platform) -> None:
    platform.start(0)
    old = appear(platform, Reason.ROOT_NOT_PRESENT, lambda: platform.legacy().map(0x1000, HOST))
    contexts(platform, "register", SELECTIVE, domain=DOMAIN)
    assert platform.permitted(0x1000) == {page(HOST), old}
    contexts(platform, "register", GLOBAL)
    assert platform.permitted(0x1000) == {page(HOST)}


def test_an_entry_of_the_other_mode_means_nothing(platform: Platform) -> None:
    platform.context(p=0)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_NOT_PRESENT)
    platform.set_root(platform.page(), 1)
    assert platform.permitted(0x1000) == {fault(Reason.SM_ROOT_NOT_PRESENT)}


def test_an_entry_that_cannot_be_read_is_not_kept(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=1, ram=True)
    platform.start(0)
    platform.store(platform.root, (1 << 40) | 1)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_ACCESS)
    platform.legacy().map(0x1000, HOST)
    assert platform.permitted(0x1000) == {page(HOST)}


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda p: p.pasid_entry(p=0), Reason.PASID_NOT_PRESENT),
        (lambda p: p.pasid_entry(pgtt=0), Reason.PASID_INVALID),
        (lambda p: p.scalable_context(), Reason.PASID_DIRECTORY_NOT_PRESENT),
    ],
)
@pytest.mark.parametrize(
    ("g", "domain", "pasid", "kept"),
    [
        (3, 0, 0, False),
        (0, 0, 0, False),
        (0, DOMAIN, 0, True),
        (1, 0, 0, False),
        # Linux gives the domain of the entry that appears (pasid_flush_caches).
        (1, DOMAIN, 0, False),
        (1, 0, 1, True),
    ],
)
def test_a_pasid_entry_that_blocks(
    platform: Platform, prepare: Callable[[Platform], object], reason: Reason,
    g: int, domain: int, pasid: int, kept: bool,
) -> None:  # fmt: skip
    prepare(platform)
    old = appear(platform, reason, lambda: platform.first_stage().map(0x1000, HOST))
    pasid_entries(platform, g, domain=domain, pasid=pasid)
    assert platform.permitted(0x1000) == ({page(HOST), old} if kept else {page(HOST)})


def test_without_caching_mode_no_entry_that_blocks_is_kept(make_platform: MakePlatform) -> None:
    platform = make_platform(cm=0)
    platform.context(p=0)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_NOT_PRESENT)
    platform.legacy().map(0x1000, HOST)
    assert platform.permitted(0x1000) == {page(HOST)}
