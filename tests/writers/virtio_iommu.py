"""Requests, answers and config spaces of a virtio-iommu, packed by hand (virtio 1.4, 5.13)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from decoders.events import Request

OK, INVAL, RANGE, NOENT = 0, 4, 5, 6
READ, WRITE = 1, 2
PROBE_SIZE = 64
FEATURES = 0x1_0000_0077
"""All but BYPASS of virtio-iommu's, and VERSION_1."""


def attach(domain: int, endpoint: int, flags: int = 0) -> bytes:
    """Pack an ATTACH."""
    return struct.pack("<B3xIII4x", 1, domain, endpoint, flags)


def detach(domain: int, endpoint: int) -> bytes:
    """Pack a DETACH."""
    return struct.pack("<B3xII8x", 2, domain, endpoint)


def map_(domain: int, first: int, last: int, to: int, flags: int = READ | WRITE) -> bytes:
    """Pack a MAP."""
    return struct.pack("<B3xIQQQI", 3, domain, first, last, to, flags)


def unmap(domain: int, first: int, last: int) -> bytes:
    """Pack an UNMAP."""
    return struct.pack("<B3xIQQ4x", 4, domain, first, last)


def probe(endpoint: int) -> bytes:
    """Pack a PROBE."""
    return struct.pack("<B3xI64x", 5, endpoint)


def tail(status: int, payload: bytes = b"") -> bytes:
    """Pack what a device writes: properties of a PROBE, and the status."""
    return payload + struct.pack("<B3x", status)


def regions(*found: tuple[int, int, int]) -> bytes:
    """Pack reserved regions (subtype, first, last) into as many bytes as a PROBE answers with."""
    pieces = (struct.pack("<HHB3xQQ", 1, 20, *one) for one in found)
    return b"".join(pieces).ljust(PROBE_SIZE, b"\0")


def asked(data: bytes, status: int = OK) -> Request:
    """Make a request that is no PROBE and was answered with a status."""
    return Request(data, 4, tail(status))


def config(bypass: int = 1, behind: bytes = bytes(3)) -> bytes:
    """Pack a config space; behind is what follows bypass."""
    top = (1 << 64) - 1
    fixed = struct.pack("<QQQIII", top - 0xFFF, 0, top, 0, (1 << 32) - 1, PROBE_SIZE)
    return fixed + bytes([bypass]) + behind


def topology_v3(items: Iterable[tuple[int, int, int]]) -> bytes:
    """Pack a config space of form V3: first endpoint, first and last id of PCI devices."""
    packed = [struct.pack("<BxHIHHHxx", 1, 16, endpoint, 0, *ids) for endpoint, *ids in items]
    return config()[:36] + struct.pack("<HH", len(packed), 40) + b"".join(packed)
