"""Find out what a finding about a real VT-d unit goes back to: what one side looks at alone.

One field after another of what software wrote is cleared, and the sequence run again. Where that
changes what the unit does and not what it should do, the unit looks at a field that should not
count; where it is the other way round, it does not look at one that should. Of several such fields
the one that a walk comes to first is the cause. No field is expected to be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    Event,
    Fault,
    FaultRecord,
    InterruptRequest,
    RegRead,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.descriptors import InvalidationWait
from harness.differential.bare import Bare, Life, Shown
from harness.differential.fields import Part, cleared, set_fields
from harness.differential.naming import DESCRIPTOR, TABLE, TAKEN, descriptor_name
from harness.differential.shrink import shrunk
from harness.differential.table_use import ACCESSED, DIRTY
from harness.findings import Finding, FindingKind
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE, STATUS
from harness.signature import Signature

_TYPE: Final = layout(InvalidationWait)
_BESIDE_TYPE: Final = (1 << 64) - 1 & ~_TYPE.mask("type", "type_high")
"""All bits of the first quadword of a descriptor but its type."""


def cause(bare: Bare, shown: Shown, life: Life) -> Signature | None:
    """Return a signature that names the first field that one side looks at alone, if any.

    life is the least that shows it.
    """
    found = shown.divergence
    if found is not None and (shown.signature.event, shown.signature.outcome) == (
        DESCRIPTOR,
        TAKEN,
    ):
        return _unread(bare, shown.signature, life)
    if found is None or not _is_judged(found.finding, found.events):
        return None
    before = _answers(bare, found.finding, found.events, life.steps, life)
    if before is None:
        return None
    fields = sorted(set_fields(life, bare.qemu), key=lambda one: one.rank)
    for name, parts in _named(fields):
        now = _answers(bare, found.finding, found.events, _without(life.steps, parts), life)
        if now is None:
            continue
        right, seen = now[0] != before[0], now[1] != before[1]
        if right == seen:
            continue
        if not _comes_to(bare, shown, life, fields, parts, unit=seen):
            continue
        who = UNIT_ALONE if seen else _UNIT_NOT
        # A stale answer may come of it as well as a wrong one.
        return Signature(str(FindingKind.DIVERGENCE), "", who, "", name)
    return None


def _named(fields: Sequence[Part]) -> Iterator[tuple[str, list[Part]]]:
    """Yield what has one name, all of it first, then each by itself."""
    named: dict[str, list[Part]] = {}
    for one in fields:
        named.setdefault(one.name, []).append(one)
    for name, parts in named.items():
        yield name, parts
        for one in parts if len(parts) > 1 else ():
            yield name, [one]


def _without(steps: Sequence[Step], parts: Iterable[Part]) -> Sequence[Step]:
    for one in parts:
        steps = cleared(steps, one)
    return steps


def _unread(bare: Bare, name: Signature, life: Life) -> Signature | None:
    """Return a signature that says that a unit takes a kind of descriptor whatever it holds."""
    kind = name.subject.partition(" ")[0]
    steps = list(life.steps)
    for number, step in enumerate(steps):
        stores = []
        for store in step.stores:
            queued = QUEUE <= store.address < STATUS and not (store.address - QUEUE) % life.slot
            alike = queued and descriptor_name((store.value, 0)).partition(" ")[0] == kind
            stores.append(replace(store, value=store.value | _BESIDE_TYPE) if alike else store)
        steps[number] = replace(step, stores=tuple(stores))
    for one in bare.run(steps, life.slot):
        taken = (one.signature.event, one.signature.outcome) == (DESCRIPTOR, TAKEN)
        if taken and one.signature.subject.partition(" ")[0] == kind:
            return Signature(name.kind, DESCRIPTOR, kind, f"{TAKEN}, whatever it holds")
    return None


def explained(bare: Bare, shown: Shown, life: Life, known: Iterable[Signature]) -> Signature | None:
    """Return which of some causes is enough to explain what a sequence has shown, if one is.

    Clearing what it is about has to make the two sides agree, and to leave the one alone that the
    cause says does not look at it.
    """
    found = shown.divergence
    if found is None:
        return None
    prefix = replace(life, steps=life.steps[: shown.step + 1])
    fields = list(set_fields(prefix, bare.qemu))
    wanted = {one.step: one for one in known}
    before = (_of(found.finding, found.events), _of(found.finding, found.events, seen=True))
    for name in dict.fromkeys(one.name for one in fields if one.name in wanted):
        steps = _without(prefix.steps, [one for one in fields if one.name == name])
        now = _answers(bare, found.finding, found.events, steps, life)
        if now is None or now[0] != now[1]:
            continue
        unit = wanted[name].subject == UNIT_ALONE
        if not unit and not _is_judged(found.finding, found.events):
            continue  # where the unit goes on, and the model does not, it does more besides
        if now[0 if unit else 1] != before[0 if unit else 1]:
            continue
        parts = [one for one in fields if one.name == name]
        judged = _is_judged(found.finding, found.events)
        if not judged or _comes_to(bare, shown, prefix, fields, parts, unit=unit):
            return wanted[name]
    return None


def _comes_to(
    bare: Bare,
    shown: Shown,
    life: Life,
    fields: Sequence[Part],
    parts: Sequence[Part],
    *,
    unit: bool,
) -> bool:
    """Say whether both sides come to the entries of some fields: one of them looks at these alone.

    Where one side goes on from where it should have ended, no field says why.
    """
    entries = {one.entry for one in parts} - {None}
    found = shown.divergence
    if not entries or found is None:
        return not entries
    whole = _without(life.steps, [one for one in fields if one.entry in entries])
    now = _answers(bare, found.finding, found.events, whole, life)
    return now is not None and now[not unit] != _of(found.finding, found.events, seen=not unit)


def least_of(bare: Bare, name: Signature, life: Life) -> tuple[Life, Shown] | None:
    """Leave out of a sequence what its cause does not need, whatever outcome that gives."""

    def shows(steps: Sequence[Step]) -> Shown | None:
        part = replace(life, steps=steps)
        for one in bare.run(steps, life.slot):
            if one.step == len(steps) - 1 and explained(bare, one, part, [name]) == name:
                return one
        return None

    if shows(life.steps) is None:
        return None
    steps = shrunk(life.steps, life.slot, lambda part: shows(part) is not None)
    shown = shows(steps)
    return None if shown is None else (replace(life, steps=steps), shown)


_JUDGED: Final = (Access, InterruptRequest, FaultRecord)
UNIT_ALONE: Final = "the unit alone looks at"
_UNIT_NOT: Final = "the unit does not look at"


def _of(finding: Finding, events: Sequence[Event], seen: bool = False) -> object:
    right = finding.permitted[0] if finding.permitted else None
    if _of_table(finding):
        return _marks(finding.observed if seen else right)
    if _of_record(finding):
        return finding.observed if seen else right
    return _plain(finding.observed if seen else right, _event(events, finding))


def _of_table(finding: Finding) -> bool:
    return finding.subject == TABLE and isinstance(finding.observed, bytes)


def _of_record(finding: Finding) -> bool:
    """Say whether there should be a record, but otherwise."""
    return isinstance(finding.observed, FaultRecord) and bool(finding.permitted)


def _place(finding: Finding) -> int:
    """Return the address of a table entry."""
    entry = finding.observed
    return int.from_bytes(entry[:8], "big") if isinstance(entry, bytes) else -1


def _marks(entry: object) -> int:
    """Return A and D of a table entry, which has its address before it."""
    return int.from_bytes(entry[-8:], "big") & (ACCESSED | DIRTY) if isinstance(entry, bytes) else 0


def _is_judged(finding: Finding, events: Sequence[Event]) -> bool:
    """Say whether fields can be the cause: not of a record that should be there, but otherwise."""
    return isinstance(_event(events, finding), _JUDGED) and not (
        _of_table(finding) or _of_record(finding)
    )


def _event(events: Sequence[Event], finding: Finding) -> Event | None:
    return events[finding.event] if 0 <= finding.event < len(events) else None


# -- what both sides answer -----------------------------------------------------------------------


def _answers(
    bare: Bare, like: Finding, events: Sequence[Event], steps: Sequence[Step], life: Life
) -> tuple[object, object] | None:
    """Return what should have become of the last step and what did; None: it was not reached."""
    wanted = _event(events, like)
    totals = bare.differential.totals
    before = totals.steps
    done = bare.run(steps, life.slot)
    now = bare.differential.events[bare.differential.began :]
    if any(one.divergence is None for one in done):
        return None
    last = len(steps) - 1
    for one in done:
        found = one.divergence
        if found is None or one.step < last:
            continue
        for finding in (found.finding, *found.beside):
            alike = (
                _place(finding) == _place(like)
                if _of_table(like)
                else _alike(_event(found.events, finding), wanted)
            )
            if alike and finding.subject == like.subject:
                return _of(finding, found.events), _of(finding, found.events, seen=True)
    if totals.steps - before < len(steps):
        return None
    if _of_table(like):
        entry = int.from_bytes(bare.qemu.memory(_place(like), 8), "little") & (ACCESSED | DIRTY)
        return entry, entry
    same = [event for event in now if _alike(event, wanted)]
    if not same:
        return None, None
    seen = same[-1]
    outcome = seen if isinstance(seen, FaultRecord) else getattr(seen, "outcome", None)
    if isinstance(seen, RegRead):
        outcome = seen.value
    said = outcome if _of_record(like) or isinstance(seen, RegRead) else _plain(outcome, seen)
    return said, said


def _alike(event: Event | None, wanted: Event | None) -> bool:
    if isinstance(event, Access) and isinstance(wanted, Access):
        return (event.sid, event.kind) == (wanted.sid, wanted.kind)
    if isinstance(event, RegRead) and isinstance(wanted, RegRead):
        return event.offset == wanted.offset
    return type(event) is type(wanted)


def _plain(outcome: object, event: Event | None) -> object:
    if isinstance(outcome, Translation) and isinstance(event, Access):
        return outcome.address | event.iova & outcome.mask
    if isinstance(outcome, FaultRecord):
        return FaultRecord
    return (Fault, outcome.reason) if isinstance(outcome, Fault) else outcome
