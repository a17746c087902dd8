"""The core's plain tuples and the project's dataclasses, one into the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from decoders.events import (
    Delivery,
    Descriptor,
    DeviceTlbMessage,
    Fault,
    FaultRecord,
    FaultReport,
    Interrupt,
    Message,
    Observation,
    Outcome,
    PageRequestRecord,
    PageResponse,
    Posted,
    Role,
    StatusWrite,
    Translation,
)
from harness.findings import Finding, FindingKind
from harness.model.interrupts import Remapping
from harness.model.translate import Candidate
from harness.model.walk import Step


def plain_outcome(outcome: Outcome | Delivery | None) -> tuple[Any, ...] | None:
    """Return an outcome as the core takes it."""
    match outcome:
        case Translation(address, mask):
            return ("translation", address, mask)
        case Fault(reason):
            return ("fault", reason)
        case Message(address, data):
            return ("message", address, data)
        case Posted(descriptor, vector, urgent):
            return ("posted", descriptor, vector, urgent)
        case None:
            return None


def plain_observation(seen: Observation) -> tuple[Any, ...]:
    """Return an observation as the core takes it."""
    match seen:
        case Descriptor(words):
            return ("descriptor", words)
        case FaultRecord(index, low, high):
            return ("fault-record", index, low, high)
        case StatusWrite(address, value):
            return ("status-write", address, value)
        case Interrupt(address, data):
            return ("interrupt", address, data)
        case FaultReport(reason, flags, endpoint, address):
            return ("fault-report", reason, flags, endpoint, address)
        case PageRequestRecord(address, words):
            return ("page-request-record", address, words)
        case PageResponse(sid, pasid, group, code):
            return ("page-response", sid, pasid, group, code)
        case DeviceTlbMessage(sid, pasid, address, mask, every_pasid):
            return ("device-tlb", sid, pasid, address, mask, every_pasid)


_KINDS: dict[str, Callable[..., Outcome | Delivery | Observation]] = {
    "translation": Translation,
    "fault": Fault,
    "message": Message,
    "posted": Posted,
    "descriptor": Descriptor,
    "fault-record": FaultRecord,
    "status-write": StatusWrite,
    "interrupt": Interrupt,
    "fault-report": FaultReport,
    "page-request-record": PageRequestRecord,
    "page-response": PageResponse,
    "device-tlb": DeviceTlbMessage,
}


_OUTCOMES = (Translation, Fault, Message, Posted)


def _compared(plain: Any) -> Any:
    return _KINDS[plain[0]](*plain[1:]) if isinstance(plain, tuple) else plain


def outcome(plain: tuple[Any, ...]) -> Outcome:
    """Return the outcome the core's tuple stands for."""
    return cast(Outcome, _compared(plain))


def observation(plain: tuple[Any, ...]) -> Observation:
    """Return the observation the core's tuple stands for."""
    return cast(Observation, _compared(plain))


def finding(plain: tuple[Any, ...]) -> Finding:
    """Return the finding the core's tuple stands for."""
    event, kind, subject, observed, permitted, steps, *rest = plain
    return Finding(
        event,
        FindingKind(kind),
        subject,
        _compared(observed),
        tuple(_compared(one) for one in permitted),
        steps,
        *rest,
    )


def plain_finding(finding: Finding) -> tuple[Any, ...]:
    """Return a finding as the core gives it."""
    return (
        finding.event,
        finding.kind,
        finding.subject,
        _plain(finding.observed),
        tuple(_plain(one) for one in finding.permitted),
        finding.steps,
        finding.cache,
        finding.domain,
        finding.filled_by,
        finding.changed_by,
        finding.covered_by,
    )


def _plain(compared: Any) -> Any:
    if compared is None or isinstance(compared, int | bytes):
        return compared
    if isinstance(compared, _OUTCOMES):
        return plain_outcome(compared)
    return plain_observation(compared)


def plain_candidate(candidate: Candidate) -> tuple[Any, ...]:
    """Return a permitted outcome as the core gives it."""
    return (
        plain_outcome(candidate.outcome),
        candidate.steps,
        candidate.fault_disable,
        candidate.cache,
        candidate.domain,
        candidate.filled_by,
        candidate.changed_by,
    )


def plain_remapping(remapping: Remapping) -> tuple[Any, ...]:
    """Return a permitted outcome of an interrupt as the core gives it."""
    return (
        plain_outcome(remapping.outcome),
        remapping.steps,
        remapping.fault_disable,
        remapping.index,
        remapping.cache,
        remapping.filled_by,
        remapping.changed_by,
    )


def candidate(plain: tuple[Any, ...]) -> Candidate:
    """Return the permitted outcome the core's tuple stands for."""
    outcome, steps, *rest = plain
    return Candidate(cast(Outcome, _compared(outcome)), _steps(steps), *rest)


def remapping(plain: tuple[Any, ...]) -> Remapping:
    """Return the permitted outcome of an interrupt the core's tuple stands for."""
    outcome, steps, *rest = plain
    return Remapping(cast(Delivery, _compared(outcome)), _steps(steps), *rest)


def _steps(plain: Sequence[tuple[int, int, int, int]]) -> tuple[Step, ...]:
    return tuple(Step(Role(role), *place) for role, *place in plain)
