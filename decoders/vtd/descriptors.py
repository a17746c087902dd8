"""Invalidation queue descriptors (VT-d 6.5.2).

All are given in their 128-bit form. A 256-bit queue (IQA.DW) carries the same two quadwords and
two more that are reserved. The type is split over two fields; type_high is zero in every type
defined so far, so a set bit there makes another, unknown type.
"""

from __future__ import annotations

from enum import IntEnum

from decoders.fields import Structure, quadwords
from decoders.layout import layout


class DescriptorType(IntEnum):
    """Name the types of descriptors."""

    CONTEXT_CACHE = 1
    IOTLB = 2
    DEVICE_TLB = 3
    INTERRUPT_ENTRY_CACHE = 4
    WAIT = 5
    PASID_IOTLB = 6
    PASID_CACHE = 7
    PASID_DEVICE_TLB = 8
    PAGE_GROUP_RESPONSE = 9


class ContextCacheInvalidation(Structure):
    """Drop context entries: g 1 all, 2 of a domain, 3 of a function (VT-d 6.5.2.1)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("g", 2),
            ("reserved", 3),
            ("type_high", 3),
            ("reserved", 4),
            ("did", 16),
            ("sid", 16),
            ("fm", 2),
            ("reserved", 14),
        ],
        [("reserved", 64)],
    )


IGNORED_FUNCTION_BITS = (0, 4, 6, 7)
"""Bits of a source id that a context-cache invalidation does not compare, by FM."""


class IotlbInvalidation(Structure):
    """Drop translations: g 1 all, 2 of a domain, 3 of 2^am pages (VT-d 6.5.2.3)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("g", 2),
            ("dw", 1),
            ("dr", 1),
            ("reserved", 1),
            ("type_high", 3),
            ("reserved", 4),
            ("did", 16),
            ("reserved", 32),
        ],
        [("am", 6), ("ih", 1), ("reserved", 5), ("addr", 52)],
    )


class DeviceTlbInvalidation(Structure):
    """Make a device drop translations (VT-d 6.5.2.5; Linux QI_DEV_EIOTLB_*).

    With s = 1 the lowest clear bit of addr gives the size. QEMU takes the two parts of PFSID for
    reserved.
    """

    fields_desc = quadwords(
        [
            ("type", 4),
            ("reserved", 5),
            ("type_high", 3),
            ("pfsid_low", 4),
            ("mip", 5),
            ("reserved", 11),
            ("sid", 16),
            ("reserved", 4),
            ("pfsid_high", 12),
        ],
        [("s", 1), ("reserved", 11), ("addr", 52)],
    )


class InterruptEntryCacheInvalidation(Structure):
    """Drop interrupt remapping entries: g 0 all, 1 the 2^im from iidx on (VT-d 6.5.2.7)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("g", 1),
            ("reserved", 4),
            ("type_high", 3),
            ("reserved", 15),
            ("im", 5),
            ("iidx", 16),
            ("reserved", 16),
        ],
        [("reserved", 64)],
    )


class InvalidationWait(Structure):
    """Report that everything before it is done (VT-d 6.5.2.8; Linux QI_IWD_*).

    iflag (IF) raises the completion event, sw stores stdata at staddr * 4, fn fences, pd drains
    page requests (reserved without ECAP.PDS).
    """

    fields_desc = quadwords(
        [
            ("type", 4),
            ("iflag", 1),
            ("sw", 1),
            ("fn", 1),
            ("pd", 1),
            ("reserved", 1),
            ("type_high", 3),
            ("reserved", 20),
            ("stdata", 32),
        ],
        [("reserved", 2), ("staddr", 62)],
    )


class PasidIotlbInvalidation(Structure):
    """Drop translations of a PASID: g 2 all of them, 3 of 2^am pages (VT-d 6.5.2.4)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("g", 2),
            ("reserved", 3),
            ("type_high", 3),
            ("reserved", 4),
            ("did", 16),
            ("pasid", 20),
            ("reserved", 12),
        ],
        [("am", 6), ("ih", 1), ("reserved", 5), ("addr", 52)],
    )


class PasidCacheInvalidation(Structure):
    """Drop PASID entries: g 0 of a domain, 1 of a PASID in it, 3 all (VT-d 6.5.2.2)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("g", 2),
            ("reserved", 3),
            ("type_high", 3),
            ("reserved", 4),
            ("did", 16),
            ("pasid", 20),
            ("reserved", 12),
        ],
        [("reserved", 64)],
    )


class PasidDeviceTlbInvalidation(Structure):
    """Make a device drop translations of a PASID, or with g = 1 of all (VT-d 6.5.2.6)."""

    fields_desc = quadwords(
        [
            ("type", 4),
            ("mip", 5),
            ("type_high", 3),
            ("pfsid_low", 4),
            ("sid", 16),
            ("pasid", 20),
            ("pfsid_high", 12),
        ],
        [("g", 1), ("reserved", 10), ("s", 1), ("addr", 52)],
    )


class PageGroupResponse(Structure):
    """Answer a page request group: rc 0 success, 1 invalid, 15 failure (VT-d 7.7.1).

    lpig is left from revision 3.0; nothing checks it.
    """

    fields_desc = quadwords(
        [
            ("type", 4),
            ("pp", 1),
            ("reserved", 4),
            ("type_high", 3),
            ("rc", 4),
            ("rid", 16),
            ("pasid", 20),
            ("reserved", 12),
        ],
        [("reserved", 2), ("lpig", 1), ("prgi", 9), ("reserved", 52)],
    )


DESCRIPTORS: dict[int, type[Structure]] = {
    DescriptorType.CONTEXT_CACHE: ContextCacheInvalidation,
    DescriptorType.IOTLB: IotlbInvalidation,
    DescriptorType.DEVICE_TLB: DeviceTlbInvalidation,
    DescriptorType.INTERRUPT_ENTRY_CACHE: InterruptEntryCacheInvalidation,
    DescriptorType.WAIT: InvalidationWait,
    DescriptorType.PASID_IOTLB: PasidIotlbInvalidation,
    DescriptorType.PASID_CACHE: PasidCacheInvalidation,
    DescriptorType.PASID_DEVICE_TLB: PasidDeviceTlbInvalidation,
    DescriptorType.PAGE_GROUP_RESPONSE: PageGroupResponse,
}
"""Descriptor types that are defined; any other is QueueError.TYPE."""

WIDE_ONLY = frozenset(
    (DescriptorType.PASID_IOTLB, DescriptorType.PASID_CACHE, DescriptorType.PASID_DEVICE_TLB)
)
"""Types that exist only in a queue of 256-bit descriptors."""

DESCRIPTOR_SIZES = (16, 32)
"""Bytes of a descriptor by IQA.DW."""

_TYPE = layout(InvalidationWait)["type"]
_TYPE_HIGH = layout(InvalidationWait)["type_high"]


def descriptor_type(low: int) -> int:
    """Return the type in the lowest quadword of a descriptor: bits 3:0, then 11:9."""
    return _TYPE.get((low,)) | _TYPE_HIGH.get((low,)) << _TYPE.width
