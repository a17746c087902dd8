"""Requests, answers and config spaces of a virtio-iommu, packed by hand (virtio 1.4, 5.13)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from decoders.events import Request

OK, IOERR, UNSUPP, DEVERR, INVAL, RANGE, NOENT, FAULT, NOMEM = range(9)
READ, WRITE, MMIO = 1, 2, 4
TOP = (1 << 64) - 1
TAIL = 4
"""Bytes of the end of an answer, which is all of it but for a PROBE."""
PROBE_SIZE = 64
FEATURES = 0x1_0000_0077
"""All but BYPASS of virtio-iommu's, and VERSION_1."""


def attach(domain: int, endpoint: int, flags: int = 0, reserved: int = 0) -> bytes:
    """Pack an ATTACH; reserved is the number in its reserved bytes."""
    return struct.pack("<B3xIIII", 1, domain, endpoint, flags, reserved)


def detach(domain: int, endpoint: int, reserved: int = 0) -> bytes:
    """Pack a DETACH."""
    return struct.pack("<B3xIIQ", 2, domain, endpoint, reserved)


def map_(domain: int, first: int, last: int, to: int, flags: int = READ | WRITE) -> bytes:
    """Pack a MAP."""
    return struct.pack("<B3xIQQQI", 3, domain, first, last, to, flags)


def unmap(domain: int, first: int, last: int, reserved: int = 0) -> bytes:
    """Pack an UNMAP."""
    return struct.pack("<B3xIQQI", 4, domain, first, last, reserved)


def probe(endpoint: int, reserved: int = 0) -> bytes:
    """Pack a PROBE."""
    return struct.pack("<B3xIQ56x", 5, endpoint, reserved)


def tail(status: int, payload: bytes = b"") -> bytes:
    """Pack what a device writes: properties of a PROBE, and the status."""
    return payload + struct.pack("<B3x", status)


def regions(*found: tuple[int, int, int]) -> bytes:
    """Pack reserved regions (subtype, first, last) into as many bytes as a PROBE answers with."""
    return b"".join(resv_mem(*one) for one in found).ljust(PROBE_SIZE, b"\0")


def resv_mem(subtype: int, first: int, last: int) -> bytes:
    """Pack one reserved region, sound or not."""
    return struct.pack("<HHB3xQQ", 1, 20, subtype, first, last)


def asked(data: bytes, status: int = OK) -> Request:
    """Make a request that is no PROBE and was answered with a status."""
    return Request(data, 4, tail(status))


def config(
    bypass: int = 1,
    behind: bytes = bytes(3),
    *,
    page_size_mask: int = TOP - 0xFFF,
    input_range: tuple[int, int] = (0, TOP),
    domain_range: tuple[int, int] = (0, (1 << 32) - 1),
    probe_size: int = PROBE_SIZE,
) -> bytes:
    """Pack a config space; behind is what follows bypass."""
    fixed = struct.pack("<QQQIII", page_size_mask, *input_range, *domain_range, probe_size)
    return fixed + bytes([bypass]) + behind


def topology_v3(items: Iterable[tuple[int, int, int]]) -> bytes:
    """Pack a config space of form V3: first endpoint, first and last id of PCI devices."""
    packed = [struct.pack("<BxHIHHHxx", 1, 16, endpoint, 0, *ids) for endpoint, *ids in items]
    return config()[:36] + struct.pack("<HH", len(packed), 40) + b"".join(packed)
