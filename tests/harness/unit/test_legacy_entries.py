"""Legacy mode: from the source id to a paging root (VT-d 3.4.2, 9.1, 9.3), with every fault."""

from __future__ import annotations

import pytest

from decoders.events import Translation
from decoders.fields import build
from decoders.vtd.faults import Reason
from decoders.vtd.registers import RTADDR
from decoders.vtd.tables import RootEntry
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import AW, DEVICE, OUTSIDE, Platform, fault, page

HAW = 46
UNTRANSLATED = Translation(0, (1 << HAW) - 1)


def root_entry(platform: Platform, sid: int = DEVICE) -> int:
    return platform.root + 16 * (sid >> 8)


def test_a_request_is_translated(platform: Platform) -> None:
    platform.legacy().map(0x1000, 0x7000)
    assert platform.read(0x1234) == page(0x7000)
    assert platform.write_to(0x1FFF) == page(0x7000)


def test_nothing_is_translated_before_translation_is_enabled(platform: Platform) -> None:
    platform.set_root(platform.page(), 0)
    assert platform.read(0x1000) == UNTRANSLATED


def test_nothing_is_translated_after_translation_is_disabled(platform: Platform) -> None:
    platform.legacy()
    assert platform.read(0x1000) != UNTRANSLATED
    platform.command(te=0)
    assert platform.read(0x1000) == UNTRANSLATED


@pytest.mark.parametrize("iova", [0xFEE00000, 0xFEEFFFFF])
def test_the_interrupt_range_is_not_translated(platform: Platform, iova: int) -> None:
    platform.legacy()
    assert platform.write_to(iova) == UNTRANSLATED


@pytest.mark.parametrize("iova", [0xFEDFF000, 0xFEF00000])
def test_what_surrounds_the_interrupt_range_is_translated(platform: Platform, iova: int) -> None:
    platform.legacy().map(iova, 0x7000)
    assert platform.write_to(iova) == page(0x7000)


def test_the_root_pointer_is_latched_by_a_command(platform: Platform) -> None:
    platform.legacy().map(0x1000, 0x7000)
    platform.program(RTADDR, platform.page())
    assert platform.read(0x1000) == page(0x7000)
    platform.command(srtp=1)
    assert platform.read(0x1000) == fault(Reason.ROOT_NOT_PRESENT)


def test_bus_and_function_select_the_entries(platform: Platform) -> None:
    platform.legacy(sid=0x0018, domain=1).map(0x1000, 0x7000)
    platform.legacy(sid=0x0019, domain=2).map(0x1000, 0x8000)
    platform.legacy(sid=0x1219, domain=3).map(0x1000, 0x9000)
    assert platform.read(0x1000, sid=0x0018) == page(0x7000)
    assert platform.read(0x1000, sid=0x0019) == page(0x8000)
    assert platform.read(0x1000, sid=0x1219) == page(0x9000)


# -- the root table address ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [2, 3])
def test_table_modes_that_mean_nothing_fault(platform: Platform, mode: int) -> None:
    platform.start(mode)
    assert platform.read(0x1000) == fault(Reason.ROOT_TABLE_ADDRESS)


def test_scalable_mode_needs_the_capability(make_platform: MakePlatform) -> None:
    platform = make_platform(smts=0)
    platform.first_stage().map(0x1000, 0x7000)
    assert platform.read(0x1000) == fault(Reason.ROOT_TABLE_ADDRESS)


def test_a_root_table_beyond_the_host_address_width_faults(platform: Platform) -> None:
    platform.root = 1 << HAW
    platform.set_root(platform.root, 0)
    platform.command(te=1)
    platform.write(platform.root, build(RootEntry, p=1))
    assert platform.read(0x1000) == fault(Reason.ROOT_TABLE_ADDRESS)


def test_a_request_with_pasid_faults_before_any_table_is_read(platform: Platform) -> None:
    platform.start(0)
    assert platform.read(0x1000) == fault(Reason.ROOT_NOT_PRESENT)
    assert platform.read(0x1000, pasid=3) == fault(Reason.LEGACY_MODE_PASID)
    platform.legacy().map(0x1000, 0x7000)
    assert platform.read(0x1000, pasid=3) == fault(Reason.LEGACY_MODE_PASID)
    assert platform.permitted(0x1000, pasid=3) == {fault(Reason.LEGACY_MODE_PASID)}


# -- root entries --------------------------------------------------------------------------------


def test_a_root_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.set_root(OUTSIDE, 0)
    platform.command(te=1)
    assert platform.read(0x1000) == fault(Reason.ROOT_ACCESS)


def test_a_root_entry_that_is_not_present_faults(platform: Platform) -> None:
    platform.legacy()
    platform.store(root_entry(platform), 0)
    assert platform.read(0x1000) == fault(Reason.ROOT_NOT_PRESENT)


@pytest.mark.parametrize("bit", [1, 11, HAW, 51, 52, 63])
def test_reserved_bits_of_a_root_entry(platform: Platform, bit: int) -> None:
    platform.legacy().map(0x1000, 0x7000)
    at = root_entry(platform)
    platform.store(at, platform.load(at) | 1 << bit)
    assert platform.read(0x1000) == fault(Reason.ROOT_RESERVED)


@pytest.mark.parametrize("bit", [0, 12, 63])
def test_the_upper_half_of_a_legacy_root_entry_is_reserved(platform: Platform, bit: int) -> None:
    platform.legacy().map(0x1000, 0x7000)
    platform.store(root_entry(platform) + 8, 1 << bit)
    assert platform.read(0x1000) == fault(Reason.ROOT_RESERVED)


def test_present_is_tested_before_reserved_in_a_root_entry(platform: Platform) -> None:
    platform.legacy()
    platform.store(root_entry(platform), 0xFFE)
    assert platform.read(0x1000) == fault(Reason.ROOT_NOT_PRESENT)


# -- context entries -----------------------------------------------------------------------------


def test_a_context_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.start(0)
    platform.write(root_entry(platform), build(RootEntry, p=1, ctp=OUTSIDE >> 12))
    assert platform.read(0x1000) == fault(Reason.CONTEXT_ACCESS)


def test_a_context_entry_that_is_not_present_faults(platform: Platform) -> None:
    platform.context(p=0)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_NOT_PRESENT)


@pytest.mark.parametrize(
    ("word", "bit"), [(0, 4), (0, 11), (0, HAW), (0, 52), (0, 63), (1, 7), (1, 24), (1, 63)]
)
def test_reserved_bits_of_a_context_entry(platform: Platform, word: int, bit: int) -> None:
    platform.legacy().map(0x1000, 0x7000)
    at = platform.context_of() + 8 * word
    platform.store(at, platform.load(at) | 1 << bit)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_RESERVED)


@pytest.mark.parametrize("bit", [3, 4, 5, 6])
def test_ignored_bits_of_a_context_entry(platform: Platform, bit: int) -> None:
    platform.legacy().map(0x1000, 0x7000)
    at = platform.context_of() + 8
    platform.store(at, platform.load(at) | 1 << bit)
    assert platform.read(0x1000) == page(0x7000)


def test_reserved_is_tested_before_validity_in_a_context_entry(platform: Platform) -> None:
    at = platform.context(aw=0)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)
    platform.store(at, platform.load(at) | 1 << 4)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_RESERVED)


@pytest.mark.parametrize("aw", [0, 4, 5, 6, 7])
def test_address_widths_that_mean_nothing(platform: Platform, aw: int) -> None:
    platform.context(aw=aw)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)


@pytest.mark.parametrize("aw", [1, 2, 3])
def test_address_widths_need_the_capability(make_platform: MakePlatform, aw: int) -> None:
    platform = make_platform(sagaw=0b1110 & ~(1 << aw))
    platform.context(aw=aw)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)


def test_translation_type_with_device_tlb_needs_the_capability(make_platform: MakePlatform) -> None:
    for offered, expected in ((1, page(0x7000)), (0, fault(Reason.CONTEXT_INVALID))):
        platform = make_platform(dt=offered)
        platform.legacy(tt=1).map(0x1000, 0x7000)
        assert platform.read(0x1000) == expected


def test_translation_type_three_is_reserved(platform: Platform) -> None:
    platform.legacy(tt=3).map(0x1000, 0x7000)
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)


# -- pass-through --------------------------------------------------------------------------------


def test_pass_through(platform: Platform) -> None:
    platform.context(tt=2, aw=AW[5])
    assert platform.read(0x1234567) == UNTRANSLATED
    assert platform.write_to((1 << HAW) - 1) == UNTRANSLATED


def test_pass_through_needs_the_capability(make_platform: MakePlatform) -> None:
    platform = make_platform(pt=0)
    platform.context(tt=2, aw=AW[5])
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)


def test_pass_through_needs_the_largest_width(platform: Platform) -> None:
    platform.context(tt=2, aw=AW[4])
    assert platform.read(0x1000) == fault(Reason.CONTEXT_INVALID)


def test_pass_through_ends_at_the_host_address_width(platform: Platform) -> None:
    platform.context(tt=2, aw=AW[5])
    assert platform.read(1 << HAW) == fault(Reason.ADDRESS_BEYOND_WIDTH)
