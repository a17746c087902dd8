"""FPD keeps qualified faults from being recorded, unqualified ones not (VT-d 7.1.3)."""

from __future__ import annotations

import pytest

from decoders.events import Fault, FaultRecord, Translation
from decoders.vtd.faults import FAULT_REASONS, Reason
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import DOMAIN, OUTSIDE, WRITE, Platform, fault


def recorded(platform: Platform) -> bool:
    return any(isinstance(seen, FaultRecord) for seen in platform.observed())


@pytest.mark.parametrize("disable", [0, 1])
def test_a_context_entry_disables_what_follows(platform: Platform, disable: int) -> None:
    platform.legacy(fpd=disable)
    assert platform.read(0x1000) == fault(Reason.NO_READ)
    assert recorded(platform) is not bool(disable)


@pytest.mark.parametrize("disable", [0, 1])
@pytest.mark.parametrize("entry", ["context", "directory", "pasid"])
def test_any_of_the_scalable_entries_disables_what_follows(
    platform: Platform, entry: str, disable: int
) -> None:
    platform.scalable_context(fpd=disable if entry == "context" else 0)
    platform.directory_entry(fpd=disable if entry == "directory" else 0)
    platform.first_stage(fpd=disable if entry == "pasid" else 0)
    assert platform.read(0x1000) == fault(Reason.FS_NOT_PRESENT)
    assert recorded(platform) is not bool(disable)


@pytest.mark.parametrize("disable", [0, 1])
def test_an_entry_that_is_not_present_disables_too(platform: Platform, disable: int) -> None:
    platform.context(p=0, fpd=disable)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_NOT_PRESENT)
    assert recorded(platform) is not bool(disable)


def fault_with(make_platform: MakePlatform, reason: Reason) -> Platform:
    """Meet a fault whose entries all have FPD set; return the platform behind it."""
    platform = make_platform(ram=True)
    match reason:
        case Reason.CONTEXT_RESERVED:
            platform.store(at := platform.context(fpd=1), platform.load(at) | 1 << 4)
        case Reason.CONTEXT_INVALID:
            platform.context(fpd=1, aw=0)
        case Reason.ADDRESS_BEYOND_WIDTH:
            platform.legacy(fpd=1, levels=3)
            assert platform.read(1 << 40) == fault(reason)
            return platform
        case Reason.SECOND_STAGE_ACCESS:
            platform.legacy(fpd=1, root=OUTSIDE)
        case Reason.INTERRUPT_RANGE:
            platform.legacy(fpd=1).map(0x1000, 0xFEE00000)
        case Reason.CONTEXT_ACCESS:
            platform.start(0)
            platform.store(platform.root, OUTSIDE | 1)
        case Reason.ROOT_RESERVED:
            platform.start(0)
            platform.store(platform.root, 0b11)
        case Reason.ROOT_NOT_PRESENT:
            platform.start(0)
        case Reason.ROOT_ACCESS:
            platform.set_root(OUTSIDE, 0)
            platform.command(te=1)
        case Reason.PASID_DIRECTORY_ACCESS:
            platform.scalable_context(fpd=1, pasiddirptr=OUTSIDE >> 12)
        case Reason.PASID_DIRECTORY_NOT_PRESENT:
            platform.directory_entry(p=0, fpd=1)
        case Reason.PASID_ACCESS:
            platform.directory_entry(fpd=1, smptblptr=OUTSIDE >> 12)
        case Reason.PASID_INVALID:
            platform.pasid_entry(fpd=1, pgtt=0)
        case _:
            raise AssertionError(reason)
    assert platform.read(0x1000) == fault(reason)
    return platform


QUALIFIED = (
    Reason.CONTEXT_RESERVED,
    Reason.CONTEXT_INVALID,
    Reason.ADDRESS_BEYOND_WIDTH,
    Reason.SECOND_STAGE_ACCESS,
    Reason.INTERRUPT_RANGE,
    Reason.PASID_DIRECTORY_NOT_PRESENT,
    Reason.PASID_INVALID,
)
UNQUALIFIED = (
    Reason.ROOT_ACCESS,
    Reason.ROOT_NOT_PRESENT,
    Reason.ROOT_RESERVED,
    Reason.CONTEXT_ACCESS,
    Reason.PASID_DIRECTORY_ACCESS,
    Reason.PASID_ACCESS,
)


@pytest.mark.parametrize("reason", QUALIFIED, ids=lambda reason: reason.name)
def test_qualified_faults_are_suppressed(make_platform: MakePlatform, reason: Reason) -> None:
    assert FAULT_REASONS[reason].qualified
    assert not recorded(fault_with(make_platform, reason))


@pytest.mark.parametrize("reason", UNQUALIFIED, ids=lambda reason: reason.name)
def test_unqualified_faults_are_recorded(make_platform: MakePlatform, reason: Reason) -> None:
    assert not FAULT_REASONS[reason].qualified
    assert recorded(fault_with(make_platform, reason))


# -- a recorded fault obeys the FPD that explains it ---------------------------------------------


def test_a_recorded_fault_that_agrees_obeys_the_bit(platform: Platform) -> None:
    platform.legacy(fpd=1)
    assert platform.judge(0x1000, fault(Reason.NO_READ)) == []
    assert not recorded(platform)


def test_a_recorded_fault_that_nothing_explains_was_recorded(platform: Platform) -> None:
    platform.legacy(fpd=1)
    assert len(platform.judge(0x1000, Fault(0x0C))) == 1
    assert recorded(platform)


def test_a_recorded_fault_from_a_stale_entry_obeys_the_bit_of_that_entry(
    platform: Platform,
) -> None:
    space = platform.legacy(fpd=0)
    space.map(0x2000, 0x7000)
    assert isinstance(platform.read(0x2000), Translation)
    platform.context(fpd=1, p=0, did=DOMAIN)
    assert platform.permitted(0x1000, WRITE) == {
        fault(Reason.CONTEXT_NOT_PRESENT),
        fault(Reason.NO_WRITE),
    }
    assert not recorded(platform)
    assert platform.judge(0x1000, fault(Reason.NO_READ)) != []
    assert recorded(platform)


def test_the_bit_is_read_with_every_request(platform: Platform) -> None:
    platform.context(fpd=1, p=0)
    platform.read(0x1000)
    assert not recorded(platform)
    platform.context(fpd=0, p=0)
    platform.read(0x1000)
    assert recorded(platform)
