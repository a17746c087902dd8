"""Say in one paragraph what a minimal trace is about: what changed, what is missing, which rule."""

from __future__ import annotations

from typing import Final

from decoders.events import Event, Request, Role, Snapshot, Store
from harness.decoded import unit_of
from harness.decoded_virtio import request_words
from harness.explain import answer, missing_invalidation, written
from harness.findings import BROKEN, UNANSWERED, Finding, FindingKind
from harness.minimise.closure import read_by
from harness.minimise.judges import Shown
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.replay import unit_config
from harness.signature import CRASH, DISAGREEMENT, HANG
from harness.trace import VIRTIO, VTD
from harness.trace.lines import format_event

_RULES: Final[dict[tuple[str, str], str]] = {
    (VTD, FindingKind.DIVERGENCE): "neither the tables as they are nor any entry that may still be"
    " cached gives that answer (VT-d 3 and 6)",
    (VTD, FindingKind.STALE_USE): "software that changes an entry which may be cached has to"
    " invalidate it before it counts on the new one (VT-d 6.5)",
    (VTD, FindingKind.STALE_AFTER_INVALIDATION): "once an invalidation is complete no request is"
    " answered from what it covered (VT-d 6.5)",
    (VTD, FindingKind.UNFLUSHED): "software that changes an entry which may be cached has to"
    " invalidate it, or which of the two answers comes is luck (VT-d 6.5)",
    (VTD, FindingKind.PAGE_REUSE): "a page that was a table may be used for something else only"
    " once no cache leads to it (VT-d 6.5)",
    (VIRTIO, FindingKind.DIVERGENCE): "each request has the statuses, and each access the outcome,"
    " that the driver's requests so far give it (virtio 1.4, 5.13.6)",
    (VIRTIO, FindingKind.STALE_AFTER_INVALIDATION): "once UNMAP, DETACH or another ATTACH is"
    " answered the mapping is gone (virtio 1.4, 5.13.6)",
}
"""What each kind of finding breaks, by the kind of the unit."""


def paragraph(shown: Shown, trace: Trace) -> str:
    """Return the paragraph about what a trace shows."""
    kind = unit_of(trace.header).kind
    finding, signature = shown.finding, shown.signature
    if signature.kind == DISAGREEMENT:
        where = f" at a {signature.event}" if signature.event else ""
        said = f" ({signature.outcome})" if signature.outcome else ""
        return f"The model and the native core part{where}: {signature.subject}{said}."
    if signature.kind in (CRASH, HANG):
        return f"The target does not survive this: {signature}."
    if finding is None and signature.kind in list(FindingKind):
        return f"The unit does otherwise than it should: {signature}."
    if finding is None:
        return f"The judge takes this for interesting: {signature}."
    return " ".join(_sentences(finding, trace, kind)) + _rule(kind, finding)


def _rule(kind: str, finding: Finding) -> str:
    rule = _RULES.get((kind, finding.kind))
    return f" The rule: {rule}." if rule else ""


def _sentences(finding: Finding, trace: Trace, kind: str) -> list[str]:
    said = []
    event = _at(trace, finding.event)
    about = _named(trace, finding.event)

    def word(outcome: object) -> str:
        return written(finding, event, outcome) if kind == VIRTIO else answer(outcome)

    if finding.subject in (UNANSWERED, BROKEN):
        said.append(f"The unit does not give {about} back.")
    elif finding.kind == FindingKind.PAGE_REUSE:
        said.append(f"With {about} a page that was a table is written again.")
    elif finding.subject == "access" and not finding.permitted:
        # A model always permits something; a real unit may have done what nobody watches.
        seen = word(finding.observed)
        said.append(f"At {about} {seen} is expected; what the unit did instead did not show.")
    else:
        permitted = " or ".join(dict.fromkeys(word(one) for one in finding.permitted)) or "nothing"
        seen = word(finding.observed)
        said.append(f"At {about} the unit gave {seen}, where {permitted} is permitted.")
    if finding.steps:
        role, level, address, value = finding.steps[-1]
        name = Role(role).name.lower().replace("_", " ") + (f" level {level}" if level else "")
        by = _writer(trace, address, finding.event)
        said.append(f"The walk ends at the {name} entry at {address:#x}, {value:#x}{by}.")
    cache = finding.cache or "cache"
    if finding.filled_by >= 0:
        done = "made" if kind == VIRTIO else f"filled the {cache}"
        said.append(f"It was {_named(trace, finding.filled_by)} that {done}.")
    if finding.changed_by >= 0:
        said.append(f"Then {_named(trace, finding.changed_by)} changed what that was made from.")
    if finding.covered_by >= 0:
        said.append(f"Then {_named(trace, finding.covered_by)} ended it.")
    missing = missing_invalidation(finding, event)
    if missing:
        said.append(f"Missing between them: {missing}.")
    return said


def _writer(trace: Trace, address: int, last: int) -> str:
    config = unit_config(trace.header)
    if not isinstance(config, UnitConfig):
        return ""
    reader = read_by(config, trace.events[: last + 1])
    number = reader.memory.last_writer(address)
    return "" if number is None else f", written by {_named(trace, number)}"


def _at(trace: Trace, number: int) -> Event | None:
    return trace.events[number] if 0 <= number < len(trace.events) else None


def _named(trace: Trace, number: int) -> str:
    event = _at(trace, number)
    match event:
        case None:
            return f"event {number}"
        case Request(data):
            return f"event {number} ({request_words(data)})"
        case Snapshot(address):
            return f"event {number} (snapshot of {address:#x})"
        case Store(address, _, value):
            return f"event {number} (store of {value:#x} to {address:#x})"
        case _:
            return f"event {number} ({format_event(event)})"
