"""First- and second-stage paging entries and the geometry of the walk (VT-d 9.7 to 9.9).

Levels count from 1, the table whose entries map 4 KiB pages. The tables of reserved bits leave out
what depends on the unit: address bits at or above the host address width, SNP_MASK and TM_MASK.
"""

from __future__ import annotations

from decoders.fields import Structure, quadwords
from decoders.layout import layout


class FirstStageEntry(Structure):
    """Map or link in first-stage translation, the x86-64 format (VT-d 9.7).

    ps is PAT in a level 1 entry. In a large leaf bit 12, the lowest of addr, is PAT.
    """

    fields_desc = quadwords(
        [
            ("p", 1),
            ("rw", 1),
            ("us", 1),
            ("pwt", 1),
            ("pcd", 1),
            ("a", 1),
            ("d", 1),
            ("ps", 1),
            ("g", 1),
            ("ignored", 1),
            ("ea", 1),
            ("ignored", 1),
            ("addr", 40),
            ("ignored", 11),
            ("xd", 1),
        ],
    )


class SecondStageEntry(Structure):
    """Map or link in second-stage translation (VT-d 9.8; Linux generic_pt/fmt/vtdss.h)."""

    fields_desc = quadwords(
        [
            ("r", 1),
            ("w", 1),
            ("x", 1),
            ("emt", 3),
            ("ipat", 1),
            ("ps", 1),
            ("a", 1),
            ("d", 1),
            ("ignored", 1),
            ("snp", 1),
            ("addr", 40),
            ("ignored", 10),
            ("tm", 1),
            ("ignored", 1),
        ],
    )


PAGE_BITS = 12
INDEX_BITS = 9
ENTRY_SIZE = 8
LARGEST_LEAF = 3
"""Level of the largest page, 1 GiB; CAP.SSLPS and CAP.FS1GP say which large pages a unit has."""

PAGE_SHIFT = {level: PAGE_BITS + INDEX_BITS * (level - 1) for level in range(1, 6)}
"""Lowest bit of the index of each level, and log2 of the bytes one entry maps."""


def entry_index(address: int, level: int) -> int:
    """Return which entry of a table of this level translates the address."""
    return address >> PAGE_SHIFT[level] & ((1 << INDEX_BITS) - 1)


def page_mask(level: int) -> int:
    """Cover the bits of an address that stay untranslated by a leaf of this level."""
    return (1 << PAGE_SHIFT[level]) - 1


_FIRST = layout(FirstStageEntry)
_SECOND = layout(SecondStageEntry)

LARGE_PAT_MASK = 1 << PAGE_BITS
"""PAT of a first-stage large leaf: the one address bit below its page size with a meaning."""

SNP_MASK = _SECOND["snp"].mask
"""SNP is reserved in a second-stage leaf of a unit without snoop control (ECAP.SC = 0).

QEMU also tolerates it in scalable mode (vtd_spte_rsvd).
"""

TM_MASK = _SECOND["tm"].mask
"""TM is reserved in a second-stage leaf since revision 3.2 (QEMU: option stale-tm).

In an entry that leads to a table its bit was reserved before (QEMU VTD_SPTE_*_RSVD_MASK).
"""


def _offset_bits(level: int) -> int:
    return page_mask(level) & ~page_mask(1)


# VT-d 9.7 (Intel SDM 4.5) and QEMU VTD_FPTE_*_RSVD_MASK. Where ps can be a leaf bit it is clear in
# a table entry by definition, so nothing is left to check. XD is reserved while PASID.NXE = 0
# (VirtualBox); QEMU ignores bits 63:52.
RESERVED_FIRST_STAGE: dict[tuple[int, bool], int] = {
    (5, False): _FIRST["ps"].mask,
    (4, False): _FIRST["ps"].mask,
    (3, False): 0,
    (2, False): 0,
    (3, True): _offset_bits(3) & ~LARGE_PAT_MASK,
    (2, True): _offset_bits(2) & ~LARGE_PAT_MASK,
    (1, True): 0,
}
"""Reserved bits of a first-stage entry by (level, whether it is a leaf)."""

# VT-d 9.8 and QEMU VTD_SPTE_*_RSVD_MASK, which lists SNP everywhere and takes it out again for
# leaves. QEMU 10.2 has no level 5; its entry follows level 4 (VirtualBox).
RESERVED_SECOND_STAGE: dict[tuple[int, bool], int] = {
    (5, False): _SECOND["ps"].mask | SNP_MASK,
    (4, False): _SECOND["ps"].mask | SNP_MASK,
    (3, False): SNP_MASK,
    (2, False): SNP_MASK,
    (3, True): _offset_bits(3),
    (2, True): _offset_bits(2),
    (1, True): 0,
}
"""Reserved bits of a second-stage entry by (level, whether it is a leaf)."""
