"""The trace: header and events, as a compressed container and as text (docs/design.md, 3 and 4)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from decoders.errors import DecodeError
from harness.errors import HarnessError
from harness.trace.format import MAGIC, Index, IndexEntry
from harness.trace.header import VIRTIO, VTD, Header, UnitInfo
from harness.trace.reader import Block, TraceReader
from harness.trace.text import TITLE, TextReader, parse_text, read_text, write_text
from harness.trace.writer import TraceWriter, compact

__all__ = [
    "VIRTIO",
    "VTD",
    "Block",
    "Header",
    "Index",
    "IndexEntry",
    "TextReader",
    "TraceReader",
    "TraceWriter",
    "UnitInfo",
    "compact",
    "detect",
    "open_events",
    "parse_text",
    "read_text",
    "write_text",
]

TEXT_MAGIC = TITLE.split()[0].encode()


def detect(head: bytes) -> str | None:
    """Name the form of a file by its first bytes: "trace", "text", or None for neither."""
    if head.startswith(MAGIC):
        return "trace"
    return "text" if head.startswith(TEXT_MAGIC) else None


def open_events(path: str | os.PathLike[str]) -> TraceReader | TextReader:
    """Open a trace in either form, told apart by content.

    Errors: DecodeError for what is neither or has a bad header, HarnessError for what is no file.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise HarnessError(f"{os.fspath(path)}: not a regular file; copy the trace into one")
    with Path(path).open("rb") as stream:
        form = detect(stream.read(64))
    if form == "trace":
        return TraceReader(path)
    if form == "text":
        return TextReader(path)
    raise DecodeError(
        "trace.magic", "neither a trace nor its text form (`dmarewind convert` reads logs)", 0
    )
