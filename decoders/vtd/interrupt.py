"""Interrupt remapping (VT-d 5.1 and 9.10)."""

from __future__ import annotations

from decoders.fields import Structure, doubleword, quadwords
from decoders.layout import layout

INTERRUPT_FIRST, INTERRUPT_LAST = 0xFEE0_0000, 0xFEEF_FFFF
"""Addresses that are taken for interrupt requests (VT-d 3.15)."""


class InterruptRemapEntry(Structure):
    """Describe one remapped interrupt, im = 0 (VT-d 9.10; Linux struct irte).

    With IRTA.EIME = 0 only bits 15:8 of dst are used (the xAPIC id) and the others are reserved.
    """

    fields_desc = quadwords(
        [
            ("p", 1),
            ("fpd", 1),
            ("dm", 1),
            ("rh", 1),
            ("tm", 1),
            ("dlm", 3),
            ("avail", 4),
            ("reserved", 3),
            ("im", 1),
            ("vector", 8),
            ("reserved", 8),
            ("dst", 32),
        ],
        [("sid", 16), ("sq", 2), ("svt", 2), ("reserved", 44)],
    )


class PostedInterruptEntry(Structure):
    """Describe one posted interrupt, im = 1 (VT-d 9.11; Linux struct irte).

    The posted descriptor is at pda_high * 2^32 + pda_low * 64.
    """

    fields_desc = quadwords(
        [
            ("p", 1),
            ("fpd", 1),
            ("reserved", 6),
            ("avail", 4),
            ("reserved", 2),
            ("urg", 1),
            ("im", 1),
            ("vector", 8),
            ("reserved", 14),
            ("pda_low", 26),
        ],
        [("sid", 16), ("sq", 2), ("svt", 2), ("reserved", 12), ("pda_high", 32)],
    )


class PostedInterruptDescriptor(Structure):
    """Collect the interrupts posted to one processor (VT-d 9.12; Linux struct pi_desc).

    A vector is bit `vector % 64` of pir0 to pir3. on says that a notification, vector nv to ndst,
    is under way; sn suppresses those that are not urgent.
    """

    fields_desc = quadwords(
        [("pir0", 64)],
        [("pir1", 64)],
        [("pir2", 64)],
        [("pir3", 64)],
        [
            ("on", 1),
            ("sn", 1),
            ("reserved", 14),
            ("nv", 8),
            ("reserved", 8),
            ("ndst", 32),
        ],
        [("reserved", 64)],
        [("reserved", 64)],
        [("reserved", 64)],
    )


class RemappableAddress(Structure):
    """Take apart the address of a remappable message (VT-d 5.1.2.2).

    The message is one when fee is 0xfee and format 1; its index is handle_high * 2^15 + handle_low
    plus, with shv, the low half of the data.
    """

    fields_desc = doubleword(
        ("ignored", 2),
        ("handle_high", 1),
        ("shv", 1),
        ("format", 1),
        ("handle_low", 15),
        ("fee", 12),
    )


_ADDRESS = layout(RemappableAddress)
SUBHANDLE_MASK = 0xFFFF
"""The bits of a message's data that are a subhandle; the others are reserved with shv."""


def message_index(address: int, data: int) -> int | None:
    """Return the index that a message names (VT-d 5.1.3), None in the compatibility format.

    The sum of handle and subhandle may have 17 bits.
    """
    word = (address & (1 << 32) - 1,)
    if not _ADDRESS["format"].get(word):
        return None
    low = _ADDRESS["handle_low"]
    index = _ADDRESS["handle_high"].get(word) << low.width | low.get(word)
    return index + (data & SUBHANDLE_MASK if _ADDRESS["shv"].get(word) else 0)
