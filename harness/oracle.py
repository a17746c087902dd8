"""Says whether a recorded outcome may be right, given what was permitted."""

from __future__ import annotations

from collections.abc import Sequence

from decoders.events import Delivery, Fault, Outcome, Translation
from harness.findings import Finding, FindingKind
from harness.model.caches import Dropped
from harness.model.interrupts import KeptEntry, Remapping
from harness.model.translate import Candidate


def compatible(recorded: Outcome, permitted: Outcome, iova: int) -> bool:
    """Say whether a unit that permits one outcome may answer with the recorded one.

    A translation may be a fraction of the permitted page, never more than it.
    """
    if isinstance(recorded, Fault) or isinstance(permitted, Fault):
        return recorded == permitted
    if recorded.mask & ~permitted.mask:
        return False
    inside = permitted.mask & ~recorded.mask
    return recorded.address == permitted.address & ~permitted.mask | iova & inside


def same_place(left: Outcome, right: Outcome, iova: int) -> bool:
    """Say whether two outcomes lead one access to the same address, or to the same fault."""
    if isinstance(left, Translation) and isinstance(right, Translation):
        return left.address | iova & left.mask == right.address | iova & right.mask
    return left == right


def judge(
    event: int,
    iova: int,
    recorded: Outcome,
    permitted: Sequence[Candidate],
    dropped: Sequence[Dropped],
) -> Finding | None:
    """Return what is wrong with a recorded outcome, None when nothing is.

    permitted starts with the fresh outcome; dropped are cache entries that covered iova and have
    been invalidated.
    """
    fresh = permitted[0]
    outcomes = tuple(candidate.outcome for candidate in permitted)

    def finding(kind: FindingKind, source: Candidate) -> Finding:
        return Finding(
            event,
            kind,
            "access",
            recorded,
            outcomes,
            tuple(fresh.steps),
            source.cache,
            source.domain,
            source.filled_by,
            source.changed_by,
        )

    if compatible(recorded, fresh.outcome, iova):
        for other in permitted[1:]:
            if not same_place(other.outcome, fresh.outcome, iova):
                return finding(FindingKind.UNFLUSHED, other)
        return None
    for other in permitted[1:]:
        if compatible(recorded, other.outcome, iova):
            return finding(FindingKind.STALE_USE, other)
    for entry in dropped:
        if compatible(recorded, entry.outcome, iova):
            return Finding(
                event,
                FindingKind.STALE_AFTER_INVALIDATION,
                "access",
                recorded,
                outcomes,
                tuple(fresh.steps),
                "iotlb",
                fresh.domain,
                entry.filled_by,
                -1,
                entry.dropped_by,
            )
    return finding(FindingKind.DIVERGENCE, fresh)


def delivered_alike(recorded: Delivery, permitted: Delivery) -> bool:
    """Say whether a recorded outcome of an interrupt is a permitted one.

    A refusal without a recorded reason may be any.
    """
    if recorded == Fault(0):
        return isinstance(permitted, Fault)
    return recorded == permitted


def judge_interrupt(
    event: int,
    recorded: Delivery,
    permitted: Sequence[Remapping],
    dropped: Sequence[tuple[KeptEntry, Delivery]],
) -> Finding | None:
    """Return what is wrong with the recorded outcome of an interrupt, None when nothing is.

    permitted starts with the fresh outcome; dropped are entries that have been invalidated, and
    what they would give.
    """
    fresh, *stale = permitted
    outcomes = tuple(remapping.outcome for remapping in permitted)

    def finding(kind: FindingKind, cache: str = "", *events: int) -> Finding:
        return Finding(
            event, kind, "interrupt-request", recorded, outcomes, fresh.steps, cache, -1, *events
        )

    if delivered_alike(recorded, fresh.outcome):
        for other in stale:
            if not delivered_alike(recorded, other.outcome):
                kind = FindingKind.UNFLUSHED
                return finding(kind, other.cache, other.filled_by, other.changed_by)
        return None
    for other in stale:
        if delivered_alike(recorded, other.outcome):
            return finding(FindingKind.STALE_USE, other.cache, other.filled_by, other.changed_by)
    for entry, outcome in dropped:
        if delivered_alike(recorded, outcome):
            numbers = entry.filled_by, -1, entry.dropped_by
            return finding(FindingKind.STALE_AFTER_INVALIDATION, "interrupt-entry", *numbers)
    return finding(FindingKind.DIVERGENCE)
