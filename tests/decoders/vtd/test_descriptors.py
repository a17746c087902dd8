"""Invalidation descriptors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.layout import layout
from decoders.vtd import (
    DESCRIPTORS,
    WIDE_ONLY,
    InvalidationWait,
    IotlbInvalidation,
    build,
    decode,
    descriptor_type,
    words,
)

ALL_ONES = 2**64 - 1
PFSID = 0xFFF0_0000_0000_F000
TYPE_HIGH = 0xE00
PD = 0x80

# QEMU hw/i386/intel_iommu_internal.h: VTD_INV_DESC_*_RSVD*, low and high quadword, and the bits
# in which QEMU and the layout differ.
QEMU = {
    1: (0xFFFC0000_0000F1C0, ALL_ONES, 0),
    2: (0xFFFFFFFF_0000F100, 0xF80, 0),
    # QEMU does not know PFSID: devices behind its unit have no virtual functions.
    3: (0xFFFF0000_FFE0F1F0, 0xFFE, PFSID),
    4: (0xFFFF0000_07FFF1E0, ALL_ONES, 0),
    # QEMU takes bits 31:8 of a wait for reserved and so includes the upper part of the type, which
    # makes the descriptor another, unknown one. 10.0 has PD reserved too: it lacks ECAP.PDS.
    5: (0xFFFFFF00, 0x3, TYPE_HIGH),
    6: (0xFFF00000_0000F1C0, 0xF80, 0),
    7: (0xFFF00000_0000F1C0, ALL_ONES, 0),
    8: (0xFFF00000_0000F000, 0x7FE, PFSID),
    9: (0xFFF00000_000001E0, 0xFFFFFFFF_FFFFF003, 0),
}


def test_every_defined_type_has_a_class() -> None:
    assert set(DESCRIPTORS) == set(range(1, 10))
    assert {6, 7, 8} == WIDE_ONLY


@pytest.mark.parametrize("code", QEMU)
def test_reserved_bits_are_those_of_qemu(code: int) -> None:
    low, high, difference = QEMU[code]
    assert layout(DESCRIPTORS[code]).reserved == (low & ~difference, high)
    assert low & difference == difference


def test_qemu_10_0_has_page_drain_reserved() -> None:
    low, _ = layout(InvalidationWait).reserved
    assert low | TYPE_HIGH | PD == 0xFFFFFF80
    assert layout(InvalidationWait)["pd"].mask == PD


@pytest.mark.parametrize("code", DESCRIPTORS)
def test_the_type_is_in_one_place_everywhere(code: int) -> None:
    place = layout(DESCRIPTORS[code])
    assert place.size == 16
    assert (place["type"].mask, place["type_high"].mask) == (0xF, TYPE_HIGH)


@given(low=st.integers(0, ALL_ONES))
def test_the_type_has_seven_bits(low: int) -> None:
    assert descriptor_type(low) == low % 16 + (low >> 9) % 8 * 16


def test_a_type_beyond_fifteen_is_none_of_the_defined() -> None:
    assert descriptor_type(0x202) == 0x12
    assert descriptor_type(0xE0F) == 0x7F


def test_descriptors_as_linux_queues_them() -> None:
    flush = decode(IotlbInvalidation, (0x0000_0000_0012_00F2, 0xFFFF_F000 | 0x42), "queue[0]")
    assert (flush.type, flush.g, flush.dw, flush.dr, flush.did) == (2, 3, 1, 1, 0x12)
    assert (flush.am, flush.ih, flush.addr) == (2, 1, 0xFFFFF)
    wait = build(InvalidationWait, type=5, sw=1, fn=1, stdata=2, staddr=0x1234_5678 >> 2)
    assert words(wait) == (0x2_0000_0065, 0x1234_5678)
