"""Findings in words: both outcomes, the walk with its fields, the store and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from decoders.events import (
    Access,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Interrupt,
    Role,
    StatusWrite,
    Translation,
)
from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from decoders.vtd.faults import FAULT_REASONS
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.findings import Finding, FindingKind, StepTuple
from harness.trace.lines import format_event

_SHAPES: dict[Role, type[Structure]] = {
    Role.ROOT: RootEntry,
    Role.CONTEXT: ContextEntry,
    Role.SCALABLE_CONTEXT: ScalableContextEntry,
    Role.PASID_DIRECTORY: PasidDirectoryEntry,
    Role.PASID_TABLE: PasidEntry,
    Role.SECOND_STAGE: SecondStageEntry,
    Role.FIRST_STAGE: FirstStageEntry,
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


def answer(outcome: object) -> str:
    """Put an outcome, an observation or a register value into words."""
    match outcome:
        case None:
            return "nothing"
        case Translation(address, mask):
            return f"translation to {address:#x}, page mask {mask:#x}"
        case Fault(reason):
            known = FAULT_REASONS.get(reason)
            return f"fault {reason:#04x}" + (f" ({known.tag} {known.text})" if known else "")
        case Descriptor(words):
            shape = DESCRIPTORS.get(descriptor_type(words[0]))
            name = shape.__name__ if shape else "unknown descriptor"
            return f"{name} {fields_of(shape, words)}" if shape else f"{name} {words[0]:#x}"
        case FaultRecord(index, low, high):
            return f"fault record {index}: {high:#018x} {low:#018x}"
        case StatusWrite(address, value):
            return f"status write of {value:#x} to {address:#x}"
        case Interrupt(address, data):
            return f"interrupt {address:#x} data {data:#x}"
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
        shape = _SHAPES[role]
        if role == Role.ROOT and any(step[0] == Role.SCALABLE_CONTEXT for step in steps):
            shape = ScalableRootEntry
        count = layout(shape).words
        words = tuple(step[3] for step in steps[position : position + count])
        name = role.name.lower().replace("_", " ") + (f" level {level}" if level else "")
        values = " ".join(f"{word:#x}" for word in words)
        yield f"{name} at {address:#x}: {values}  [{fields_of(shape, words)}]"
        position += count


def _missing(finding: Finding, event: Event | None) -> str | None:
    if finding.kind not in (FindingKind.STALE_USE, FindingKind.UNFLUSHED):
        return None
    if finding.cache in _MISSING:
        return _MISSING[finding.cache]
    page = f", page {event.iova & ~0xFFF:#x}" if isinstance(event, Access) else ""
    first = any(step[0] == Role.FIRST_STAGE for step in finding.steps)
    name = "PASID-based IOTLB invalidation" if first else "IOTLB invalidation"
    return f"{name}, domain {finding.domain:#x}{page}"


def explain(finding: Finding, event_at: Callable[[int], Event | None]) -> str:
    """Return the finding as indented lines; event_at looks an event up by its number."""
    event = event_at(finding.event)

    def named(number: int) -> str:
        found = event_at(number)
        return f"event {number}" + (f": {format_event(found)}" if found is not None else "")

    lines = [f"{finding.kind}: {named(finding.event)}", f"  {_INTRODUCTION[finding.kind]}"]
    if finding.kind != FindingKind.PAGE_REUSE:
        lines.append(f"  recorded    {answer(finding.observed)}")
        permitted = [answer(outcome) for outcome in finding.permitted] or ["nothing"]
        lines += [f"  permitted   {outcome}" for outcome in permitted]
    lines += [f"  walk        {line}" for line in _walk(finding.steps)]
    if finding.cache:
        domain = f", domain {finding.domain:#x}" if finding.domain >= 0 else ""
        lines.append(f"  cache       {finding.cache}{domain}")
    for label, number in (
        ("filled by", finding.filled_by),
        ("changed by", finding.changed_by),
        ("covered by", finding.covered_by),
    ):
        if number >= 0:
            lines.append(f"  {label:<11} {named(number)}")
    missing = _missing(finding, event)
    if missing:
        lines.append(f"  missing     {missing}")
    return "\n".join(lines)
