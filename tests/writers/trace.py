"""Build trace files piece by piece, right or wrong on purpose; independent of the writer."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import zstandard

PLAIN_HEADER: dict[str, Any] = {
    "version": 1,
    "dialect": "spec",
    "units": [
        {
            "kind": "vtd",
            "base": 0xFED90000,
            "version": 0x10,
            "capability": 0xD2008C22260206,
            "extended_capability": 0xF00F4A,
            "host_address_width": 39,
        }
    ],
    "memory": [[0, 0x80000000]],
    "source": {"tool": "tests"},
    "created": "",
}


def preamble(
    plain: Any = None, *, stored: bytes | None = None, length: int | None = None, version: int = 1
) -> bytes:
    """Build what stands before the blocks; stored or length may lie about the header."""
    content = msgpack.packb(PLAIN_HEADER if plain is None else plain) if stored is None else stored
    claimed = len(content) if length is None else length
    crc = zlib.crc32(content)
    return struct.pack("<8sHHII", b"DMRTRACE", version, 0, claimed, crc) + content


def raw_events(arrays: list[Any]) -> bytes:
    """Pack arrays, which need not be events, one after another."""
    return b"".join(msgpack.packb(array) for array in arrays)


def block(
    raw: bytes,
    first_event: int,
    events: int,
    *,
    payload: bytes | None = None,
    stored: int | None = None,
    claimed_raw: int | None = None,
    crc: int | None = None,
) -> bytes:
    """Build a block whose crc is right, whatever else it claims."""
    if payload is None:
        payload = zstandard.ZstdCompressor().compress(raw)
    head = struct.pack(
        "<4sIIQI",
        b"DMBK",
        len(payload) if stored is None else stored,
        len(raw) if claimed_raw is None else claimed_raw,
        first_event,
        events,
    )
    if crc is None:
        crc = zlib.crc32(payload, zlib.crc32(head))
    return head + struct.pack("<I", crc) + payload


def index(entries: Any, offset: int, *, content: bytes | None = None) -> bytes:
    """Build the index that ends a file, lying at offset."""
    if content is None:
        content = msgpack.packb(entries)
    head = struct.pack("<4sII", b"DMIX", len(content), zlib.crc32(content))
    return head + content + struct.pack("<Q8s", offset, b"DMREND\0\0")


def bomb(size: int) -> bytes:
    """Build a zstd frame that grows to size zeros and says so."""
    compressor = zstandard.ZstdCompressor(level=19).compressobj(size=size)
    pieces = [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*pieces, compressor.flush()])
