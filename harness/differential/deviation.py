"""Describe what a real VT-d unit does otherwise, and what is known of a finding about one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.model.dialects import SPECIFICATION, Dialect

NO_RECORD: Final = "lost"
"""An access that lands nowhere and leaves no fault record, as `observed` of a condition."""


BEFORE_11: Final = (10, 0)
"""The last version measured that lacks what 11.1 has."""


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
class Condition:
    """Describe the findings that are a deviation.

    Its subject is one of these, what was seen and one of what was permitted are among those given,
    where any are, and all notes are there.
    """

    subject: tuple[str, ...]
    observed: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def fits(self, found: Situation) -> bool:
        """Say whether a finding is one of these."""
        return (
            found.subject in self.subject
            and (not self.observed or found.observed in self.observed)
            and (not self.permitted or bool(found.permitted.intersection(self.permitted)))
            and found.notes.issuperset(self.notes)
        )


@dataclass(frozen=True, slots=True)
class VtdDeviation:
    """Describe one deviation.

    since and last are the first and the last version that have it, () where all measured do.

    It shows as members of a dialect, or as findings that one of the conditions fits.
    """

    id: str
    section: str
    what: str
    source: str
    fixed: str = ""
    since: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    members: tuple[str, ...] = ()
    shows: tuple[Condition, ...] = ()

    def concerns(self, version: tuple[int, ...]) -> bool:
        """Say whether a version has it."""
        too_old = version[: len(self.since)] < self.since
        return not too_old and (not self.last or version[: len(self.last)] <= self.last)

    def condition(self, found: Situation, version: tuple[int, ...]) -> int | None:
        """Return the number of the first condition that makes a finding this deviation."""
        if not self.concerns(version):
            return None
        fitting = (number for number, one in enumerate(self.shows) if one.fits(found))
        return next(fitting, None)

    def without(self, dialect: Dialect) -> Dialect:
        """Return a dialect that follows the specification in this."""
        return replace(dialect, **{name: getattr(SPECIFICATION, name) for name in self.members})
