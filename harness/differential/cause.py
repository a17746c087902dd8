"""Find out what a finding about a real VT-d unit goes back to: what one side looks at alone.

One field after another of what software wrote is cleared, and the sequence run again. Where that
changes what the unit does and not what it should do, the unit looks at a field that should not
count; where it is the other way round, it does not look at one that should. Of several such fields
the one that a walk comes to first is the cause. No field is expected to be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from decoders.events import (
    Access,
    Event,
    Fault,
    FaultRecord,
    InterruptRequest,
    RegWrite,
    Role,
    Store,
    Translation,
)
from decoders.fields import Structure
from decoders.layout import Layout, layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InvalidationWait
from decoders.vtd.tables import ScalableRootEntry
from harness.differential.bare import Bare, Life, Shown
from harness.differential.naming import DESCRIPTOR, TAKEN, descriptor_name
from harness.differential.shrink import shrunk
from harness.explain import SHAPES
from harness.findings import Finding, FindingKind
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE, STATUS, Spot
from harness.signature import Signature

_POINTER: Final = 40
"""Bits from which on a field is a pointer: what leads nowhere any more says nothing."""

_WRITTEN: Final[dict[int, tuple[str, Layout]]] = {
    vtd.RTADDR.offset: ("RTADDR", layout(vtd.RootTableAddress)),
    vtd.IRTA.offset: ("IRTA", layout(vtd.Irta)),
    vtd.GCMD.offset: ("GCMD", layout(vtd.GlobalCommand)),
}
"""Registers that say how requests are handled."""


_TYPE: Final = layout(InvalidationWait)
_BESIDE_TYPE: Final = (1 << 64) - 1 & ~_TYPE.mask("type", "type_high")
"""All bits of the first quadword of a descriptor but its type."""

_SWITCHES: Final = frozenset(
    (
        ("RTADDR", 1 << layout(vtd.RootTableAddress)["ttm"].low),
        *(
            ("GCMD", layout(vtd.GlobalCommand)[name].mask)
            for name in ("te", "qie", "ire", "srtp", "sirtp")
        ),
    )
)
"""What switches scalable mode on, translation and the like: all depends on it that follows."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bits that software set: which step, which of its stores or writes, their name and rank."""

    step: int
    stored: bool
    number: int
    mask: int
    name: str
    rank: tuple[int, int]


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
    for part in sorted(_parts(life, bare.qemu.width), key=lambda one: one.rank):
        now = _answers(bare, found.finding, found.events, _cleared(life.steps, part), life)
        if now is None:
            continue
        right, seen = now[0] != before[0], now[1] != before[1]
        if right != seen:
            who = UNIT_ALONE if seen else _UNIT_NOT
            # A stale answer may come of it as well as a wrong one.
            return Signature(str(FindingKind.DIVERGENCE), "", who, "", part.name)
    return None


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
    if found is None or not _is_judged(found.finding, found.events):
        return None
    prefix = replace(life, steps=life.steps[: shown.step + 1])
    parts = list(_parts(prefix, bare.qemu.width))
    wanted = {one.step: one for one in known}
    before = (_of(found.finding, found.events), _of(found.finding, found.events, seen=True))
    for name in dict.fromkeys(one.name for one in parts if one.name in wanted):
        steps = list(prefix.steps)
        for part in parts:
            if part.name == name:
                steps = _cleared(steps, part)
        now = _answers(bare, found.finding, found.events, steps, life)
        if now is None or now[0] != now[1]:
            continue
        unit = wanted[name].subject == UNIT_ALONE
        if now[0 if unit else 1] == before[0 if unit else 1]:
            return wanted[name]
    return None


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
    return _plain(finding.observed if seen else right, _event(events, finding))


def _is_judged(finding: Finding, events: Sequence[Event]) -> bool:
    """Say whether fields can be the cause: not of a record that should be there, but otherwise."""
    wrong = isinstance(finding.observed, FaultRecord) and bool(finding.permitted)
    return not wrong and isinstance(_event(events, finding), _JUDGED)


def _event(events: Sequence[Event], finding: Finding) -> Event | None:
    return events[finding.event] if 0 <= finding.event < len(events) else None


# -- what both sides answer -----------------------------------------------------------------------


def _answers(
    bare: Bare, like: Finding, events: Sequence[Event], steps: Sequence[Step], life: Life
) -> tuple[object, object] | None:
    """Return what should have become of the last step and what did; None: it was not reached."""
    wanted = _event(events, like)
    done = bare.run(steps, life.slot)
    now = bare.differential.events
    if any(one.divergence is None for one in done):
        return None
    last = len(steps) - 1
    for one in done:
        found = one.divergence
        if found is None or one.step < last:
            continue
        for finding in (found.finding, *found.beside):
            if _alike(_event(found.events, finding), wanted) and finding.subject == like.subject:
                return _of(finding, found.events), _of(finding, found.events, seen=True)
    if done and done[-1].step < last:
        return None
    same = [event for event in now if _alike(event, wanted)]
    if not same:
        return None, None
    seen = same[-1]
    outcome = seen if isinstance(seen, FaultRecord) else getattr(seen, "outcome", None)
    said = _plain(outcome, seen)
    return said, said


def _alike(event: Event | None, wanted: Event | None) -> bool:
    if isinstance(event, Access) and isinstance(wanted, Access):
        return (event.sid, event.kind) == (wanted.sid, wanted.kind)
    return type(event) is type(wanted)


def _plain(outcome: object, event: Event | None) -> object:
    if isinstance(outcome, Translation) and isinstance(event, Access):
        return outcome.address | event.iova & outcome.mask
    if isinstance(outcome, FaultRecord):
        return FaultRecord
    return (Fault, outcome.reason) if isinstance(outcome, Fault) else outcome


# -- what can be cleared --------------------------------------------------------------------------


def _parts(life: Life, width: int) -> Iterator[Part]:
    for number, step in enumerate(life.steps):
        for place, store in enumerate(step.stores):
            spot = _spot(life.spots, store.address)
            if spot is None:
                continue
            shape, word = layout(_shape(spot, life)), (store.address - spot.address) // 8
            name = spot.role.name.lower().replace("_", " ")
            rank = int(spot.role), -spot.level
            for mask, what in _fields(shape, word, store.value, width):
                yield Part(number, True, place, mask, f"{name} {what}", rank)
        for place, write in enumerate(step.writes):
            if write.offset in _WRITTEN:
                name, shape = _WRITTEN[write.offset]
                for mask, what in _fields(shape, 0, write.value, width):
                    if (name, write.value & mask) in _SWITCHES:
                        continue
                    yield Part(number, False, place, mask, f"{name} {what}", (-1, 0))


def _fields(shape: Layout, word: int, value: int, width: int) -> Iterator[tuple[int, str]]:
    """Yield the fields of a word that are not zero, as mask and name."""
    for name, field in shape.fields.items():
        if field.word != word or not value & field.mask:
            continue
        if field.width < _POINTER:
            yield field.mask, name
        elif value & field.mask >> width << width:
            yield field.mask >> width << width, f"{name} beyond the host's width"
    for what, masks in (("reserved bits", shape.reserved), ("ignored bits", shape.ignored)):
        if value & masks[word]:
            yield masks[word], what


def _spot(spots: Sequence[Spot], address: int) -> Spot | None:
    inside = (one for one in spots if 0 <= address - one.address < 8 * len(one.words))
    return next(inside, None)


def _shape(spot: Spot, life: Life) -> type[Structure]:
    scalable = any(one.role == Role.SCALABLE_CONTEXT for one in life.spots)
    return ScalableRootEntry if spot.role == Role.ROOT and scalable else SHAPES[spot.role]


def _cleared(steps: Sequence[Step], part: Part) -> list[Step]:
    made = list(steps)
    step = made[part.step]
    if part.stored:
        stores: list[Store] = list(step.stores)
        one = stores[part.number]
        stores[part.number] = replace(one, value=one.value & ~part.mask)
        made[part.step] = replace(step, stores=tuple(stores))
    else:
        writes: list[RegWrite] = list(step.writes)
        write = writes[part.number]
        writes[part.number] = replace(write, value=write.value & ~part.mask)
        made[part.step] = replace(step, writes=tuple(writes))
    return made
