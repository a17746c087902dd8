"""Paging entries and the geometry of the walk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.vtd import paging
from decoders.vtd.paging import (
    RESERVED_FIRST_STAGE,
    RESERVED_SECOND_STAGE,
    SNP_MASK,
    TM_MASK,
    entry_index,
    page_mask,
)

ENTRIES = {(level, False) for level in range(2, 6)} | {(level, True) for level in range(1, 4)}


def test_the_tables_cover_every_kind_of_entry() -> None:
    assert set(RESERVED_FIRST_STAGE) == ENTRIES
    assert set(RESERVED_SECOND_STAGE) == ENTRIES


# QEMU VTD_FPTE_*_RSVD_MASK, without the bits above the host address width.
@pytest.mark.parametrize(
    ("level", "leaf", "reserved"),
    [
        (1, True, 0),
        (2, False, 0),
        (3, False, 0),
        (4, False, 0x80),
        (2, True, 0x1FE000),
        (3, True, 0x3FFFE000),
    ],
)
def test_first_stage_reserved_bits(level: int, leaf: bool, reserved: int) -> None:
    assert RESERVED_FIRST_STAGE[level, leaf] == reserved


# QEMU VTD_SPTE_*_RSVD_MASK, likewise, where a leaf has SNP reserved.
@pytest.mark.parametrize(
    ("level", "leaf", "reserved"),
    [
        (1, True, 0x800),
        (2, False, 0x800),
        (3, False, 0x800),
        (4, False, 0x880),
        (2, True, 0x1FF800),
        (3, True, 0x3FFFF800),
    ],
)
def test_second_stage_reserved_bits(level: int, leaf: bool, reserved: int) -> None:
    found = RESERVED_SECOND_STAGE[level, leaf]
    assert found | (SNP_MASK if leaf else 0) == reserved
    assert bool(found & SNP_MASK) is not leaf


@pytest.mark.parametrize("table", [RESERVED_FIRST_STAGE, RESERVED_SECOND_STAGE])
def test_level_5_is_like_level_4(table: dict[tuple[int, bool], int]) -> None:
    assert table[5, False] == table[4, False]


def test_unit_dependent_masks() -> None:
    assert SNP_MASK == 1 << 11
    assert TM_MASK == 1 << 62


def test_the_index_bits_of_each_level() -> None:
    assert paging.PAGE_SHIFT == {1: 12, 2: 21, 3: 30, 4: 39, 5: 48}
    assert [page_mask(level) for level in (1, 2, 3)] == [0xFFF, 0x1FFFFF, 0x3FFFFFFF]


@given(st.integers(0, 2**57 - 1))
def test_the_indices_and_the_offset_make_the_address(address: int) -> None:
    parts = sum(entry_index(address, level) << paging.PAGE_SHIFT[level] for level in range(1, 6))
    assert parts | address & page_mask(1) == address
