"""Describe what a real VT-d unit does otherwise, and what is known of a finding about one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.model.dialects import SPECIFICATION, Dialect

NO_RECORD: Final = "lost"
"""An access that lands nowhere and leaves no fault record, as `observed` of a condition."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Describe a finding by facts: words for its subject, what was seen and what was permitted.

    observed and permitted are `fault 0xNN`, `translation`, `identity`, `lost` or a number; notes
    are harness.differential.situation's.
    """

    subject: str
    observed: str
    permitted: frozenset[str]
    notes: frozenset[str]


@dataclass(frozen=True, slots=True)
class VtdDeviation:
    """Describe one deviation.

    since and last are the first and the last version that have it, () where all measured do.

    It shows as members of a dialect, or where subject, observed, permitted (one of each, where any
    are given) and notes (all) fit a finding.
    """

    id: str
    section: str
    what: str
    source: str
    fixed: str = ""
    since: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    members: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    notes: frozenset[str] = frozenset()

    def concerns(self, version: tuple[int, ...]) -> bool:
        """Say whether a version has it."""
        too_old = version[: len(self.since)] < self.since
        return not too_old and (not self.last or version[: len(self.last)] <= self.last)

    def explains(self, found: Situation, version: tuple[int, ...]) -> bool:
        """Say whether a finding about a version is this deviation."""
        if self.members or not self.concerns(version):
            return False
        return (
            found.subject in self.subject
            and (not self.observed or found.observed in self.observed)
            and (not self.permitted or bool(found.permitted.intersection(self.permitted)))
            and self.notes <= found.notes
        )

    def without(self, dialect: Dialect) -> Dialect:
        """Return a dialect that follows the specification in this."""
        return replace(dialect, **{name: getattr(SPECIFICATION, name) for name in self.members})
