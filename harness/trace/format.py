"""Lay out the pieces of a trace file: preamble, block head, index (docs/design.md, section 3)."""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, overload

import zstandard

from decoders.errors import DecodeError
from harness.trace.packing import Packer, Unpacker

MAGIC = b"DMRTRACE"
BLOCK_MAGIC = b"DMBK"
INDEX_MAGIC = b"DMIX"
END_MAGIC = b"DMREND\0\0"
VERSION = 1

PREAMBLE = struct.Struct("<8sHHII")  # magic, version, 0, length of the header, its crc
BLOCK = struct.Struct("<4sIIQII")  # magic, stored, raw, first event, events, crc
INDEX_HEAD = struct.Struct("<4sII")  # magic, length, crc
INDEX_TAIL = struct.Struct("<Q8s")  # offset of the index, end magic

RAW_LIMIT = 4 << 20
STORED_LIMIT = RAW_LIMIT + (64 << 10)
EVENTS_LIMIT = 1 << 20
INDEX_LIMIT = 4 << 20
"""Bytes of a stored index; a writer whose index would be longer leaves it out."""

LEAST_EVENT = 2  # bytes: a Reset, [11]
U64 = (1 << 64) - 1


class BlockHead(NamedTuple):
    """Describe a block: sizes of its payload, where its events stand in the trace."""

    stored: int
    raw: int
    first_event: int
    events: int
    crc: int

    def check(self, path: str, offset: int, expected_first: int) -> None:
        """Refuse a head that breaks a limit or does not follow the block before it.

        Errors: DecodeError.
        """
        for name, value, low, high in (
            ("stored", self.stored, 1, STORED_LIMIT),
            ("raw", self.raw, LEAST_EVENT, RAW_LIMIT),
            ("events", self.events, 1, EVENTS_LIMIT),
        ):
            if not low <= value <= high:
                problem = f"{value} is not within {low}..{high}"
                raise DecodeError(f"{path}.{name}", problem, offset)
        if self.events * LEAST_EVENT > self.raw:
            problem = f"{self.events} events do not fit into {self.raw} bytes"
            raise DecodeError(f"{path}.events", problem, offset)
        if self.first_event != expected_first:
            problem = f"{self.first_event} does not follow, {expected_first} would"
            raise DecodeError(f"{path}.first_event", problem, offset)

    def checksum(self, payload: bytes) -> int:
        """Return the crc of the head's other fields and the payload."""
        fields = BLOCK.pack(BLOCK_MAGIC, *self[:4], 0)[:-4]
        return zlib.crc32(payload, zlib.crc32(fields))


def pack_block(raw: bytes, first_event: int, events: int, level: int) -> bytes:
    """Return a complete block for raw content, compressed at a zstd level."""
    payload = zstandard.ZstdCompressor(level=level).compress(raw)
    head = BlockHead(len(payload), len(raw), first_event, events, 0)
    head = head._replace(crc=head.checksum(payload))
    return BLOCK.pack(BLOCK_MAGIC, *head) + payload


def unpack_payload(payload: bytes, raw: int, path: str, offset: int) -> bytes:
    """Return the raw content of a block, of exactly raw bytes.

    A frame that claims another size is refused before anything is allocated for it. Errors:
    DecodeError.
    """
    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.content_size != raw:  # also when it is not given
            raise DecodeError(f"{path}.payload", f"frame does not hold {raw} bytes", offset)
        if frame.dict_id:
            raise DecodeError(f"{path}.payload", "frame wants a dictionary", offset)
        content = zstandard.ZstdDecompressor(max_window_size=RAW_LIMIT).decompress(
            payload, max_output_size=raw, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise DecodeError(f"{path}.payload", f"does not decompress ({error})", offset) from error
    if len(content) != raw:
        raise DecodeError(f"{path}.payload", f"{len(content)} bytes, not {raw}", offset)
    return content


class IndexEntry(NamedTuple):
    """Say where a block lies, and the time of its first event."""

    file_offset: int
    first_event: int
    events: int
    first_microseconds: int


class Index(Sequence[IndexEntry]):
    """Find blocks by event number or time; holds 32 bytes for each."""

    def __init__(self) -> None:
        self._columns = tuple(array("Q") for _ in IndexEntry._fields)

    def add(self, entry: IndexEntry) -> None:
        """Append the next block."""
        for column, value in zip(self._columns, entry, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, position: int) -> IndexEntry: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[IndexEntry]: ...
    def __getitem__(self, position: int | slice) -> IndexEntry | Sequence[IndexEntry]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        return IndexEntry(*(column[position] for column in self._columns))

    @property
    def events(self) -> int:
        """Number of events in all blocks."""
        return self[-1].first_event + self[-1].events if self else 0

    def by_event(self, event: int) -> int:
        """Return the position of the block that holds an event (of the last, if beyond)."""
        return max(bisect_right(self._columns[1], event) - 1, 0)

    def by_time(self, microseconds: int) -> int:
        """Return the position of a block before which every event is earlier than that time."""
        # Time may stand still over several blocks: the one before the first of them may hold it.
        return max(bisect_right(self._columns[3], microseconds - 1) - 1, 0)

    def pack(self, file_offset: int) -> bytes | None:
        """Return the stored index for the end of a file, or None when it exceeds the limit."""
        if len(self) * 5 > INDEX_LIMIT:
            return None
        content = Packer().pack([list(entry) for entry in self])
        if len(content) > INDEX_LIMIT:
            return None
        head = INDEX_HEAD.pack(INDEX_MAGIC, len(content), zlib.crc32(content))
        return head + content + INDEX_TAIL.pack(file_offset, END_MAGIC)

    @classmethod
    def unpack(cls, content: bytes, start: int, end: int) -> Index:
        """Check the content of a stored index against the part of the file its blocks lie in.

        Errors: DecodeError.
        """
        index = cls()
        unpacker = Unpacker(content)
        try:
            claimed = unpacker.array_header()
            if claimed > (end - start) // BLOCK.size:
                raise DecodeError("trace.index", f"{claimed} entries for {end - start} bytes", end)
            for _ in range(claimed):
                index._add_checked(next(iter(unpacker)), start, end)
        except ValueError as error:
            raise DecodeError("trace.index", f"is not msgpack ({error})", end) from error
        except StopIteration:
            raise DecodeError("trace.index", "is cut short", end) from None
        if unpacker.position != len(content):
            raise DecodeError("trace.index", "has bytes behind its last entry", end)
        return index

    def _add_checked(self, fields: object, start: int, end: int) -> None:
        path = f"trace.index[{len(self)}]"
        if not isinstance(fields, list) or len(fields) != len(IndexEntry._fields):
            raise DecodeError(path, "is not an array of 4 numbers", end)
        if any(type(value) is not int or not 0 <= value <= U64 for value in fields):
            raise DecodeError(path, "is not an array of 4 numbers", end)
        entry = IndexEntry(*fields)
        least = self[-1].file_offset + BLOCK.size if self else start
        if not least <= entry.file_offset <= end - BLOCK.size or (not self and least != start):
            raise DecodeError(f"{path}.file_offset", f"{entry.file_offset:#x} cannot be", end)
        if entry.first_event != self.events or not 1 <= entry.events <= EVENTS_LIMIT:
            raise DecodeError(f"{path}.first_event", "does not follow", end)
        if self and entry.first_microseconds < self[-1].first_microseconds:
            raise DecodeError(f"{path}.first_microseconds", "runs backwards", end)
        self.add(entry)
