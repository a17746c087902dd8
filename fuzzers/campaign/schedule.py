"""Share time between targets: those that brought something lately get more.

Each target has a clock, which a slice advances by its seconds divided by the target's energy; the
target whose clock is furthest behind is next. Energy is from 1 to MOST, so that of n targets each
gets at least 1 / (n * MOST) of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 8.0
REMEMBERED: Final = 10
"""Slices that count."""
_FADING: Final = 0.8
_FIRST_REST: Final = 5.0
_LONGEST_REST: Final = 600.0

MERGE_FROM: Final = 200
"""Inputs below which a corpus is not merged."""
_GROWN: Final = 2
"""A corpus is merged when it has so many times the inputs that the last merge left."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Hold what decides whether a target is next; news tells of its last slices, newest first."""

    target: str
    clock: float
    news: Sequence[bool]
    resting_until: float = 0.0


def energy(news: Sequence[bool]) -> float:
    """Return how much a target deserves; one that was never run deserves the most."""
    recent = list(news[:REMEMBERED])
    if not recent:
        return MOST
    weights = [_FADING**age for age in range(len(recent))]
    share = sum(weight for weight, new in zip(weights, recent, strict=True) if new) / sum(weights)
    return 1 + (MOST - 1) * share


def choose(turns: Iterable[Turn], now: float) -> Turn | None:
    """Return who is next; None when all rest."""
    awake = [turn for turn in turns if turn.resting_until <= now]
    return min(awake, key=lambda turn: (turn.clock, turn.target), default=None)


def rest(failures: int) -> float:
    """Return for how many seconds a target is left alone that failed so many times in a row."""
    return min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(failures - 1, 16)) if failures else 0.0


def merge_due(inputs: int, left: int) -> bool:
    """Say whether a corpus has grown enough since a merge left so many inputs."""
    return inputs >= max(MERGE_FROM, _GROWN * left)
