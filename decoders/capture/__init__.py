"""Read recordings made by other programs: each format is one file here and one line in FORMATS.

A recording is hostile input. What it says never raises; what could not be understood is counted,
with samples, and where an event was lost a Gap stands in the stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from decoders.capture import elf_core, qemu_log, qtest_log
from decoders.capture.lines import LineDecoder, Problem, Sample
from decoders.errors import DecodeError
from decoders.events import Event

HEAD: Final = 64 * 1024
"""Bytes at the beginning of a file that its format is recognised by."""

CHUNK: Final = 256 * 1024
"""Bytes of a file that are read at a time."""


@dataclass(frozen=True, slots=True)
class Format:
    """Describe one kind of recording: how to recognise it, how to read it.

    decoder is None where the file holds no events (a memory image); hints says what a decoder
    has learned of the recording's origin.
    """

    name: str
    detect: Callable[[bytes], bool]
    decoder: Callable[[], LineDecoder] | None
    hints: Callable[[Any], dict[str, str]] | None


FORMATS: Final = (
    Format(elf_core.NAME, elf_core.detect, None, None),
    Format(qtest_log.NAME, qtest_log.detect, qtest_log.QtestLogDecoder, qtest_log.hints),
    Format(qemu_log.NAME, qemu_log.detect, qemu_log.QemuLogDecoder, qemu_log.hints),
)
"""The formats, in the order they are asked."""


def _find(head: bytes) -> Format | None:
    return next((known for known in FORMATS if known.detect(head)), None)


def detect(head: bytes) -> str | None:
    """Name the format of a file that begins with head, of which HEAD bytes are enough."""
    found = _find(head)
    return None if found is None else found.name


class Capture:
    """Read one recording; events() streams it, the rest says what was found so far.

    `format` is the name of its format, `decoder` the decoder of the current pass.
    """

    def __init__(
        self, path: Path, format_name: str, decoder: Callable[[], LineDecoder], head: bytes
    ) -> None:
        self.path = path
        self.format = format_name
        self.decoder = decoder()
        self._new_decoder = decoder
        # The header of a trace is written before its events are read: look ahead for its hints.
        self._ahead = decoder()
        for _ in self._ahead.feed(head):
            pass

    def events(self) -> Iterator[Event]:
        """Yield every event, from the beginning; the counts begin anew."""
        self.decoder = decoder = self._new_decoder()
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield from decoder.feed(chunk)
        yield from decoder.finish()

    @property
    def lines(self) -> int:
        """Count the lines read; counts, malformed, unknown and blank add up to it."""
        return self.decoder.lines

    @property
    def blank(self) -> int:
        """Count the empty lines."""
        return self.decoder.blank

    @property
    def counts(self) -> Counter[str]:
        """Count the well-formed lines by name."""
        return self.decoder.counts

    @property
    def internal(self) -> Counter[str]:
        """Count those of them that are known to become nothing."""
        return self.decoder.internal

    @property
    def malformed(self) -> Counter[str]:
        """Count the lines with a known name and not its shape."""
        return self.decoder.malformed

    @property
    def unknown(self) -> Counter[str]:
        """Count the remaining lines by first word."""
        return self.decoder.unknown

    @property
    def samples(self) -> list[Sample]:
        """Give the first unknown and malformed lines, in the order of the file."""
        both = self.decoder.unknown_samples + self.decoder.malformed_samples
        return sorted(both, key=lambda sample: sample.line)

    @property
    def problems(self) -> list[Problem]:
        """Give the lines that disagree with each other."""
        return self.decoder.problems

    @property
    def header_hints(self) -> dict[str, str]:
        """Guess where the recording comes from: format, dialect (`qemu-10.0`), form of its times.

        Before the events have been read this goes by the beginning of the file.
        """
        found = next(known for known in FORMATS if known.name == self.format)
        seen = self.decoder if self.decoder.lines > self._ahead.lines else self._ahead
        hints = {} if found.hints is None else found.hints(seen)
        return {"format": self.format, **hints}


def open_capture(path: Path | str) -> Capture:
    """Open a recording of any known format; DecodeError when there is none, OSError as usual."""
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = _find(head)
    if found is None:
        names = ", ".join(known.name for known in FORMATS)
        raise DecodeError("capture", f"{path} is in no known format ({names})")
    if found.decoder is None:
        raise DecodeError("capture", f"{path} is a memory image ({found.name}), it has no events")
    return Capture(path, found.name, found.decoder, head)
