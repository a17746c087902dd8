"""The first-stage walk: the x86-64 format with four or five levels (VT-d 3.6, 9.7)."""

from __future__ import annotations

import pytest

from decoders.events import Outcome, Translation
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.paging import FirstStageEntry
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import OUTSIDE, Platform, Space, fault, page

HAW = 46
MEBI, GIBI = 1 << 20, 1 << 30
EVERYTHING = (1 << 64) - 1
PS, XD = 7, 63


# -- geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [4, 5])
def test_levels(platform: Platform, levels: int) -> None:
    space = platform.first_stage(levels=levels)
    top = 1 << 12 + 9 * levels - 1
    for number, iova in enumerate((0, top - 0x1000, -top & EVERYTHING, EVERYTHING - 0xFFF)):
        space.map(iova, 0x7000 + 0x1000 * number)
    assert platform.read(0xABC) == page(0x7000)
    assert platform.read(top - 1) == page(0x8000)
    assert platform.read(-top & EVERYTHING) == page(0x9000)
    assert platform.read(EVERYTHING) == page(0xA000)


@pytest.mark.parametrize("levels", [4, 5])
def test_addresses_that_are_not_canonical(platform: Platform, levels: int) -> None:
    platform.first_stage(levels=levels)
    top = 1 << 12 + 9 * levels - 1
    for iova in (top, top | 1 << 63, 1 << 63, (-top & EVERYTHING) - 1):
        assert platform.read(iova) == fault(Reason.FS_NOT_CANONICAL)
    for iova in (top - 1, -top & EVERYTHING):
        assert platform.read(iova) == fault(Reason.FS_NOT_PRESENT)


@pytest.mark.parametrize(("level", "size"), [(1, 0x1000), (2, 2 * MEBI), (3, GIBI)])
def test_page_sizes(platform: Platform, level: int, size: int) -> None:
    platform.first_stage().map(3 * GIBI, 5 * GIBI, level)
    assert platform.read(3 * GIBI + size - 1) == Translation(5 * GIBI, size - 1)
    assert platform.read(3 * GIBI + size) == fault(Reason.FS_NOT_PRESENT)


def test_pages_of_a_gibibyte_need_the_capability(make_platform: MakePlatform) -> None:
    platform = make_platform(fs1gp=0)
    space = platform.first_stage()
    space.map(0, GIBI, level=3)
    space.map(GIBI, GIBI, level=2)
    assert platform.read(0) == fault(Reason.FS_RESERVED)
    assert platform.read(GIBI) == Translation(GIBI, 2 * MEBI - 1)


# -- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_level_must_be_present(platform: Platform, level: int) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    space.change(0x1000, level, p=0)
    assert platform.read(0x1000) == fault(Reason.FS_NOT_PRESENT)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_level_must_be_for_users(platform: Platform, level: int) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    space.change(0x1000, level, us=0)
    assert platform.read(0x1000) == fault(Reason.FS_USER)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_level_must_allow_writes(platform: Platform, level: int) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    space.change(0x1000, level, rw=0)
    assert platform.write_to(0x1000) == fault(Reason.SM_NO_WRITE)
    assert platform.read(0x1000) == page(0x7000)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_no_level_may_disable_execution(platform: Platform, level: int) -> None:
    space = platform.first_stage(pasid=1, ere=1, nxe=1)
    space.map(0x1000, 0x7000)
    space.map(0x2000_0000_0000, 0x8000)
    space.change(0x1000, level, xd=1)
    assert platform.execute(0x1000, pasid=1) == fault(Reason.SM_NO_EXECUTE)
    assert platform.read(0x1000, pasid=1) == page(0x7000)
    assert platform.execute(0x2000_0000_0000, pasid=1) == page(0x8000)


def test_rights_are_asked_when_the_whole_walk_is_known(platform: Platform) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    space.change(0x1000, 4, us=0, rw=0)
    assert platform.write_to(0x1000) == fault(Reason.FS_USER)
    space.change(0x1000, 1, p=0)
    assert platform.write_to(0x1000) == fault(Reason.FS_NOT_PRESENT)


def test_user_comes_before_write(platform: Platform) -> None:
    platform.first_stage().map(0x1000, 0x7000, us=0, rw=0)
    assert platform.write_to(0x1000) == fault(Reason.FS_USER)


# -- reserved bits -------------------------------------------------------------------------------


def with_bit(platform: Platform, space: Space, level: int, bit: int) -> Outcome:
    """Return the fresh answer to a read of 0 once a bit of its entry has been set."""
    at = space.entry(0, level)
    platform.store(at, platform.load(at) | 1 << bit)
    return platform.request(0).permitted[0].outcome


@pytest.mark.parametrize(
    ("level", "bit"),
    [(level, bit) for level in (1, 2, 3, 4, 5) for bit in (HAW, 51, XD)] + [(4, PS), (5, PS)],
)
def test_reserved_bits_of_every_level(platform: Platform, level: int, bit: int) -> None:
    space = platform.first_stage(levels=5)
    space.map(0, 0x7000)
    assert platform.read(0) == page(0x7000)
    assert with_bit(platform, space, level, bit) == fault(Reason.FS_RESERVED)


@pytest.mark.parametrize(
    ("level", "bit"), [(2, 13), (2, 20), (3, 13), (3, 20), (3, 21), (3, 29), (2, HAW), (3, XD)]
)
def test_reserved_bits_of_large_leaves(platform: Platform, level: int, bit: int) -> None:
    space = platform.first_stage()
    space.map(0, 4 * GIBI, level)
    assert isinstance(platform.read(0), Translation)
    assert with_bit(platform, space, level, bit) == fault(Reason.FS_RESERVED)


@pytest.mark.parametrize("level", [2, 3])
def test_the_memory_type_bit_of_a_large_leaf_is_no_address(platform: Platform, level: int) -> None:
    space = platform.first_stage()
    space.map(0, 4 * GIBI, level)
    assert with_bit(platform, space, level, 12) == platform.read(0)
    assert isinstance(platform.read(0), Translation)


@pytest.mark.parametrize("bit", [3, 4, 7, 8, 9, 10, 11, 52, 62])
def test_ignored_bits_of_a_leaf(platform: Platform, bit: int) -> None:
    space = platform.first_stage()
    space.map(0, 0x7000)
    assert with_bit(platform, space, 1, bit) == page(0x7000)


def test_execute_disable_is_no_reserved_bit_once_enabled(platform: Platform) -> None:
    platform.first_stage(nxe=1).map(0, 0x7000, xd=1)
    assert platform.write_to(0) == page(0x7000)


def test_reserved_bits_come_before_rights(platform: Platform) -> None:
    platform.first_stage().map(0x1000, 0x7000 | 1 << 51, us=0)
    assert platform.read(0x1000) == fault(Reason.FS_RESERVED)


def test_an_entry_that_is_not_present_may_have_reserved_bits(platform: Platform) -> None:
    platform.first_stage().map(0x1000, 0x7000 | 1 << 51, p=0)
    assert platform.read(0x1000) == fault(Reason.FS_NOT_PRESENT)


# -- memory --------------------------------------------------------------------------------------


def test_a_root_table_that_cannot_be_read(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.first_stage(root=OUTSIDE)
    assert platform.read(0x1000) == fault(Reason.FS_ROOT_ACCESS)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_that_cannot_be_read(make_platform: MakePlatform, level: int) -> None:
    platform = make_platform(ram=True)
    space = platform.first_stage()
    platform.store(space.entry(0x1000, level), space.value(OUTSIDE))
    assert platform.read(0x1000) == fault(Reason.FS_ACCESS)


@pytest.mark.parametrize("output", [0xFEE00000, 0xFEEFF000])
def test_output_in_the_interrupt_range(platform: Platform, output: int) -> None:
    platform.first_stage().map(0x1000, output)
    assert platform.write_to(0x1000) == fault(Reason.SM_INTERRUPT_RANGE)


# -- accessed and dirty --------------------------------------------------------------------------


def flag(platform: Platform, space: Space, name: str) -> list[int]:
    """Return a flag of the entries for 0x1000, leaf first."""
    shape = layout(FirstStageEntry)
    entries = [(platform.load(space.entry(0x1000, level)),) for level in (1, 2, 3, 4)]
    return [shape[name].get(entry) for entry in entries]


def test_a_read_sets_accessed_everywhere(platform: Platform) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    platform.read(0x1000)
    assert flag(platform, space, "a") == [1, 1, 1, 1]
    assert flag(platform, space, "d") == [0, 0, 0, 0]


def test_a_write_sets_dirty_in_the_leaf(platform: Platform) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    platform.write_to(0x1000)
    assert flag(platform, space, "a") == [1, 1, 1, 1]
    assert flag(platform, space, "d") == [1, 0, 0, 0]


def test_extended_accessed_with_the_bit_of_the_pasid_entry(platform: Platform) -> None:
    for pasid, enabled in ((1, 0), (2, 1)):
        space = platform.first_stage(pasid, eafe=enabled, domain=pasid)
        space.map(0x1000, 0x7000)
        platform.read(0x1000, pasid=pasid)
        assert flag(platform, space, "ea") == [enabled] * 4


def test_a_request_that_faults_is_not_accounted(platform: Platform) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000, rw=0)
    platform.write_to(0x1000)
    assert flag(platform, space, "a") == [0, 0, 0, 0]


def test_what_the_unit_sets_itself_is_no_change_by_software(platform: Platform) -> None:
    space = platform.first_stage()
    space.map(0x1000, 0x7000)
    platform.read(0x1000)
    platform.write_to(0x1000)
    assert platform.judge(0x1000, page(0x7000)) == []
