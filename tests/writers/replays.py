"""Edit traces as text and replay them on a target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decoders.events import Event
from harness.decoded import unit_of
from harness.explain import explain
from harness.findings import Finding
from harness.replay import unit_config
from harness.targets import Counters, target_named
from harness.trace import Block, Header, parse_text
from harness.trace.codec import Encoder

BLOCK = 4096
"""Events per block that a target is fed with; odd traces end inside of one."""


@dataclass(frozen=True)
class Replayed:
    """What a replay found, and the events it was about."""

    header: Header
    events: Sequence[Event]
    counters: Counters
    findings: list[Finding]

    def explain(self, finding: Finding) -> str:
        """Return a finding in words."""
        return explain(finding, self.event_at, unit_of(self.header).kind)

    def event_at(self, number: int) -> Event | None:
        """Return an event by its number."""
        return self.events[number] if 0 <= number < len(self.events) else None


def replay_events(header: Header, events: Sequence[Event], target: str) -> Replayed:
    """Replay events on the target of that name."""
    replay = target_named(target, unit_config(header))
    encoder = Encoder()
    for first in range(0, len(events), BLOCK):
        part = events[first : first + BLOCK]
        replay.feed(Block(first, len(part), b"".join(encoder.encode(event) for event in part)))
    replay.finish()
    return Replayed(header, events, replay.counters(), list(replay.findings()))


def replay_text(text: str, target: str) -> Replayed:
    """Replay a trace in its text form on the target of that name."""
    return replay_events(*parse_text(text), target)


class Script:
    """Hold the lines of a trace and change them by content; each step gives a new script.

    A line stands for itself; where it occurs more than once, occurrence counts from 0.
    """

    def __init__(self, lines: Iterable[str]):
        self.lines = tuple(line.strip() for line in lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def find(self, line: str, occurrence: int = 0) -> int:
        """Return the index of a line."""
        places = [index for index, known in enumerate(self.lines) if known == line]
        assert len(places) > occurrence, f"{line!r} occurs {len(places)} times"
        return places[occurrence]

    def number(self, line: str, occurrence: int = 0) -> int:
        """Return the number of the event a line stands for."""
        before = self.lines[: self.find(line, occurrence)]
        return sum(1 for known in before if is_event(known))

    def without(self, *lines: str) -> Script:
        """Take lines out."""
        kept = list(self.lines)
        for line in lines:
            del kept[Script(kept).find(line)]
        return Script(kept)

    def replace(self, line: str, other: str, occurrence: int = 0) -> Script:
        """Put another line in the place of one."""
        index = self.find(line, occurrence)
        return Script([*self.lines[:index], other, *self.lines[index + 1 :]])

    def after(self, line: str, *more: str, occurrence: int = 0) -> Script:
        """Put lines behind one."""
        index = self.find(line, occurrence) + 1
        return Script([*self.lines[:index], *more, *self.lines[index:]])

    def append(self, *more: str) -> Script:
        """Put lines at the end."""
        return Script([*self.lines, *more])


def is_event(line: str) -> bool:
    """Say whether a line of the text form is an event: neither head, nor comment, nor empty."""
    return bool(line) and not line.startswith(("#", "dmarewind-text ", "header "))
