"""Root, context and PASID tables."""

from __future__ import annotations

import pytest

from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    decode,
)

ALL_ONES = 2**64 - 1


# QEMU hw/i386/intel_iommu_internal.h, without the bits above the host address width. It does not
# check q2 and q3 of a scalable context entry in a mask, nor the PASID tables.
@pytest.mark.parametrize(
    ("cls", "reserved"),
    [
        (RootEntry, (0xFFE, ALL_ONES)),
        (ScalableRootEntry, (0xFFE, 0xFFE)),
        (ContextEntry, (0xFF0, 0xFFFFFFFF_FF000080)),
        (ScalableContextEntry, (0x1E0, 0xFFFFFFFF_FFE00000, ALL_ONES, ALL_ONES)),
        (PasidDirectoryEntry, (0xFFC,)),
        (PasidEntry, (0xC00, 0x7F0000, 0xF00, *[ALL_ONES] * 5)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_reserved_bits(cls: type[Structure], reserved: tuple[int, ...]) -> None:
    assert layout(cls).reserved == reserved


def test_the_bits_software_may_use_are_ignored() -> None:
    assert layout(ContextEntry).ignored == (0, 0x78)


def test_a_context_entry_as_linux_writes_it() -> None:
    entry = decode(ContextEntry, (0x0000_0001_0234_5001, 0x0000_0000_0000_1202), "context")
    assert (entry.p, entry.fpd, entry.tt, entry.ssptptr) == (1, 0, 0, 0x102345)
    assert (entry.aw, entry.did) == (2, 0x12)
    assert layout(ContextEntry)["ssptptr"].address((0x0000_0001_0234_5001, 0)) == 0x1_0234_5000
