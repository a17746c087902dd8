"""Findings in words: both outcomes, the walk with its fields, the store and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Interrupt,
    InterruptRequest,
    Message,
    PageRequestRecord,
    PageResponse,
    Posted,
    Request,
    Role,
    StatusWrite,
    Translation,
)
from decoders.fields import Structure
from decoders.layout import layout
from decoders.virtio_iommu.requests import TAIL_SIZE
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from decoders.vtd.interrupt import InterruptRemapEntry, message_index
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.decoded import known_reason
from harness.decoded_virtio import decode_report, properties, request_words, status_text
from harness.findings import BROKEN, UNANSWERED, Finding, FindingKind, StepTuple
from harness.trace import VIRTIO, VTD
from harness.trace.lines import format_event, format_sid

SHAPES: dict[Role, type[Structure]] = {
    Role.ROOT: RootEntry,
    Role.CONTEXT: ContextEntry,
    Role.SCALABLE_CONTEXT: ScalableContextEntry,
    Role.PASID_DIRECTORY: PasidDirectoryEntry,
    Role.PASID_TABLE: PasidEntry,
    Role.SECOND_STAGE: SecondStageEntry,
    Role.FIRST_STAGE: FirstStageEntry,
    Role.INTERRUPT_TABLE: InterruptRemapEntry,
}
_MISSING = {
    "context": "a context-cache invalidation of the device, then an IOTLB one of the domain",
    "pasid": "a PASID-cache invalidation, then an invalidation of the PASID's translations",
    "paging-structure": "an IOTLB invalidation of the region without the leaf-only hint (IH = 0)",
}
_INTRODUCTION = {
    FindingKind.DIVERGENCE: "the recorded answer is not permitted",
    FindingKind.STALE_USE: "the unit used an entry that software has changed and not invalidated",
    FindingKind.STALE_AFTER_INVALIDATION: "the unit used an entry after its invalidation",
    FindingKind.UNFLUSHED: "software changed an entry without invalidating it; the recorded unit"
    " happened to read the new one",
    FindingKind.PAGE_REUSE: "a table page is written again while a cache may still lead to it",
}
_VIRTIO_INTRODUCTION = {
    FindingKind.STALE_AFTER_INVALIDATION: "the unit used a mapping after its end",
}
_UNANSWERED = {
    UNANSWERED: "the unit did not give the request back, and does not ask to be reset",
    BROKEN: "the unit did not give the request back: it asks to be reset (NEEDS_RESET)",
}
"""By the subject of a finding; it has what was recorded, or what is permitted."""
_LABELS = ("filled by", "changed by", "covered by")
_VIRTIO_LABELS = ("mapped by", "changed by", "ended by")


def answer(outcome: object, kind: str = VTD) -> str:
    """Put an outcome, an observation or a register value into words; kind is that of the unit."""
    match outcome:
        case None:
            return "nothing"
        case Translation(address, mask):
            return f"translation to {address:#x}, page mask {mask:#x}"
        case Message(address, data):
            return f"message {address:#x} data {data:#x}"
        case Posted(descriptor, vector, urgent):
            how = "urgent" if urgent else "not urgent"
            return f"vector {vector:#x} posted to {descriptor:#x}, {how}"
        case Fault(0) if kind == VTD:
            return "refused, the reason was not recorded"
        case Fault(reason):
            known = known_reason(reason, kind)
            return f"fault {reason:#04x}" + (f" ({known})" if known else "")
        case Descriptor(words):
            shape = DESCRIPTORS.get(descriptor_type(words[0]))
            name = shape.__name__ if shape else "unknown descriptor"
            return f"{name} {fields_of(shape, words)}" if shape else f"{name} {words[0]:#x}"
        case FaultRecord(index, low, high):
            return f"fault record {index}: {high:#018x} {low:#018x}"
        case FaultReport(_, _, endpoint, address):
            text = decode_report(outcome).text()
            return f"fault report {text}, endpoint {format_sid(endpoint)}, address {address:#x}"
        case StatusWrite(address, value):
            return f"status write of {value:#x} to {address:#x}"
        case Interrupt(address, data):
            return f"interrupt {address:#x} data {data:#x}"
        case PageRequestRecord() | PageResponse() | DeviceTlbMessage():
            return format_event(outcome)
        case int():
            return f"{outcome:#x}"
        case _:
            return str(outcome)


def fields_of(shape: type[Structure], words: tuple[int, ...]) -> str:
    """Return the non-zero fields of a structure as `name=value`."""
    shown = []
    for name, field in layout(shape).fields.items():
        if field.word < len(words) and (value := field.get(words)):
            pointer = field.width >= 40
            shown.append(f"{name}={field.address(words):#x}" if pointer else f"{name}={value:#x}")
    return " ".join(shown) or "all zero"


def _walk(steps: tuple[StepTuple, ...]) -> Iterator[str]:
    """Yield a line per entry; quadwords of one entry follow each other and are joined."""
    position = 0
    while position < len(steps):
        role, level, address, _ = steps[position]
        role = Role(role)
        shape = SHAPES[role]
        if role == Role.ROOT and any(step[0] == Role.SCALABLE_CONTEXT for step in steps):
            shape = ScalableRootEntry
        count = layout(shape).words
        words = tuple(step[3] for step in steps[position : position + count])
        name = role.name.lower().replace("_", " ") + (f" level {level}" if level else "")
        values = " ".join(f"{word:#x}" for word in words)
        yield f"{name} at {address:#x}: {values}  [{fields_of(shape, words)}]"
        position += count


def written(finding: Finding, event: Event | None, outcome: object) -> str:
    """Put what is permitted, or was recorded, into words: bytes are what the finding is about."""
    if not isinstance(outcome, bytes):
        return answer(outcome, VIRTIO)
    if finding.subject not in ("request", *_UNANSWERED):
        return f"bypass {outcome.hex()}"  # all of a config space that is compared
    found, _ = properties(event.data if isinstance(event, Request) else b"", outcome)
    size = len(outcome) - TAIL_SIZE
    words = status_text(outcome) + (f" behind {size} bytes of properties" if size > 0 else "")
    return f"{words}: {', '.join(found)}" if found else words


def missing_invalidation(finding: Finding, event: Event | None) -> str | None:
    """Say which invalidation software owed, None where that is not what a finding is about."""
    if finding.kind not in (FindingKind.STALE_USE, FindingKind.UNFLUSHED):
        return None
    if isinstance(event, InterruptRequest):
        index = message_index(event.address, event.data)
        return f"interrupt entry invalidation, index {index or 0:#x}"
    if finding.cache == "device-tlb":
        return "device-TLB invalidation of the device, for the page that leads there"
    if finding.cache in _MISSING:
        return _MISSING[finding.cache]
    page = f", page {event.iova & ~0xFFF:#x}" if isinstance(event, Access) else ""
    first = any(step[0] == Role.FIRST_STAGE for step in finding.steps)
    name = "PASID-based IOTLB invalidation" if first else "IOTLB invalidation"
    return f"{name}, domain {finding.domain:#x}{page}"


def explain(finding: Finding, event_at: Callable[[int], Event | None], kind: str = VTD) -> str:
    """Return the finding as indented lines.

    event_at looks an event up by its number, kind is that of the unit.
    """
    event = event_at(finding.event)
    virtio = kind == VIRTIO

    def named(number: int) -> str:
        found = event_at(number)
        if found is None:
            return f"event {number}"
        if isinstance(found, Request):
            return f"event {number}: {request_words(found.data)}"
        return f"event {number}: {format_event(found)}"

    introduction = _INTRODUCTION | (_VIRTIO_INTRODUCTION if virtio else {})
    said = _UNANSWERED.get(finding.subject, introduction[finding.kind])
    lines = [f"{finding.kind}: {named(finding.event)}", f"  {said}"]
    if finding.kind != FindingKind.PAGE_REUSE:
        observed, *permitted = (
            written(finding, event, outcome) if virtio else answer(outcome)
            for outcome in (finding.observed, *finding.permitted)
        )
        unanswered = finding.subject in _UNANSWERED
        if finding.observed is not None or not unanswered:
            lines.append(f"  recorded    {observed}")
        if not permitted and not unanswered:
            permitted = ["nothing"]
        lines += [f"  permitted   {outcome}" for outcome in permitted]
    lines += [f"  walk        {line}" for line in _walk(finding.steps)]
    if virtio and finding.subject == "access":
        lines.append(f"  domain      {f'{finding.domain:#x}' if finding.domain >= 0 else 'none'}")
    elif finding.cache:
        domain = f", domain {finding.domain:#x}" if finding.domain >= 0 else ""
        lines.append(f"  cache       {finding.cache}{domain}")
    numbers = finding.filled_by, finding.changed_by, finding.covered_by
    for label, number in zip(_VIRTIO_LABELS if virtio else _LABELS, numbers, strict=True):
        if number >= 0:
            lines.append(f"  {label:<11} {named(number)}")
    missing = missing_invalidation(finding, event)
    if missing:
        lines.append(f"  missing     {missing}")
    return "\n".join(lines)
