"""The second-stage walk, in legacy and in scalable mode (VT-d 3.7, 9.8)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import AccessKind, Outcome, Translation
from decoders.layout import layout
from decoders.vtd.faults import Reason
from decoders.vtd.paging import SecondStageEntry
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import OUTSIDE, Platform, Space, fault, page

HAW = 46
MEBI, GIBI = 1 << 20, 1 << 30
NAMES = ("reserved", "no_read", "no_write", "absent", "beyond", "interrupt", "access", "root")
REASONS = {
    "legacy": (0x0C, 0x06, 0x05, None, 0x04, 0x0E, 0x07, 0x07),
    "second_stage": (0x7A, 0x86, 0x85, 0x79, 0x84, 0x87, 0x78, 0x7B),
}
MODES = tuple(REASONS)
Make = Callable[..., Space]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tables(platform: Platform, mode: str, levels: int = 4, root: int = 0) -> Space:
    make = platform.legacy if mode == "legacy" else platform.second_stage
    return make(levels=levels, root=root)


def blocked(mode: str, name: str) -> Outcome:
    reason = REASONS[mode][NAMES.index(name)]
    assert reason is not None
    return fault(reason)


def absent(mode: str, write: bool) -> Outcome:
    """Return the fault of an entry that is not present: legacy mode has no reason of its own."""
    if mode == "legacy":
        return blocked(mode, "no_write" if write else "no_read")
    return blocked(mode, "absent")


# -- geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_levels(platform: Platform, mode: str, levels: int) -> None:
    space = tables(platform, mode, levels)
    last = (1 << 12 + 9 * levels) - 0x1000
    space.map(0, 0x7000)
    space.map(last, 0x8000)
    assert platform.read(0xFFF) == page(0x7000)
    assert platform.read(last | 0xABC) == page(0x8000)


@pytest.mark.parametrize(("level", "size"), [(1, 0x1000), (2, 2 * MEBI), (3, GIBI)])
def test_page_sizes(platform: Platform, mode: str, level: int, size: int) -> None:
    space = tables(platform, mode)
    space.map(3 * GIBI, 5 * GIBI, level)
    assert platform.read(3 * GIBI + size - 1) == Translation(5 * GIBI, size - 1)
    assert platform.read(3 * GIBI + size) == absent(mode, write=False)


@pytest.mark.parametrize(("level", "bit"), [(2, 0b01), (3, 0b10)])
def test_large_pages_need_the_capability(
    make_platform: MakePlatform, mode: str, level: int, bit: int
) -> None:
    for offered, expected in ((bit, "translated"), (0b11 & ~bit, "reserved")):
        platform = make_platform(sslps=offered)
        tables(platform, mode).map(0, GIBI, level)
        answer = platform.read(0)
        assert isinstance(answer, Translation) == (expected == "translated")
        assert expected == "translated" or answer == blocked(mode, "reserved")


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_the_input_is_bounded_by_the_table(platform: Platform, mode: str, levels: int) -> None:
    tables(platform, mode, levels).map(0, 0x7000)
    beyond = 1 << 12 + 9 * levels
    assert platform.read(beyond - 1) == absent(mode, write=False)
    assert platform.read(beyond) == blocked(mode, "beyond")


def test_the_input_is_bounded_by_the_guest_address_width(
    make_platform: MakePlatform, mode: str
) -> None:
    platform = make_platform(mgaw=40)
    tables(platform, mode).map((1 << 41) - 0x1000, 0x7000)
    assert platform.read((1 << 41) - 1) == page(0x7000)
    assert platform.read(1 << 41) == blocked(mode, "beyond")


# -- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_level_must_allow(platform: Platform, mode: str, level: int) -> None:
    space = tables(platform, mode)
    space.map(0x1000, 0x7000)
    space.change(0x1000, level, r=1, w=0)
    assert platform.read(0x1000) == page(0x7000)
    assert platform.write_to(0x1000) == blocked(mode, "no_write")
    space.change(0x1000, level, r=0, w=1)
    assert platform.write_to(0x1000) == page(0x7000)
    assert platform.request(0x1000).permitted[0].outcome == blocked(mode, "no_read")


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_an_entry_without_rights_is_not_present(platform: Platform, mode: str, level: int) -> None:
    space = tables(platform, mode)
    space.map(0x1000, 0x7000)
    space.change(0x1000, level, r=0, w=0)
    assert platform.read(0x1000) == absent(mode, write=False)
    assert platform.write_to(0x1000) == absent(mode, write=True)


def test_a_request_of_unknown_kind_is_whatever_may_succeed(platform: Platform, mode: str) -> None:
    space = tables(platform, mode)
    for iova, fields in ((0x1000, {"w": 0}), (0x2000, {"r": 0})):
        space.map(iova, 0x7000, **fields)
        assert platform.request(iova, AccessKind.UNKNOWN).taken == page(0x7000)
    assert platform.request(0x3000, AccessKind.UNKNOWN).taken == absent(mode, write=False)


def test_execute_permission_with_execute_enable(platform: Platform) -> None:
    space = platform.second_stage(pasid=1, ere=1, ssee=1)
    space.map(0x1000, 0x7000)
    for level in (2, 3, 4):
        space.change(0x1000, level, x=1)
    assert platform.execute(0x1000, pasid=1) == fault(Reason.SM_NO_EXECUTE)
    assert platform.read(0x1000, pasid=1) == page(0x7000)
    space.change(0x1000, 1, x=1)
    assert platform.execute(0x1000, pasid=1) == page(0x7000)


def test_execute_permission_is_ignored_without_execute_enable(platform: Platform) -> None:
    platform.second_stage(pasid=1, ere=1, ssee=0).map(0x1000, 0x7000)
    assert platform.execute(0x1000, pasid=1) == page(0x7000)


def test_an_entry_that_may_only_be_executed_is_present(platform: Platform) -> None:
    space = platform.second_stage(pasid=1, ere=1, ssee=1)
    space.map(0x1000, 0x7000, r=0, w=0, x=1)
    assert platform.read(0x1000, pasid=1) == fault(Reason.SM_NO_READ)
    assert platform.write_to(0x1000, pasid=1) == fault(Reason.SM_NO_WRITE)


# -- reserved bits -------------------------------------------------------------------------------

SNP, PS, TM = 11, 7, 62


@pytest.mark.parametrize(
    ("level", "bit"),
    [(level, bit) for level in (1, 2, 3, 4, 5) for bit in (SNP, HAW, 51)] + [(4, PS), (5, PS)],
)
def test_reserved_bits_of_table_entries(
    platform: Platform, mode: str, level: int, bit: int
) -> None:
    space = tables(platform, mode, 5)
    space.map(0x1000, 0x7000)
    at = space.entry(0x1000, level)
    platform.store(at, platform.load(at) | 1 << bit)
    assert platform.read(0x1000) == blocked(mode, "reserved")


@pytest.mark.parametrize(
    ("level", "bit"),
    [(level, bit) for level in (1, 2, 3) for bit in (SNP, HAW, 51, TM)]
    + [(2, 12), (2, 20), (3, 12), (3, 20), (3, 29)],
)
def test_reserved_bits_of_leaves(platform: Platform, mode: str, level: int, bit: int) -> None:
    space = tables(platform, mode)
    at = space.map(0, 4 * GIBI, level)
    assert isinstance(platform.read(0), Translation)
    platform.store(at, platform.load(at) | 1 << bit)
    assert platform.request(0).permitted[0].outcome == blocked(mode, "reserved")


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_snoop_bit_of_a_leaf_needs_the_capability(
    make_platform: MakePlatform, mode: str, level: int
) -> None:
    platform = make_platform(sc=1)
    tables(platform, mode).map(0, GIBI, level, snp=1)
    assert isinstance(platform.read(0), Translation)


@pytest.mark.parametrize("bit", [2, 3, 4, 5, 6, 7, 8, 9, 10, 52, 61, 63])
def test_ignored_bits_of_a_leaf(platform: Platform, mode: str, bit: int) -> None:
    space = tables(platform, mode)
    platform.store(space.entry(0x1000), space.value(0x7000) | 1 << bit)
    assert platform.read(0x1000) == page(0x7000)


def test_an_entry_that_is_not_present_may_have_reserved_bits(platform: Platform, mode: str) -> None:
    space = tables(platform, mode)
    platform.store(space.entry(0x1000), 1 << SNP | 1 << 51)
    assert platform.read(0x1000) == absent(mode, write=False)


def test_permission_is_tested_before_reserved_bits(platform: Platform, mode: str) -> None:
    space = tables(platform, mode)
    space.map(0x1000, 0x7000, w=0, snp=1)
    assert platform.write_to(0x1000) == blocked(mode, "no_write")
    assert platform.read(0x1000) == blocked(mode, "reserved")


# -- memory --------------------------------------------------------------------------------------


def test_a_root_table_that_cannot_be_read(make_platform: MakePlatform, mode: str) -> None:
    platform = make_platform(ram=True)
    tables(platform, mode, root=OUTSIDE)
    assert platform.read(0x1000) == blocked(mode, "root")


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_that_cannot_be_read(make_platform: MakePlatform, mode: str, level: int) -> None:
    platform = make_platform(ram=True)
    space = tables(platform, mode)
    platform.store(space.entry(0x1000, level), space.value(OUTSIDE))
    assert platform.read(0x1000) == blocked(mode, "access")


def test_the_output_may_be_outside_of_ram(make_platform: MakePlatform, mode: str) -> None:
    platform = make_platform(ram=True)
    tables(platform, mode).map(0x1000, OUTSIDE)
    assert platform.read(0x1000) == page(OUTSIDE)


@pytest.mark.parametrize("output", [0xFEE00000, 0xFEEFF000])
def test_output_in_the_interrupt_range(platform: Platform, mode: str, output: int) -> None:
    tables(platform, mode).map(0x1000, output)
    assert platform.write_to(0x1000) == blocked(mode, "interrupt")


def test_a_large_page_over_the_interrupt_range(platform: Platform, mode: str) -> None:
    tables(platform, mode).map(0, 3 * GIBI, level=3)
    assert platform.write_to(0x3EDFF000) == Translation(3 * GIBI, GIBI - 1)
    assert platform.write_to(0x3EE00000) == blocked(mode, "interrupt")


# -- accessed and dirty --------------------------------------------------------------------------


def flags(platform: Platform, space: Space, iova: int, level: int) -> tuple[int, int]:
    shape = layout(SecondStageEntry)
    entry = (platform.load(space.entry(iova, level)),)
    return shape["a"].get(entry), shape["d"].get(entry)


def test_accessed_and_dirty_with_the_bit_of_the_pasid_entry(platform: Platform) -> None:
    space = platform.second_stage(ssade=1)
    space.map(0x1000, 0x7000)
    platform.read(0x1000)
    assert [flags(platform, space, 0x1000, level) for level in (1, 2, 3, 4)] == [(1, 0)] * 4
    platform.write_to(0x1000)
    assert flags(platform, space, 0x1000, 1) == (1, 1)
    assert [flags(platform, space, 0x1000, level) for level in (2, 3, 4)] == [(1, 0)] * 3


def test_no_accessed_and_dirty_without_it(platform: Platform, mode: str) -> None:
    space = tables(platform, mode)
    space.map(0x1000, 0x7000)
    platform.write_to(0x1000)
    assert [flags(platform, space, 0x1000, level) for level in (1, 2, 3, 4)] == [(0, 0)] * 4


def test_a_request_that_faults_is_not_accounted(platform: Platform) -> None:
    space = platform.second_stage(ssade=1)
    space.map(0x1000, 0x7000, w=0)
    platform.write_to(0x1000)
    assert flags(platform, space, 0x1000, 1) == (0, 0)
