"""Read the trace log of QEMU's emulated VT-d unit, with the recorder's lines in it.

One file, written by QEMU's log backend (`-trace 'vtd_*' -D FILE`), holds both in the order of
execution. A line starts with nothing, with ``tid@seconds.microseconds:`` (`-msg timestamp=on`,
QEMU up to 10.0, trace lines only) or with an ISO 8601 time (the same option from 10.1, all
lines). Formats are those of the `trace-events-all` file in QEMU's data directory, version 10.0.

A log is hostile input: lines may be torn, glued or invented. No line raises. Every line is
counted exactly once, as blank, as well-formed under its name, as malformed under the name it
seems to have, or as unknown.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from decoders.capture import recorder
from decoders.capture.qemu_events import EVENT_LINES, INTERNAL_LINES
from decoders.events import (
    Clock,
    Event,
    Gap,
    RegRead,
    RegWrite,
)

LINE_LIMIT: Final = 64 * 1024
"""Bytes of the longest line that is read; the longest genuine one is a full snapshot, 11 KiB."""

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

_UNCONFIRMED_LIMIT: Final = 64
_SAMPLE_BYTES: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Sample:
    """Keep one line that was not understood: its number, counted from 1, and how it began."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Report two lines that should agree and do not; line is where it came to light."""

    line: int
    text: str


_thread_time = re.compile(rb"[0-9]{1,10}@([0-9]{1,12})\.([0-9]{6})").fullmatch


def _instant(text: bytes) -> int | None:
    """Read an ISO 8601 time as microseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


class QemuLogDecoder:
    """Turn the bytes of a log, cut anywhere, into events.

    `counts` holds the well-formed lines by name (a recorder line's name is ``dmr VERB``),
    `malformed` those that have a known name and not its shape, `unknown` the rest by first word;
    with `blank` they add up to `lines`. A malformed line that would have been an event leaves a
    Gap in its place, so that a replay knows that something is missing.
    """

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
        self._skipping = False
        self._held: RegRead | None = None
        self._recording = False
        self._unconfirmed: deque[tuple[int, RegWrite]] = deque()
        self._prefixed = False
        self._zero: int | None = None
        self._now = 0
        self._clock = -CLOCK_STEP

    @property
    def counts(self) -> Counter[str]:
        """Count the well-formed lines by name, those that become nothing included."""
        return Counter({name.decode("ascii"): n for name, n in self._counts.items()})

    @property
    def internal(self) -> Counter[str]:
        """Count the well-formed lines that tell of the emulator's inside only."""
        names = self._counts.keys() & INTERNAL_LINES
        return Counter({name.decode("ascii"): self._counts[name] for name in names})

    def feed(self, chunk: bytes, now_us: int | None = None) -> Iterator[Event]:
        """Decode the lines that chunk completes; now_us dates them if they bear no time.

        All work is done before this returns, whether or not the events are looked at.
        """
        end = chunk.find(b"\n")
        if end < 0:
            self._keep(chunk)
            return iter(())
        self._keep(chunk[:end])
        if self._skipping:
            self._skipping = False
            self.lines += 1
            self._count_unknown(OVERLONG, bytes(self._tail))
            lines = []
        else:
            lines = [bytes(self._tail)]
        self._tail.clear()
        rest = chunk[end + 1 :].split(b"\n")
        self._keep(rest.pop())
        lines += rest
        return iter(self._decode(lines, now_us))

    def finish(self) -> Iterator[Event]:
        """Give what was held back, and count a last line without its end as torn.

        Such a line is malformed even if it looks whole: its number may have lost digits.
        """
        events: list[Event] = []
        self._flush(events)
        if self._skipping:
            self.lines += 1
            self._count_unknown(OVERLONG, bytes(self._tail))
        elif self._tail:
            self.lines += 1
            name = self._name(bytes(self._tail))
            if name is None:
                self._count_unknown(_word(bytes(self._tail)), bytes(self._tail))
            else:
                self._count_malformed(name, bytes(self._tail), events)
        self._tail.clear()
        self._skipping = False
        return iter(events)

    def _keep(self, piece: bytes) -> None:
        """Add to the unfinished line, of which no more than the limit is kept."""
        if self._skipping:
            return
        self._tail += piece
        if len(self._tail) > LINE_LIMIT:
            del self._tail[_SAMPLE_BYTES:]
            self._skipping = True

    def _decode(self, lines: list[bytes], now_us: int | None) -> list[Event]:
        # The hot path: one dictionary lookup on the first word and, for lines that matter, one
        # regular expression. Everything rare lives in methods of its own.
        out: list[Event] = []
        counts = self._counts
        event_lines = EVENT_LINES
        internal_lines = INTERNAL_LINES
        for line in lines:
            self.lines += 1
            name, _, rest = line.partition(b" ")
            parse = event_lines.get(name)
            if parse is None and name not in internal_lines and name != b"dmr":
                stripped = self._strip_prefix(name, rest, line)
                if stripped is None:
                    continue
                name, rest = stripped
                parse = event_lines.get(name)
            elif now_us is not None and not self._prefixed:
                self._set_time(now_us)
            if len(line) > LINE_LIMIT:
                self._count_unknown(OVERLONG, line)
                continue
            if parse is not None:
                event = parse(rest)
                if event is None:
                    event = parse(rest.rstrip(b"\r"))
                    if event is None:
                        self._count_malformed(name, line, out)
                        continue
                counts[name] = counts.get(name, 0) + 1
            elif name in internal_lines:
                # Two lines run together would hide the second one.
                if b"vtd_" in rest or b"dmr " in rest:
                    self._count_malformed(name, line, out)
                else:
                    counts[name] = counts.get(name, 0) + 1
                    if name == b"vtd_inv_desc_wait_write_fail":
                        self._problem(f"the status write before was refused: {_text(rest)}")
                continue
            else:
                recorded = self._recorder_line(rest, line, out)
                if recorded is None:
                    continue
                event = recorded
            if self._held is not None:
                out.append(self._held)
                self._held = None
            if self._zero is not None and self._now >= self._clock + CLOCK_STEP:
                self._clock = self._now
                out.append(Clock(self._now))
            kind = type(event)
            if kind is RegRead:
                self._held = event  # type: ignore[assignment]
                continue
            if kind is RegWrite and self._recording:
                self._await_confirmation(event)  # type: ignore[arg-type]
            out.append(event)
        return out

    def _strip_prefix(self, name: bytes, rest: bytes, line: bytes) -> tuple[bytes, bytes] | None:
        """Take the time off a line and remember it; None when the line is accounted for."""
        if not line or line == b"\r":
            self.blank += 1
            return None
        if not line[:1].isdigit():
            self._count_unknown(_word(line), line)
            return None
        head, colon, name_after = name.partition(b":")
        match = _thread_time(head)
        if match is not None and colon:
            name = name_after
            moment: int | None = int(match[1]) * 1_000_000 + int(match[2])
        else:
            moment = _instant(name)
            name, _, rest = rest.partition(b" ")
        if moment is None or not self._is_known(name):
            self._count_unknown(_word(name) if moment is not None else _word(line), line)
            return None
        if not self._prefixed:
            # Times given by the caller, if any were, and times in the log have different zeros.
            self._prefixed = True
            self._zero = moment - self._now
        self._set_time(moment)
        return name, rest

    def _set_time(self, moment: int) -> None:
        """Move the clock; it never runs backwards, whatever the log says."""
        if self._zero is None:
            self._zero = moment
        if moment - self._zero > self._now:
            self._now = moment - self._zero

    def _recorder_line(self, rest: bytes, line: bytes, out: list[Event]) -> Event | None:
        """Parse what follows `dmr `, and give the event it is, if it is one."""
        verb, _, fields = rest.partition(b" ")
        parse = recorder.VERBS.get(verb.rstrip(b"\r"))
        if parse is None:
            self._count_unknown(_word(b"dmr " + verb), line)
            return None
        name = b"dmr " + verb.rstrip(b"\r")
        parsed = parse(fields.rstrip(b"\r"))
        if parsed is None:
            self._count_malformed(name, line, out)
            return None
        if isinstance(parsed, recorder.Begin) and parsed.grammar != recorder.GRAMMAR:
            self._problem(f"the recorder speaks grammar {parsed.grammar}, not {recorder.GRAMMAR}")
            self._count_malformed(name, line, out)
            return None
        self._counts[name] = self._counts.get(name, 0) + 1
        if isinstance(parsed, recorder.RegStore):
            self._confirm(parsed)
            return None
        if isinstance(parsed, recorder.RegLoad):
            self._attach(parsed, out)
            return None
        if isinstance(parsed, recorder.Begin):
            again = self._recording
            self._recording = True
            self._unconfirmed.clear()
            return Gap("recorder restarted") if again else None
        if isinstance(parsed, Gap):
            # Confirmations may be among what was lost.
            self._unconfirmed.clear()
        return parsed

    def _await_confirmation(self, write: RegWrite) -> None:
        self._unconfirmed.append((self.lines, write))
        if len(self._unconfirmed) > _UNCONFIRMED_LIMIT:
            line, old = self._unconfirmed.popleft()
            self._problem(f"{old} of line {line} was not seen by the recorder")

    def _confirm(self, store: recorder.RegStore) -> None:
        """Strike off the write that store confirms.

        Several processors may have writes under way, so the order is not binding; when nothing
        equals it, the oldest write to the same register is taken for its other half.
        """
        told = RegWrite(store.offset, store.size, store.value)
        for found in self._unconfirmed:
            if found[1] == told:
                self._unconfirmed.remove(found)
                return
        for found in self._unconfirmed:
            if found[1].offset == told.offset:
                self._unconfirmed.remove(found)
                self._problem(f"{found[1]} of line {found[0]} was recorded as {told}")
                return
        self._problem(f"the recorder saw {told}, the unit did not")

    def _attach(self, load: recorder.RegLoad, out: list[Event]) -> None:
        """Complete the read that waits for its value."""
        held = self._held
        if held is not None and (held.offset, held.size) == (load.offset, load.size):
            self._held = None
            out.append(RegRead(load.offset, load.size, load.value))
            return
        told = RegRead(load.offset, load.size, load.value)
        self._problem(f"the recorder saw {told}, the unit {'nothing' if held is None else held}")

    def _flush(self, out: list[Event]) -> None:
        if self._held is not None:
            out.append(self._held)
            self._held = None

    def _is_known(self, name: bytes) -> bool:
        return name in EVENT_LINES or name in INTERNAL_LINES or name == b"dmr"

    def _name(self, line: bytes) -> bytes | None:
        """Find the known name at the start of a line that may bear a time."""
        for word in line.split(b" ")[:2]:
            for name in (word, word.partition(b":")[2]):
                if self._is_known(name):
                    return name
        return None

    def _count_unknown(self, word: str, line: bytes) -> None:
        if word not in self.unknown and len(self.unknown) >= NAMES_LIMIT:
            word = OTHER
        self.unknown[word] += 1
        if len(self.unknown_samples) < SAMPLES_LIMIT:
            self.unknown_samples.append(Sample(self.lines, _text(line)))

    def _count_malformed(self, name: bytes, line: bytes, out: list[Event]) -> None:
        self.malformed[name.decode("ascii")] += 1
        if len(self.malformed_samples) < SAMPLES_LIMIT:
            self.malformed_samples.append(Sample(self.lines, _text(line)))
        if name not in INTERNAL_LINES or b"vtd_" in line[4:] or b"dmr " in line:
            self._flush(out)
            out.append(Gap(f"malformed {name.decode('ascii')} in line {self.lines}"))

    def _problem(self, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_LIMIT:
            self.problems.append(Problem(self.lines, text))


def _text(line: bytes) -> str:
    return line[:_SAMPLE_BYTES].decode("ascii", "backslashreplace")


def _word(line: bytes) -> str:
    """Give the first word of a line, as far as it may serve as a key."""
    words = line[:64].split(None, 1)
    return words[0].decode("ascii", "backslashreplace") if words else "(white space)"
