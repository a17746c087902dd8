"""Write trace files so that a writer that dies leaves every complete block readable."""

from __future__ import annotations

import fcntl
import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from decoders.events import Clock, Event
from harness.errors import HarnessError
from harness.files import replacing
from harness.trace.codec import Encoder, FieldError
from harness.trace.format import (
    EVENTS_LIMIT,
    MAGIC,
    PREAMBLE,
    VERSION,
    Index,
    IndexEntry,
    pack_block,
)
from harness.trace.header import Header
from harness.trace.reader import TraceReader, survey

BLOCK_RAW = 256 << 10
"""Bytes of raw content at which a writer closes a block."""

# Measured on recordings of Linux guests (1 to 2.4 MB raw), against `xz -9` of QEMU's own log of
# the same run: blocks of 256 KiB at level 9 take 1.3 to 1.9 times its size at over 100 MB/s,
# blocks of 1 MiB at level 19 take 0.8 to 1.1 times, at 3 to 6 MB/s. Higher levels gain nothing.
LEVEL = 9
"""Level of zstd while recording."""

COMPACT_RAW = 1 << 20
COMPACT_LEVEL = 19


class TraceWriter:
    """Write a trace file block by block; made by ``create`` or ``append_to``.

    Events are kept until a block is full or ``flush`` is called; a block reaches the file by one
    write. ``close`` adds the index. As a context manager it closes, whatever happened inside.
    """

    def __init__(self, fd: int, path: Path, header: Header, index: Index, offset: int) -> None:
        self.path = path
        self.header = header
        self.dropped = 0
        """Bytes of an incomplete block that append_to cut off."""
        self.level = LEVEL
        self.block_raw = BLOCK_RAW
        self._fd = fd
        self._index = index
        self._offset = offset
        self._first = index.events
        self._time = index[-1].first_microseconds if index else 0
        self._encoder = Encoder()
        self._begin_block()

    @classmethod
    def create(cls, path: str | os.PathLike[str], header: Header, *, compact: bool = False) -> Self:
        """Begin a trace file, replacing what is there.

        compact makes it smaller and writing it slower, for what need not keep up with a machine.
        Errors: DecodeError for a header that no reader would take.
        """
        stored = header.to_msgpack()
        start = PREAMBLE.pack(MAGIC, VERSION, 0, len(stored), zlib.crc32(stored)) + stored
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(fd, path)
            os.ftruncate(fd, 0)
            _write_at(fd, start, 0)
        except BaseException:
            os.close(fd)
            raise
        writer = cls(fd, Path(path), header, Index(), len(start))
        if compact:
            writer.level, writer.block_raw = COMPACT_LEVEL, COMPACT_RAW
        return writer

    @classmethod
    def append_to(cls, path: str | os.PathLike[str]) -> Self:
        """Go on with a trace file, cutting off its index and an incomplete last block.

        Errors: DecodeError when it is damaged in another way; the file is then left alone.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(fd, path)
            with TraceReader(path) as reader:
                found = survey(reader)
            os.ftruncate(fd, found.end)
        except BaseException:
            os.close(fd)
            raise
        writer = cls(fd, Path(path), reader.header, found.index, found.end)
        writer._time = writer._block_time = found.time
        writer.dropped = found.torn
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def events(self) -> int:
        """Number of events in the trace so far, the next one's number."""
        return self._first + self._count

    def append(self, event: Event) -> None:
        """Add an event.

        Errors: DecodeError for one that no reader would take; the trace is as it was before.
        """
        try:
            encoded = self._encoder.encode(event)
        except FieldError as error:
            raise error.at(f"{type(event).__name__}") from error
        if isinstance(event, Clock) and event.microseconds > self._time:
            self._time = event.microseconds
        if not self._count:
            self._block_time = self._time
        self._raw += encoded
        self._count += 1
        if len(self._raw) >= self.block_raw or self._count == EVENTS_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Write the events kept so far as a block."""
        if not self._count:
            return
        block = pack_block(bytes(self._raw), self._first, self._count, self.level)
        self._write(block)
        self._index.add(IndexEntry(self._offset, self._first, self._count, self._block_time))
        self._offset += len(block)
        self._first += self._count
        self._begin_block()

    def close(self) -> None:
        """Write what is left and the index, and close the file; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            self.flush()
            index = self._index.pack(self._offset)
            if index is not None:
                self._write(index)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _begin_block(self) -> None:
        self._raw = bytearray()
        self._count = 0
        self._block_time = self._time

    def _write(self, data: bytes) -> None:
        try:
            _write_at(self._fd, data, self._offset)
        except OSError:
            # A full disk must not leave half a block behind: what is complete stays readable.
            os.ftruncate(self._fd, self._offset)
            raise


def _lock(fd: int, path: str | os.PathLike[str], how: int = fcntl.LOCK_EX) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise HarnessError(f"{os.fspath(path)}: not a regular file, and a trace must be one")
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        problem = f"{os.fspath(path)}: another program is writing this trace; wait for its end"
        raise HarnessError(problem) from error


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def compact(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Rewrite a trace with large, well compressed blocks; return its size before and after.

    The file is replaced at once, when the new one is complete. Errors: DecodeError when the
    trace is damaged, HarnessError while it is being written; it is then left alone.
    """
    with TraceReader(path) as reader, replacing(path) as draft:
        _lock(reader.fileno(), path, fcntl.LOCK_SH)
        with TraceWriter.create(draft, reader.header, compact=True) as writer:
            for event in reader:
                writer.append(event)
        return reader.size, draft.stat().st_size
