"""Name what a real VT-d unit did that the specification does not permit.

A signature here says the same whatever the unit was made to show it by: what a queue came to stop
at is named by its descriptor, not by the register that told; an access by where its walk ended,
not by the level of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from decoders.events import Access, Event, Fault, FaultRecord, RegRead, RegWrite, Store, Translation
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from harness.differential.situation import LOST
from harness.differential.table_use import ACCESSED, DIRTY
from harness.differential.vtd import Divergence
from harness.findings import Finding
from harness.signature import Signature, of_finding
from harness.signature_words import role_words

DESCRIPTOR: Final = "Descriptor"
TAKEN: Final = "refused -> taken"
REFUSED: Final = "taken -> refused"
"""What signatures of a queue say."""

_IQE: Final = layout(vtd.FaultStatus)["iqe"].mask
_WIDE: Final = layout(vtd.InvalidationQueueAddress)["dw"].mask
_QUEUE_SIZE: Final = layout(vtd.InvalidationQueueAddress)["qs"]
_PAGE: Final = 4096
TABLE: Final = "table"
_HEADS: Final = (vtd.IQH.offset, vtd.FSTS.offset)


def signature(found: Divergence) -> Signature:
    """Return the signature of a divergence, or of what else its step showed of the queue."""
    events = found.events
    for one in (found.finding, *found.beside):
        event = _event(events, one.event)
        if isinstance(event, RegRead) and event.offset in _HEADS:
            stopped = _stopped(one, event, events)
            if stopped is not None:
                return stopped
    return _one(found.finding, _event(events, found.finding.event))


def _event(events: Sequence[Event], number: int) -> Event | None:
    return events[number] if 0 <= number < len(events) else None


def _one(finding: Finding, event: Event | None) -> Signature:
    made = of_finding(finding, event)
    right = finding.permitted[0] if finding.permitted else None
    if isinstance(event, Access):
        step = role_words(finding.steps[-1]) if finding.steps else ""
        words = f"{_led(right, event, made, 0)} -> {_led(finding.observed, event, made, 1)}"
        return replace(made, step=step, outcome=words)
    if finding.subject == TABLE and isinstance(finding.observed, bytes):
        assert isinstance(right, bytes)
        apart = int.from_bytes(finding.observed[8:], "big") ^ int.from_bytes(right[8:], "big")
        bits = [name for name, bit in (("a", ACCESSED), ("d", DIRTY)) if apart & bit]
        more = ["content"] if apart & ~(ACCESSED | DIRTY) else []
        return replace(made, event="", outcome=", ".join([*bits, *more]))
    if isinstance(finding.observed, FaultRecord) and right is None:
        # Which fault it is that should not have been recorded says nothing.
        return replace(made, outcome="nothing -> fault record")
    return made


def _led(outcome: object, access: Access, plain: Signature, side: int) -> str:
    """Say where an access led, apart from an address."""
    if isinstance(outcome, Fault):
        return f"fault {outcome.reason:#04x}"
    if not isinstance(outcome, Translation):
        return plain.outcome.split(" -> ")[side]
    if outcome.address == LOST:
        return "lost"
    place = outcome.address | access.iova & outcome.mask
    return "identity" if place == access.iova else "translation"


# -- the queue ------------------------------------------------------------------------------------


def _stopped(finding: Finding, event: RegRead, events: Sequence[Event]) -> Signature | None:
    """Return the signature of a queue that stopped where it should not, or did not; else None."""
    seen, right = finding.observed, finding.permitted[0] if finding.permitted else None
    if not isinstance(seen, int) or not isinstance(right, int):
        return None
    base, size, tail, wide = _queue(events[: finding.event])
    if event.offset == vtd.IQH.offset:
        # What is further from the tail is where a unit has stopped.
        left = [(tail - head) % size for head in (seen, right)]
        refused, place = left[0] > left[1], seen if left[0] > left[1] else right
    elif (seen ^ right) & _IQE:
        refused = bool(seen & _IQE)
        head = _head(events[: finding.event]) if refused else None
        if head is None:
            return None
        place = head
    else:
        return None
    words = _words(events[: finding.event], base + place, 4 if wide else 2)
    outcome = REFUSED if refused else TAKEN
    return Signature(str(finding.kind), DESCRIPTOR, descriptor_name(words), outcome)


def _queue(events: Sequence[Event]) -> tuple[int, int, int, bool]:
    """Return where the queue is, its size, its tail, and whether descriptors have 256 bits."""
    base, tail = 0, 0
    for event in events:
        if isinstance(event, RegWrite) and event.offset == vtd.IQA.offset:
            base = event.value
        elif isinstance(event, RegWrite) and event.offset == vtd.IQT.offset:
            tail = event.value
    return base & -_PAGE, _PAGE << _QUEUE_SIZE.get((base,)), tail, bool(base & _WIDE)


def _head(events: Sequence[Event]) -> int | None:
    """Return the head of the queue that was read since the tail was written, if any was."""
    for event in reversed(events):
        if isinstance(event, RegRead) and event.offset == vtd.IQH.offset:
            return event.value
        if isinstance(event, RegWrite) and event.offset == vtd.IQT.offset:
            return None
    return None


def _words(events: Sequence[Event], address: int, count: int) -> tuple[int, ...]:
    """Return quadwords at an address, as they were stored."""
    words = {event.address: event.value for event in events if isinstance(event, Store)}
    return tuple(words.get(address + 8 * n, 0) for n in range(count))


def descriptor_name(words: Sequence[int]) -> str:
    """Name a descriptor: its type, the flags that are set, and whether reserved bits are."""
    shape = DESCRIPTORS.get(descriptor_type(words[0]))
    if shape is None:
        return "unknown descriptor"
    found = layout(shape)
    flags = [name for name, place in found.fields.items() if place.width == 1 and place.get(words)]
    if any(word & reserved for word, reserved in zip(words, found.reserved, strict=False)):
        flags.append("reserved bits")
    if any(words[2:]):
        flags.append("upper half")
    return " ".join([shape.__name__, *flags])
