"""Collect mistakes: functions that make one in a driver's story, and the rule that each breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.harness.check.driver import Driver
from tests.writers.platform import unit_config

Make = Callable[[Driver], int]


@dataclass(frozen=True)
class Mistake:
    """A mistake: make() returns the number of the event that it must be found at."""

    rule: str
    make: Make
    driver: Callable[[], Driver]


BUDGET = 1 << 12
MISTAKES: dict[str, Mistake] = {}
"""By the names of the functions."""


def mistake(
    rule: str,
    *,
    wide: bool = False,
    ring: int = 0,
    ram: bool = False,
    width: int = 46,
    **capabilities: int,
) -> Callable[[Make], Make]:
    """Register a mistake that breaks a rule, on a unit with some capabilities."""

    def driver() -> Driver:
        made = Driver(
            unit_config(dialect="spec", width=width, ram=ram, page_budget=BUDGET, **capabilities),
            wide,
        )
        made.ring = ring or made.ring
        return made

    def register(make: Make) -> Make:
        assert make.__name__ not in MISTAKES
        MISTAKES[make.__name__] = Mistake(rule, make, driver)
        return make

    return register
