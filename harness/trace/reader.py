"""Read trace files: blocks of compressed events that survive damage to each other.

A reader trusts nothing: each length is held against its limit before memory is taken for it, so
no file makes it take more than a few blocks' worth.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from decoders.errors import DecodeError
from decoders.events import Clock, Event
from harness.errors import HarnessError
from harness.trace.codec import decode
from harness.trace.format import (
    BLOCK,
    BLOCK_MAGIC,
    END_MAGIC,
    INDEX_HEAD,
    INDEX_LIMIT,
    INDEX_MAGIC,
    INDEX_TAIL,
    MAGIC,
    PREAMBLE,
    STORED_LIMIT,
    VERSION,
    BlockHead,
    Index,
    IndexEntry,
    unpack_payload,
)
from harness.trace.header import HEADER_LIMIT, Header


class Block(NamedTuple):
    """Hold one block: the number of its first event, how many it has, and their msgpack.

    path and offset say where it lies, for errors.
    """

    first_event: int
    events: int
    raw: bytes
    path: str = "trace"
    offset: int | None = None

    def check_count(self, held: int) -> None:
        """Refuse a block that holds another number of events than its head says.

        Errors: DecodeError.
        """
        if held != self.events:
            shown = "more" if held > self.events else held
            problem = f"{self.events} claimed, the block holds {shown}"
            raise DecodeError(f"{self.path}.events", problem, self.offset)


class _Place(NamedTuple):
    """Say where a block lies: its number, its offset in the file, its head."""

    number: int
    offset: int
    head: BlockHead

    @property
    def path(self) -> str:
        return f"trace.block[{self.number}]"

    @property
    def end(self) -> int:
        return self.offset + BLOCK.size + self.head.stored


class TraceReader:
    """Read a trace file; iterating yields its events.

    Damage ends an iteration with a DecodeError, after every event before it. ``damage`` is that
    error once an iteration has met it. ``index`` is the stored index; None when the file has
    none or a bad one (then ``index_problem`` says why), which costs speed only. Readers do not
    disturb each other: several iterations over one reader may be under way.

    Errors: DecodeError for a file whose header cannot be read, HarnessError for what is no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage: DecodeError | None = None
        self.index_problem: DecodeError | None = None
        self._position = 0
        self._fd = -1  # for __del__, should the file not open
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise HarnessError(f"{path}: not a regular file; copy the trace into one")
            self.size = status.st_size
            self.header, self._start = self._read_header()
            self.index = self._read_index()
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def __iter__(self) -> Iterator[Event]:
        return self.events(self._position)

    def seek(self, event: int) -> None:
        """Let iteration begin at an event number."""
        self._position = event

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """Yield the events numbered start up to, and not including, stop.

        Errors: DecodeError at the end when the part that was read is damaged.
        """
        if stop is not None and stop <= start:
            return
        for place in self._places(start):
            decoded = self._decode(self._block(place))
            skip = max(start - place.head.first_event, 0)
            end = None if stop is None else stop - place.head.first_event
            yield from itertools.islice(decoded, skip, end)
            if end is not None and end <= place.head.events:
                return

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield the blocks from the one that holds event number start, decompressed and checked.

        Only the count of events is left for the consumer to check. Errors: DecodeError at the
        end when the file is damaged.
        """
        for place in self._places(start):
            yield self._block(place)

    def first_event_at(self, microseconds: int) -> int:
        """Return the number of the first event at or after a time, or of the event past the last.

        Errors: DecodeError when the search runs into damage.
        """
        number = self.index[self.index.by_time(microseconds)].first_event if self.index else 0
        for event in self.events(number):
            if isinstance(event, Clock) and event.microseconds >= microseconds:
                return number
            number += 1
        return number

    def _read(self, offset: int, length: int, path: str) -> bytes:
        # A file may shrink while it is read.
        found = os.pread(self._fd, length, offset) if offset + length <= self.size else b""
        if len(found) != length:
            raise DecodeError(path, f"{length} bytes expected, the file ends before", offset)
        return found

    def _read_header(self) -> tuple[Header, int]:
        path = "trace.header"
        preamble = os.pread(self._fd, PREAMBLE.size, 0)
        if preamble[: len(MAGIC)] != MAGIC:
            raise DecodeError("trace.magic", "not a trace file", 0)
        if len(preamble) != PREAMBLE.size:
            raise DecodeError(path, "file ends before it", len(preamble))
        _, version, reserved, length, crc = PREAMBLE.unpack(preamble)
        if version != VERSION:
            raise DecodeError("trace.version", f"{version} is not known, only {VERSION} is", 8)
        if reserved:
            raise DecodeError("trace.reserved", f"{reserved:#x} is not 0", 10)
        if length > HEADER_LIMIT:
            raise DecodeError(f"{path}.length", f"{length} exceeds the limit {HEADER_LIMIT}", 12)
        stored = self._read(PREAMBLE.size, length, path)
        if zlib.crc32(stored) != crc:
            raise DecodeError(f"{path}.crc32", "does not match", 16)
        return Header.from_msgpack(stored), PREAMBLE.size + length

    def _read_index(self) -> Index | None:
        try:
            return self._find_index()
        except DecodeError as error:
            self.index_problem = error
            return None

    def _find_index(self) -> Index | None:
        tail_at = self.size - INDEX_TAIL.size
        if tail_at < self._start + INDEX_HEAD.size:
            return None
        offset, magic = INDEX_TAIL.unpack(self._read(tail_at, INDEX_TAIL.size, "trace.index"))
        if magic != END_MAGIC:
            return None
        length = tail_at - offset - INDEX_HEAD.size
        if offset < self._start or not 0 <= length <= INDEX_LIMIT:
            raise DecodeError("trace.index.offset", f"{offset:#x} cannot be", tail_at)
        head = self._read(offset, INDEX_HEAD.size, "trace.index")
        magic, claimed, crc = INDEX_HEAD.unpack(head)
        content = self._read(offset + INDEX_HEAD.size, length, "trace.index")
        if magic != INDEX_MAGIC or claimed != length or zlib.crc32(content) != crc:
            raise DecodeError("trace.index", "magic, length or crc32 does not match", offset)
        return Index.unpack(content, self._start, offset)

    def _places(self, start: int = 0) -> Iterator[_Place]:
        """Yield where the blocks lie, from the one that holds event number start."""
        number, offset, expected = 0, self._start, 0
        if start and self.index:
            number = self.index.by_event(start)
            offset, expected = self.index[number].file_offset, self.index[number].first_event
            if not self._is_block(offset, expected):
                # Its crc is right, yet it lies: whoever made it did not know this file.
                self.index_problem = DecodeError(
                    f"trace.index[{number}].file_offset", "no such block there", offset
                )
                self.index = None
                number, offset, expected = 0, self._start, 0
        while (place := self._place(number, offset, expected)) is not None:
            if start < expected + place.head.events:
                yield place
            number, offset, expected = number + 1, place.end, expected + place.head.events

    def _is_block(self, offset: int, first_event: int) -> bool:
        head = os.pread(self._fd, BLOCK.size, offset)
        return (
            len(head) == BLOCK.size
            and head[: len(BLOCK_MAGIC)] == BLOCK_MAGIC
            and BLOCK.unpack(head)[3] == first_event
        )

    def _place(self, number: int, offset: int, expected: int) -> _Place | None:
        """Read the head of the block at offset, or return None at the end of the blocks."""
        path = f"trace.block[{number}]"
        try:
            found = os.pread(self._fd, min(BLOCK.size, self.size - offset), offset)
            # An index that was cut off or altered takes nothing from the events.
            if not found or found[:4] == INDEX_MAGIC[: len(found)]:
                return None
            if found[:4] != BLOCK_MAGIC[: len(found)]:
                raise DecodeError(path, "is neither a block nor an index", offset)
            if len(found) != BLOCK.size:
                raise DecodeError(path, "file ends inside its head", offset)
            place = _Place(number, offset, BlockHead(*BLOCK.unpack(found)[1:]))
            place.head.check(path, offset, expected)
            if place.end > self.size:
                raise DecodeError(path, f"file ends inside its {place.head.stored} bytes", offset)
        except DecodeError as error:
            self.damage = error
            raise
        return place

    def _content(self, place: _Place) -> bytes:
        try:
            payload = self._read(place.offset + BLOCK.size, place.head.stored, place.path)
            if place.head.checksum(payload) != place.head.crc:
                raise DecodeError(f"{place.path}.crc32", "does not match", place.offset)
            return unpack_payload(payload, place.head.raw, place.path, place.offset)
        except DecodeError as error:
            self.damage = error
            raise

    def _block(self, place: _Place) -> Block:
        content = self._content(place)
        return Block(place.head.first_event, place.head.events, content, place.path, place.offset)

    def _decode(self, block: Block) -> Iterator[Event]:
        number = 0
        try:
            for event in decode(block.raw, block.path, block.first_event, block.offset):
                number += 1
                if number > block.events:
                    break
                yield event
            block.check_count(number)
        except DecodeError as error:
            self.damage = error
            raise


@dataclass(frozen=True, slots=True)
class Survey:
    """Say what a writer that goes on with a file needs to know."""

    index: Index
    end: int  # of the last complete block
    time: int  # there
    torn: int  # bytes of the incomplete block behind it


def survey(reader: TraceReader) -> Survey:
    """Check every block, up to an incomplete last one.

    Errors: DecodeError for damage of another kind.
    """
    index, end, time, torn = Index(), reader._start, 0, 0
    try:
        for place in reader._places():
            block_time: int | None = None
            for event in reader._decode(reader._block(place)):
                if isinstance(event, Clock) and event.microseconds > time:
                    time = event.microseconds
                if block_time is None:
                    block_time = time
            head = place.head
            index.add(IndexEntry(place.offset, head.first_event, head.events, block_time or 0))
            end = place.end
    except DecodeError:
        if not _is_torn(reader, end, index.events):
            raise
        torn = reader.size - end
    return Survey(index, end, time, torn)


def _is_torn(reader: TraceReader, offset: int, first_event: int) -> bool:
    """Say whether what lies at offset is only the beginning of a block, as a dead writer left it.

    Where a length was altered in a whole file, more follows: another block or the index.
    """
    length = reader.size - offset
    if length >= BLOCK.size + STORED_LIMIT:
        return False
    rest = os.pread(reader._fd, length, offset)
    if len(rest) < BLOCK.size:
        return rest[:4] == BLOCK_MAGIC[: len(rest)]
    head = BlockHead(*BLOCK.unpack_from(rest)[1:])
    try:
        head.check("", offset, first_event)
    except DecodeError:
        return False
    if not rest.startswith(BLOCK_MAGIC) or len(rest) >= BLOCK.size + head.stored:
        return False
    next_first = struct.pack("<Q", first_event + head.events)
    at = rest.find(BLOCK_MAGIC, BLOCK.size)
    while at >= 0:
        if rest[at + 12 : at + 20] == next_first:
            return False
        at = rest.find(BLOCK_MAGIC, at + 1)
    return not rest.endswith(END_MAGIC)
