"""Read files of ACPI tables: one or several in binary form, or the text that acpidump prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from decoders.acpi.reading import LARGEST_TABLE
from decoders.acpi.structures import HEADER_SIZE
from decoders.errors import DecodeError

LARGEST_FILE: Final = 64 << 20
"""Bytes of the largest file that is read."""

MOST_TABLES: Final = 1024
"""Tables that are read of one file."""

_title = re.compile(rb"([A-Z0-9_!]{4}) @ (?:0x)?([0-9A-Fa-f]{1,16})\s*").fullmatch
_line = re.compile(rb"\s+([0-9A-Fa-f]{4,8}):((?: [0-9A-Fa-f]{2}){1,16})(?:\s.*)?").fullmatch
_SIGNATURE: Final = re.compile(rb"[A-Z0-9_!]{4}")
_something = re.compile(rb"[^\0]").search


@dataclass(frozen=True, slots=True)
class Found:
    """Hold the bytes of a table and where in a file they are.

    place is a byte for a binary file, and a line for text.
    """

    data: bytes
    place: int

    @property
    def signature(self) -> str:
        """Return the signature as text."""
        return self.data[:4].decode("ascii", "backslashreplace")


def read_file(data: bytes) -> Iterator[Found]:
    """Yield the tables of a file of any of the known forms; raise DecodeError when it has none."""
    if len(data) > LARGEST_FILE:
        problem = f"{len(data)} bytes, more than the {LARGEST_FILE} that are read"
        raise DecodeError("file", problem, LARGEST_FILE)
    if is_text(data):
        yield from read_text(data)
    else:
        yield from split(data)


def is_text(data: bytes) -> bool:
    """Say whether data looks like what acpidump prints."""
    first = data[:4096].lstrip().split(b"\n", 1)[0]
    return _title(first.strip()) is not None


def split(data: bytes) -> Iterator[Found]:
    """Yield tables that follow one another, with any number of zeros between them.

    A table that is the only one keeps what follows it. Raise DecodeError for what is no table.
    """
    at, count = _behind_zeros(data, 0), 0
    while at < len(data):
        path = f"file.table[{count}]"
        if not _SIGNATURE.match(data, at) or len(data) - at < 8:
            problem = f"{data[at : at + 4]!r} is no signature of a table"
            if count == 1:  # rather something behind a table than a second one
                return
            raise DecodeError(f"{path}.signature", problem, at)
        if count == MOST_TABLES:
            problem = f"more than the {MOST_TABLES} tables that are read"
            raise DecodeError(path, problem, at)
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + length
        sound = HEADER_SIZE <= length <= LARGEST_TABLE and end <= len(data)
        if not sound:
            end = len(data)
        following = _behind_zeros(data, end)
        if at == 0 and following < len(data) and not _SIGNATURE.match(data, following):
            end = following = len(data)
        yield Found(data[at:end], at)
        at, count = following, count + 1
    if not count:
        raise DecodeError("file", "there is no table in it", 0)


def _behind_zeros(data: bytes, at: int) -> int:
    """Return where there is something else than zeros; the end where there is nothing."""
    found = _something(data, at)
    return len(data) if found is None else found.start()


def read_text(data: bytes) -> Iterator[Found]:
    """Yield the tables of acpidump's text; raise DecodeError for a line that is not like it.

    A table is ``VIOT @ 0x0000000012345678`` and lines like ``  0010: 42 58 ...  BX..``.
    """
    table: bytearray | None = None
    began, count, total = 0, 0, 0
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.rstrip(b"\r")
        title = _title(line)
        if title is not None:
            if table is not None:
                yield Found(bytes(table), began)
            if count == MOST_TABLES:
                problem = f"more than the {MOST_TABLES} tables that are read"
                raise DecodeError(f"text.table[{count}]", problem, number, "line")
            table, began, count = bytearray(), number, count + 1
            continue
        if not line.strip():
            continue
        match = _line(line)
        path = f"text.table[{max(0, count - 1)}]"
        if match is None or table is None:
            problem = f"{line[:40]!r} is neither a title nor bytes"
            raise DecodeError(path, problem, number, "line")
        if int(match[1], 16) != len(table):
            problem = f"bytes for {int(match[1], 16):#x} where those for {len(table):#x} belong"
            raise DecodeError(path, problem, number, "line")
        octets = bytes.fromhex(match[2].decode("ascii"))
        table += octets
        total += len(octets)
    if table is None:
        raise DecodeError("text", "there is no table in it", 1, "line")
    yield Found(bytes(table), began)
