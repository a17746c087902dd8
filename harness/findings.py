"""What replay reports: an answer outside the permitted set, or one that luck decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from decoders.events import Delivery, Observation, Outcome

FINDINGS_KEPT = 1000
"""Findings a replay keeps in full; more are counted only."""
BYTES_KEPT = 16 << 20
"""Bytes of answers in these; once there are so many, more findings are counted only."""


class FindingKind(StrEnum):
    """Classify a finding; docs/design.md section 2 gives each condition."""

    DIVERGENCE = "divergence"
    STALE_USE = "stale-use"
    STALE_AFTER_INVALIDATION = "stale-after-invalidation"
    UNFLUSHED = "unflushed"
    PAGE_REUSE = "page-reuse"


UNANSWERED: Final = "unanswered"
BROKEN: Final = "broken"
"""Subjects of findings about a request that the unit did not give back, and that it did not give
back and asks to be reset (DEVICE_NEEDS_RESET; virtio 1.4, 2.1.2)."""

StepTuple = tuple[int, int, int, int]
"""Role, level, address and value of one entry that was read."""


Compared = Outcome | Delivery | Observation | bytes | int
"""What a recording and a target both say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Report one finding.

    event is the number of the event it is about, subject what was compared there; observed is what
    the recording says (None: nothing), permitted what the target would have allowed. steps is the
    walk. cache and domain name the cache entry involved, filled_by, changed_by and covered_by the
    events that filled it, changed the table under it and invalidated it; -1 where there is none.
    """

    event: int
    kind: FindingKind
    subject: str
    observed: Compared | None
    permitted: tuple[Compared, ...]
    steps: tuple[StepTuple, ...] = ()
    cache: str = ""
    domain: int = -1
    filled_by: int = -1
    changed_by: int = -1
    covered_by: int = -1

    @property
    def size(self) -> int:
        """Number of bytes in the answers that it holds."""
        answers = (self.observed, *self.permitted)
        return sum(len(one) for one in answers if isinstance(one, bytes))

    def as_json(self) -> dict[str, Any]:
        """Return the members as JSON can hold them, bytes in hexadecimal."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return str(value) if isinstance(value, StrEnum) else value


@dataclass(slots=True)
class Kept:
    """Keep the first findings of a replay, as many as FINDINGS_KEPT and BYTES_KEPT allow."""

    findings: list[Finding] = field(default_factory=list)
    size: int = 0

    def add(self, finding: Finding) -> None:
        """Keep one more, if there is room."""
        if len(self.findings) < FINDINGS_KEPT and self.size < BYTES_KEPT:
            self.findings.append(finding)
            self.size += finding.size
