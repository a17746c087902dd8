"""What the tests of `record` share: command lines of guests, and traces as events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from decoders.errors import DecodeError
from decoders.events import Event
from harness.replay import Result, replay
from harness.trace import TraceReader

Guest = Callable[[str], list[str]]
Note = Callable[[str, object], None]


def read(path: Path) -> tuple[list[Event], DecodeError | None]:
    """Return the events of a trace, and the damage at its end."""
    events: list[Event] = []
    with TraceReader(path) as reader:
        try:
            events.extend(reader)
        except DecodeError as error:
            return events, error
    return events, None


def replayed(path: Path, targets: list[str]) -> list[Result]:
    """Replay a trace on every target, up to damage at its end."""
    results: list[Result] = []
    with contextlib.suppress(DecodeError):
        results.extend(replay(path, targets, True, page_budget=1 << 16))
    return results
