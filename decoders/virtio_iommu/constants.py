"""Numbers of virtio-iommu (virtio 1.4, 5.13; Linux 7.2 include/uapi/linux/virtio_iommu.h)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

VIRTIO_ID_IOMMU: Final = 23

PCI_VENDOR_ID: Final = 0x1AF4
PCI_DEVICE_ID: Final = 0x1040 + VIRTIO_ID_IOMMU
"""Of a virtio device that has never had a legacy interface (virtio 1.4, 4.1.2)."""

REQUEST_QUEUE: Final = 0
EVENT_QUEUE: Final = 1


class Feature(IntFlag):
    """Flag what the device offers and the driver accepts (5.13.3)."""

    INPUT_RANGE = 1 << 0
    DOMAIN_RANGE = 1 << 1
    MAP_UNMAP = 1 << 2
    BYPASS = 1 << 3
    PROBE = 1 << 4
    MMIO = 1 << 5
    BYPASS_CONFIG = 1 << 6
    """Drafts of 2019 and 2020 used the same bit for a topology description (see `topology`)."""


class GeneralFeature(IntFlag):
    """Flag what devices of every type may offer (virtio 1.4, 6)."""

    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    ORDER_PLATFORM = 1 << 36
    SR_IOV = 1 << 37
    NOTIFICATION_DATA = 1 << 38
    NOTIF_CONFIG_DATA = 1 << 39
    RING_RESET = 1 << 40
    ADMIN_VQ = 1 << 41


class RequestType(IntEnum):
    """Number the requests (5.13.6)."""

    ATTACH = 1
    DETACH = 2
    MAP = 3
    UNMAP = 4
    PROBE = 5


class Status(IntEnum):
    """Number the answers in the tail of a request (5.13.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2
    DEVERR = 3
    INVAL = 4
    RANGE = 5
    NOENT = 6
    FAULT = 7
    NOMEM = 8


class AttachFlag(IntFlag):
    """Flag an ATTACH request; BYPASS needs `Feature.BYPASS_CONFIG`."""

    BYPASS = 1 << 0


class MapFlag(IntFlag):
    """Flag a MAP request; MMIO needs `Feature.MMIO`."""

    READ = 1 << 0
    WRITE = 1 << 1
    MMIO = 1 << 2


class PropertyType(IntEnum):
    """Number the properties that PROBE returns; NONE ends them (5.13.6.8)."""

    NONE = 0
    RESV_MEM = 1


PROPERTY_TYPE_MASK: Final = 0xFFF
"""Bits of a property's type field; a driver ignores a property with others set."""


class ResvSubtype(IntEnum):
    """Number the kinds of reserved memory; a driver takes any other for RESERVED."""

    RESERVED = 0
    MSI = 1


class FaultReason(IntEnum):
    """Number what a fault report complains of; a driver takes any other for UNKNOWN (5.13.6.9)."""

    UNKNOWN = 0
    DOMAIN = 1
    MAPPING = 2


class FaultFlag(IntFlag):
    """Flag a fault report; EXEC is in the headers of Linux and QEMU, not in the specification."""

    READ = 1 << 0
    WRITE = 1 << 1
    EXEC = 1 << 2
    ADDRESS = 1 << 8
