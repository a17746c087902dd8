"""Rules that software has to keep, and the violations of them that a trace proves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

KEPT = 1000
"""Violations that are kept in full; more are counted only."""
CAUSES = 1 << 16
"""Causes that are remembered, so that each is reported once; one more and all are forgotten."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Give what software must do: a stable id, where that is written, and why, in a paragraph."""

    id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Violation:
    """Report that a rule was broken at an event.

    detail says what exactly is wrong there; events are other events that have a part in it.
    """

    rule: Rule
    event: int
    detail: str
    events: dict[str, int] = field(default_factory=dict)


class Notebook:
    """Collect violations: each cause once, and KEPT of them in full."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.count = 0
        self._seen: set[tuple[str, object]] = set()

    def note(
        self, rule: Rule, event: int, detail: str, *, cause: object = None, **events: int
    ) -> None:
        """Take down a violation; cause is what makes it another one (default: the event)."""
        key = (rule.id, event if cause is None else cause)
        if key in self._seen:
            return
        if len(self._seen) >= CAUSES:
            self._seen.clear()
        self._seen.add(key)
        self.count += 1
        if len(self.kept) < KEPT:
            known = {name: number for name, number in events.items() if number >= 0}
            self.kept.append(Violation(rule, event, detail, known))


def by_id(*groups: Iterable[Rule]) -> dict[str, Rule]:
    """Return the rules of groups by their ids; raise ValueError when two share one."""
    found: dict[str, Rule] = {}
    for rule in (rule for group in groups for rule in group):
        if rule.id in found:
            raise ValueError(f"two rules are called {rule.id}")
        found[rule.id] = rule
    return found
