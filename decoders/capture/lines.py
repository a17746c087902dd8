"""Cut a line-oriented capture into lines and account for every one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Final

from decoders.events import Clock, Event, Gap

CLOCK_STEP: Final = 1000
"""Microseconds that pass at least between two Clock events."""

NAMES_LIMIT: Final = 256
"""Different first words of unknown lines that are told apart; the rest share OTHER."""

SAMPLES_LIMIT: Final = 20
"""Lines kept as samples, of unknown and of malformed ones each."""

PROBLEMS_LIMIT: Final = 1000
"""Problems kept; all are counted."""

OVERLONG: Final = "(over-long line)"
OTHER: Final = "(other)"

_SAMPLE_BYTES: Final = 200
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """Keep one line that was not understood: its number, counted from 1, and how it began."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Report lines that should agree and do not; line is where it came to light."""

    line: int
    text: str


class LineDecoder(ABC):
    """Turn the bytes of a log, cut anywhere, into events; never raise for what they say.

    `counts` holds the well-formed lines by name, `malformed` those that have a known name and not
    its shape, `unknown` the rest by first word; with `blank` they add up to `lines`. A malformed
    line that would have been an event leaves a Gap in its place, so that a replay knows that
    something is missing.
    """

    line_limit: ClassVar[int] = 64 * 1024
    """Bytes of the longest line that is read; a longer one is unknown."""

    def __init__(self) -> None:
        self.lines = 0
        self.blank = 0
        self.unknown: Counter[str] = Counter()
        self.unknown_samples: list[Sample] = []
        self.malformed: Counter[str] = Counter()
        self.malformed_samples: list[Sample] = []
        self.problems: list[Problem] = []
        self.problem_count = 0
        self._counts: dict[bytes, int] = {}
        self._tail = bytearray()
        self._stream: Iterator[Event] = iter(())
        self._zero: int | None = None
        self._now = 0
        self._clock = -CLOCK_STEP

    @property
    def counts(self) -> Counter[str]:
        """Count the well-formed lines by name, those that become nothing included."""
        return Counter({name.decode("ascii"): n for name, n in self._counts.items()})

    @property
    @abstractmethod
    def internal(self) -> Counter[str]:
        """Count the well-formed lines that are known to become nothing, by name."""

    def feed(self, chunk: bytes, now_us: int | None = None) -> Iterator[Event]:
        """Decode the lines that chunk completes; now_us dates them if they bear no time.

        Lines are decoded, and counted, as the iterator advances. What an iterator still holds
        when the next chunk comes is given by the next one.
        """
        end = chunk.find(b"\n")
        if end < 0:
            self._keep(chunk)
            return self._stream
        self._keep(chunk[:end])
        lines = [bytes(self._tail)]
        self._tail.clear()
        rest = chunk[end + 1 :].split(b"\n")
        self._keep(rest.pop())
        lines += rest
        self._stream = chain(self._stream, self._run(lines, now_us))
        return self._stream

    def finish(self) -> Iterator[Event]:
        """Give what was held back, and count a last line without its end as torn.

        Such a line is malformed even if it looks whole: its number may have lost digits.
        """
        self._stream = chain(self._stream, self._end())
        return self._stream

    def _run(self, lines: list[bytes], now_us: int | None) -> Iterator[Event]:
        # In batches, because a short line can stand for a page.
        for start in range(0, len(lines), _BATCH):
            yield from self._decode(lines[start : start + _BATCH], now_us)

    def _end(self) -> Iterator[Event]:
        out: list[Event] = []
        line = bytes(self._tail)
        self._tail.clear()
        if line:
            self.lines += 1
            name = self._known_name(line)
            if len(line) > self.line_limit:
                self._count_unknown(OVERLONG, line)
            elif name is None:
                self._count_unknown(first_word(line), line)
            else:
                self._count_malformed(name, line, out)
        self._flush(out)
        yield from out

    @abstractmethod
    def _decode(self, lines: list[bytes], now_us: int | None) -> Iterable[Event]:
        """Decode whole lines (of which some may be over-long)."""

    @abstractmethod
    def _known_name(self, line: bytes) -> bytes | None:
        """Find the name that a damaged line seems to have."""

    @abstractmethod
    def _flush(self, out: list[Event]) -> None:
        """Give the event that waits for its second half, if one does."""

    @abstractmethod
    def _is_event(self, name: bytes, line: bytes) -> bool:
        """Say whether a damaged line may have been an event."""

    def _keep(self, piece: bytes) -> None:
        """Add to the unfinished line; one byte beyond the limit tells that it is too long."""
        room = self.line_limit + 1 - len(self._tail)
        if room > 0:
            self._tail += piece[:room]

    def _set_time(self, moment: int) -> None:
        """Move the clock; it never runs backwards, whatever the log says."""
        if self._zero is None:
            self._zero = moment
        if moment - self._zero > self._now:
            self._now = moment - self._zero

    def _tick(self, out: list[Event]) -> None:
        """Add a Clock before the next event when enough time has passed since the last."""
        if self._zero is not None and self._now >= self._clock + CLOCK_STEP:
            self._clock = self._now
            out.append(Clock(self._now))

    def _count(self, name: bytes) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    def _count_unknown(self, word: str, line: bytes) -> None:
        if word not in self.unknown and len(self.unknown) >= NAMES_LIMIT:
            word = OTHER
        self.unknown[word] += 1
        if len(self.unknown_samples) < SAMPLES_LIMIT:
            self.unknown_samples.append(Sample(self.lines, beginning(line)))

    def _count_malformed(self, name: bytes, line: bytes, out: list[Event]) -> None:
        text = name.decode("ascii")
        self.malformed[text] += 1
        if len(self.malformed_samples) < SAMPLES_LIMIT:
            self.malformed_samples.append(Sample(self.lines, beginning(line)))
        if self._is_event(name, line):
            self._lose(Gap(f"malformed {text} in line {self.lines}"), out)

    def _lose(self, gap: Gap, out: list[Event]) -> None:
        """Give what waits, then the gap."""
        self._flush(out)
        out.append(gap)

    def _problem(self, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_LIMIT:
            self.problems.append(Problem(self.lines, text))


def beginning(line: bytes) -> str:
    """Give how a line begins, fit to be shown."""
    return line[:_SAMPLE_BYTES].decode("ascii", "backslashreplace")


def first_word(line: bytes) -> str:
    """Give the first word of a line, as far as it may serve as a key."""
    words = line[:64].split(None, 1)
    return words[0].decode("ascii", "backslashreplace") if words else "(white space)"
