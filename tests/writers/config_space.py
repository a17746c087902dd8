"""Write config spaces of a virtio-iommu field by field, so that any of them can be wrong.

Nothing of the decoders is used: formats are given by struct.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FIXED = struct.pack("<QQQIII", 0xFFFF_F000, 0, (1 << 48) - 1, 0, (1 << 32) - 1, 512)


def plain(bypass: int = 0, reserved: bytes = bytes(3)) -> bytes:
    return FIXED + struct.pack("<B3s", bypass, reserved)


# --- V1, November 2019: a linked list ------------------------------------------------------------


def v1(data: bytes, offset: int = 40, reserved: int = 0) -> bytes:
    return FIXED + struct.pack("<HH", offset, reserved) + data


def v1_pci(
    following: int, endpoint: int = 0, segment: int = 0, first: int = 0, last: int = 0xFFFF
) -> bytes:
    return struct.pack("<HHIHHHH", 0, following, endpoint, segment, first, last, 0)


def v1_mmio(following: int, endpoint: int, address: int) -> bytes:
    return struct.pack("<HHIQ", 1, following, endpoint, address)


# --- V2, February 2020: an array -----------------------------------------------------------------


def v2(
    items: Sequence[bytes], offset: int = 48, count: int | None = None, length: int = 16
) -> bytes:
    count = len(items) if count is None else count
    padded = b"".join(item.ljust(length, b"\0") for item in items)
    return FIXED + struct.pack("<III", offset, count, length) + padded


def v2_pci(endpoint: int = 0, segment: int = 0, first: int = 0, last: int = 0xFFFF) -> bytes:
    return struct.pack("<HHHHI", 1, segment, first, last, endpoint)


def v2_mmio(endpoint: int, address: int) -> bytes:
    return struct.pack("<HHIQ", 2, 0, endpoint, address)


# --- V3, August 2020: items with their own length ------------------------------------------------


def v3(items: Sequence[bytes], offset: int = 40, count: int | None = None) -> bytes:
    count = len(items) if count is None else count
    return FIXED + struct.pack("<HH", count, offset) + bytes(offset - 40) + b"".join(items)


def v3_item(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BBH", kind, 0, 4 + len(body) if length is None else length) + body


def v3_pci(
    endpoint: int = 0, segment: int = 0, first: int = 0, last: int = 0xFFFF, length: int = 16
) -> bytes:
    return v3_item(1, struct.pack("<IHHH2x", endpoint, segment, first, last), length)


def v3_mmio(endpoint: int, address: int) -> bytes:
    return v3_item(2, struct.pack("<IQ", endpoint, address))
