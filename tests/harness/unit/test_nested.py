"""The nested walk: a first stage that lives in the second stage's input (VT-d 3.8)."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, Translation
from decoders.vtd.faults import Reason
from tests.harness.unit.conftest import MakePlatform
from tests.writers.nested import GUEST, Nested, nested
from tests.writers.platform import (
    EXECUTE,
    OUTSIDE,
    PAGE,
    READ,
    WRITE,
    Platform,
    fault,
    page,
)

HOST = 0x20_0000
MEBI = 1 << 20
A, D = 1 << 5, 1 << 6
"""Bits of a first-stage entry; those of a second-stage one are three higher."""


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    return make_platform(nest=1, srs=1, mgaw=47)


@pytest.fixture
def space(platform: Platform) -> Nested:
    """PASID 1 with one page."""
    made = nested(platform)
    made.map(0x1000, HOST)
    return made


def ask(platform: Platform, kind: AccessKind = READ, iova: int = 0x1000) -> object:
    return platform.request(iova, kind, pasid=1).taken


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("host_levels", [3, 4, 5])
def test_both_stages_translate(make_platform: MakePlatform, levels: int, host_levels: int) -> None:
    platform = make_platform(nest=1)
    space = nested(platform, levels=levels, host_levels=host_levels)
    space.map(0x7000, HOST)
    assert platform.read(0x7ABC, pasid=1) == page(HOST)
    assert platform.write_to(0x7ABC, pasid=1) == page(HOST)


@pytest.mark.parametrize(("nest", "dialect"), [(0, "spec"), (1, "qemu")])
def test_a_unit_without_nested_translation(
    make_platform: MakePlatform, nest: int, dialect: str
) -> None:
    platform = make_platform(nest=nest, dialect=dialect)
    nested(platform).map(0x1000, HOST)
    assert ask(platform) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize(
    "field", [{"aw": 0}, {"aw": 4}, {"fspm": 2}, {"ssade": 1}], ids=lambda field: str(field)
)
def test_either_stage_can_make_the_entry_invalid(
    make_platform: MakePlatform, field: dict[str, int]
) -> None:
    platform = make_platform(nest=1, ssads=0)
    nested(platform, **field).map(0x1000, HOST)
    assert ask(platform) == fault(Reason.PASID_INVALID)


# -- page sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "host_level", "mask"),
    [(1, 1, PAGE - 1), (1, 2, PAGE - 1), (2, 1, PAGE - 1), (2, 2, 2 * MEBI - 1),
     (2, 3, 2 * MEBI - 1), (3, 2, 2 * MEBI - 1)],
)  # fmt: skip
def test_the_smaller_page_counts(
    platform: Platform, level: int, host_level: int, mask: int
) -> None:
    space = nested(platform)
    space.map(0, HOST, level=level)
    host = 1 << 12 + 9 * (host_level - 1)
    space.second.map(GUEST, 4 * host, host_level)
    assert ask(platform, READ, 0x234) == Translation(4 * host, mask)


def test_the_first_stage_picks_the_part_of_a_large_host_page(platform: Platform) -> None:
    space = nested(platform)
    space.map(0x1000, HOST)
    space.second.map(GUEST, 8 * MEBI, level=2)
    assert ask(platform) == page(8 * MEBI + 0x1000)


# -- tables of the first stage -------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_table_that_the_second_stage_does_not_map(space: Nested, level: int) -> None:
    space.second.unmap(space.tables(0x1000)[4 - level])
    assert ask(space.first.platform) == fault(Reason.SM_SS_NOT_PRESENT)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_table_that_the_second_stage_does_not_let_read(space: Nested, level: int) -> None:
    space.second.change(space.tables(0x1000)[4 - level], r=0)
    expected = Reason.FS_ROOT_NO_READ if level == 4 else Reason.FS_TABLE_NO_READ
    assert ask(space.first.platform) == fault(expected)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_table_that_must_be_marked_but_not_written(space: Nested, level: int) -> None:
    space.second.change(space.tables(0x1000)[4 - level], w=0)
    assert ask(space.first.platform) == fault(Reason.FS_TABLE_NO_WRITE)
    space.first.change(0x1000, level, a=1)
    assert ask(space.first.platform) == page(HOST)


def test_a_dirty_bit_needs_the_right_too(space: Nested) -> None:
    platform = space.first.platform
    space.first.change(0x1000, a=1)
    space.second.change(space.tables(0x1000)[-1], w=0)
    assert ask(platform, READ) == page(HOST)
    assert ask(platform, WRITE) == fault(Reason.FS_TABLE_NO_WRITE)


@pytest.mark.parametrize("bit", [7, 51])
def test_reserved_bits_on_the_way_to_a_table(space: Nested, bit: int) -> None:
    at = space.second.entry(space.tables(0x1000)[1], level=4)
    space.first.platform.store(at, space.first.platform.load(at) | 1 << bit)
    assert ask(space.first.platform) == fault(Reason.SM_SS_RESERVED)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_beyond_the_second_stage(make_platform: MakePlatform, level: int) -> None:
    platform = make_platform(nest=1)
    space = nested(platform, host_levels=3)
    space.map(0x1000, HOST)
    platform.store(space.first.entry(0x1000, level), space.first.value(1 << 39))
    assert ask(platform) == fault(Reason.FS_TABLE_BEYOND_SECOND_STAGE)


def test_a_root_table_beyond_the_second_stage(make_platform: MakePlatform) -> None:
    platform = make_platform(nest=1)
    nested(platform, host_levels=3, fsptptr=1 << 27)
    assert ask(platform) == fault(Reason.FS_TABLE_BEYOND_SECOND_STAGE)


def test_tables_of_either_stage_that_cannot_be_read(make_platform: MakePlatform) -> None:
    platform = make_platform(nest=1, ram=True)
    space = nested(platform, ssptptr=OUTSIDE >> 12)
    assert ask(platform) == fault(Reason.SM_SS_ROOT_ACCESS)
    space = nested(platform, pasid=2)
    space.map(0x1000, HOST)
    root, table = space.tables(0x1000)[:2]
    at = space.second.entry(root, 2)
    good = platform.load(at)
    platform.store(at, space.second.value(OUTSIDE))
    assert platform.read(0x1000, pasid=2) == fault(Reason.SM_SS_ACCESS)
    platform.store(at, good)
    space.second.map(table, OUTSIDE)
    assert platform.read(0x1000, pasid=2) == fault(Reason.FS_ACCESS)
    space.second.map(root, OUTSIDE)
    assert platform.read(0x1000, pasid=2) == fault(Reason.FS_ROOT_ACCESS)


# -- what the leaf says --------------------------------------------------------------------------


def test_the_page_beyond_the_second_stage(make_platform: MakePlatform) -> None:
    platform = make_platform(nest=1)
    space = nested(platform, host_levels=3)
    space.map(0x1000, HOST)
    space.first.map(0x1000, 1 << 39)
    assert ask(platform) == fault(Reason.SM_SS_BEYOND_WIDTH)


def test_the_page_is_not_mapped(space: Nested) -> None:
    space.second.unmap(GUEST + 0x1000)
    assert ask(space.first.platform) == fault(Reason.SM_SS_NOT_PRESENT)


def test_both_stages_must_allow_a_write(space: Nested) -> None:
    platform = space.first.platform
    space.second.change(GUEST + 0x1000, w=0)
    assert ask(platform, WRITE) == fault(Reason.SM_NO_WRITE)
    space.second.change(GUEST + 0x1000, w=1, r=0)
    assert ask(platform, READ) == fault(Reason.SM_NO_READ)
    assert ask(platform, WRITE) == page(HOST)
    space.first.change(0x1000, rw=0)
    assert ask(platform, WRITE) == fault(Reason.SM_NO_WRITE)


def test_both_stages_must_allow_execution(platform: Platform) -> None:
    space = nested(platform, ere=1, nxe=1, ssee=1)
    space.map(0x1000, HOST)
    assert ask(platform, EXECUTE) == fault(Reason.SM_NO_EXECUTE)
    for level in (1, 2, 3, 4):
        space.second.change(GUEST + 0x1000, level, x=1)
    assert ask(platform, EXECUTE) == page(HOST)
    space.first.change(0x1000, xd=1)
    assert ask(platform, EXECUTE) == fault(Reason.SM_NO_EXECUTE)


def test_the_first_stage_is_asked_before_the_second(space: Nested) -> None:
    space.first.change(0x1000, us=0)
    space.second.unmap(GUEST + 0x1000)
    assert ask(space.first.platform) == fault(Reason.FS_USER)


def test_only_what_the_second_stage_gives_can_be_in_the_interrupt_range(platform: Platform) -> None:
    space = nested(platform)
    space.map(0x1000, HOST)
    space.first.map(0x1000, 0xFEE0_0000)
    space.second.map(0xFEE0_0000, HOST)
    assert ask(platform) == page(HOST)
    space.second.map(0xFEE0_0000, 0xFEE0_0000)
    assert ask(platform) == fault(Reason.SM_INTERRUPT_RANGE)


# -- accessed and dirty bits ---------------------------------------------------------------------


def test_each_stage_marks_what_it_used(platform: Platform) -> None:
    space = nested(platform, ssade=1)
    space.map(0x1000, HOST)
    assert ask(platform, READ) == page(HOST)
    for level in (1, 2, 3, 4):
        assert platform.load(space.first.entry(0x1000, level)) & (A | D) == A
        table = space.tables(0x1000)[4 - level]
        # The first stage's A bit is a write to its table.
        assert platform.load(space.second.entry(table)) & (A | D) << 3 == (A | D) << 3
    assert platform.load(space.second.entry(GUEST + 0x1000)) & (A | D) << 3 == A << 3
    assert ask(platform, WRITE) == page(HOST)
    assert platform.load(space.first.entry(0x1000)) & (A | D) == A | D
    assert platform.load(space.second.entry(GUEST + 0x1000)) & (A | D) << 3 == (A | D) << 3


def test_a_table_that_needs_no_mark_stays_clean(platform: Platform) -> None:
    space = nested(platform, ssade=1)
    space.map(0x1000, HOST, a=1)
    for level in (2, 3, 4):
        space.first.change(0x1000, level, a=1)
    assert ask(platform, READ) == page(HOST)
    for table in space.tables(0x1000):
        assert platform.load(space.second.entry(table)) & (A | D) << 3 == A << 3


def test_a_walk_that_faults_marks_nothing(platform: Platform) -> None:
    space = nested(platform, ssade=1)
    space.map(0x1000, HOST)
    space.second.unmap(GUEST + 0x1000)
    assert ask(platform, READ) == fault(Reason.SM_SS_NOT_PRESENT)
    assert not platform.load(space.first.entry(0x1000)) & A
    assert not platform.load(space.second.entry(space.tables(0x1000)[0])) & A << 3


def test_the_extended_accessed_bit(platform: Platform) -> None:
    space = nested(platform, eafe=1)
    space.map(0x1000, HOST)
    assert ask(platform, READ) == page(HOST)
    assert platform.load(space.first.entry(0x1000)) & 1 << 10
