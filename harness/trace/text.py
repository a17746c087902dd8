"""Read and write files in text form (docs/design.md, section 4)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from decoders.errors import DecodeError
from decoders.events import Clock, Event
from harness.trace.checks import ANSWER_LIMIT, REQUEST_LIMIT
from harness.trace.codec import FieldError, from_fields, to_fields
from harness.trace.header import JSON_LIMIT, Header
from harness.trace.lines import format_event, parse_event

TITLE = "dmarewind-text 1"
HEADER_WORD = "header "
LINE_LIMIT = 2 * (REQUEST_LIMIT + ANSWER_LIMIT) + 1024
"""Bytes of a line that holds an event: a Request has the longest, most of it in hexadecimal."""

HEADER_LINE_LIMIT = JSON_LIMIT + len(HEADER_WORD)


class _Lines:
    """Cut a binary stream into numbered lines of text."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.number = 0

    def next(self, limit: int) -> str | None:
        """Return the next line without its end, or None behind the last."""
        line = self._stream.readline(limit + 2)
        if not line:
            return None
        self.number += 1
        if len(line.rstrip(b"\r\n")) > limit:
            raise self.error("text.line", f"has more than {limit} bytes")
        if not line.endswith(b"\n"):
            # A number that lost its last digits still looks like one.
            raise self.error("text.line", "file ends inside it, there is no newline")
        try:
            return line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError as error:
            raise self.error("text.line", f"is not UTF-8 ({error.reason})") from error

    def error(self, path: str, problem: str) -> DecodeError:
        return DecodeError(path, problem, self.number, "line")


def _read_head(lines: _Lines) -> Header:
    title = lines.next(LINE_LIMIT)
    if title != TITLE:
        lines.number = 1  # also when the file is empty
        raise lines.error("text.title", f"is not {TITLE!r}")
    line = lines.next(HEADER_LINE_LIMIT)
    if line is None or not line.startswith(HEADER_WORD):
        lines.number = 2
        raise lines.error("text.header", f"line does not begin with {HEADER_WORD!r}")
    try:
        return Header.from_json(line[len(HEADER_WORD) :])
    except DecodeError as error:
        raise lines.error(error.path, error.problem) from error


def _read_events(lines: _Lines) -> Iterator[Event]:
    number = 0
    while (line := lines.next(LINE_LIMIT)) is not None:
        if not line.strip() or line.startswith("#"):
            continue
        try:
            event = parse_event(line)
        except FieldError as error:
            raise error.at(f"text.event[{number}]", lines.number, "line") from error
        yield event
        number += 1


class TextReader:
    """Read a file in text form line by line; iterating yields its events.

    Damage ends an iteration with a DecodeError whose offset is the line, after every event before
    it. ``damage`` is that error once an iteration has met it. Errors: DecodeError for a bad header.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage: DecodeError | None = None
        self._position = 0
        with self.path.open("rb") as stream:
            self.header = _read_head(_Lines(stream))

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
        """Do nothing: the file is open only while it is iterated over."""

    def __iter__(self) -> Iterator[Event]:
        return self.events(self._position)

    def seek(self, event: int) -> None:
        """Let iteration begin at an event number."""
        self._position = event

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """Yield the events numbered start up to, and not including, stop.

        Errors: DecodeError at the end when the part that was read is damaged.
        """
        with self.path.open("rb") as stream:
            lines = _Lines(stream)
            _read_head(lines)
            try:
                yield from islice(_read_events(lines), start, stop)
            except DecodeError as error:
                self.damage = error
                raise

    def first_event_at(self, microseconds: int) -> int:
        """Return the number of the first event at or after a time, or of the event past the last.

        Errors: DecodeError when the search runs into damage.
        """
        number = 0
        for event in self.events():
            if isinstance(event, Clock) and event.microseconds >= microseconds:
                return number
            number += 1
        return number


def read_text(path: str | os.PathLike[str]) -> TextReader:
    """Open a file in text form.

    Errors: DecodeError for a bad header.
    """
    return TextReader(path)


def parse_text(text: str) -> tuple[Header, list[Event]]:
    """Return what a whole text form says.

    Errors: DecodeError.
    """
    if not text.endswith("\n"):
        text += "\n"
    lines = _Lines(io.BytesIO(text.encode("utf-8", "surrogatepass")))
    return _read_head(lines), list(_read_events(lines))


def write_text(
    target: str | os.PathLike[str] | TextIO, header: Header, events: Iterable[Event]
) -> int:
    """Write a header and events in text form to a file or stream; return the number of events.

    Events before an error, of whatever kind, have been written. Errors: DecodeError for a header
    or an event that no reader would take.
    """
    if isinstance(target, str | os.PathLike):
        with Path(target).open("w", encoding="utf-8", newline="\n") as stream:
            return write_text(stream, header, events)
    target.write(f"{TITLE}\n{HEADER_WORD}{header.to_json()}\n")
    count = 0
    for event in events:
        try:
            checked = from_fields(to_fields(event))
        except FieldError as error:
            raise error.at(type(event).__name__) from error
        target.write(format_event(checked) + "\n")
        count += 1
    return count
