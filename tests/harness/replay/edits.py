"""Find places in a recorded trace where one edit of its text must give exactly one finding.

A probe replays the beginning of a trace on the model and notes which store each access went
through, and which ring slot each descriptor was taken from. The edits are then made on the text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from decoders.events import (
    NO_ATTRIBUTES,
    Access,
    AccessKind,
    Attribute,
    Descriptor,
    Event,
    Outcome,
    RegWrite,
    Role,
    Store,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import IotlbInvalidation, PasidIotlbInvalidation, descriptor_type
from harness.findings import FindingKind
from harness.model.config import UnitConfig
from harness.model.unit import Verdict, VtdUnit
from harness.replay import unit_config
from harness.targets.model import ModelReplay
from harness.trace import Header, open_events
from harness.trace.lines import format_event, parse_event

LOOKED_AT = 12_000
"""Events of a trace that are searched for places."""
BEHIND = 1_500
"""Events that a replay goes on for behind an edit's finding."""
FLIPPED = 1 << 24
"""An address bit that every size of page up to 2 MiB has."""
PAGES_IN = {2: IotlbInvalidation, 6: PasidIotlbInvalidation}
SELECTIVE = 3
PAGE = 0xFFF


@dataclass(frozen=True)
class Use:
    """One translated access: through which entry, last written by which event."""

    access: int
    domain: int
    page: int
    outcome: Outcome
    entry: int
    store: int | None


@dataclass(frozen=True)
class Edit:
    """Lines by event number (None takes one out), and the finding that must follow."""

    lines: dict[int, str | None]
    kind: FindingKind
    subject: str
    event: int
    last: int
    """Number of the last event the edit is about."""


class _Unit(VtdUnit):
    """Remember the last verdict."""

    verdict: Verdict | None = None

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        self.verdict = super().access(sid, pasid, iova, kind, recorded, attributes)
        return self.verdict


class Probe(ModelReplay):
    """Replay the beginning of a trace and note what the edits need to know."""

    def __init__(self, config: UnitConfig, events: Sequence[Event]):
        super().__init__(config)
        self.unit = _Unit(config)
        self.events = events
        self.uses: list[Use] = []
        self.writes: dict[int, list[int]] = defaultdict(list)
        self.slots: dict[int, int] = {}
        self.causes: dict[int, int] = {}
        self._ring = self._head = self._cause = 0
        for event in events:
            self._note_before(event)
            self.apply(event)
            if isinstance(event, Access):
                self._note_use(event)

    def _note_before(self, event: Event) -> None:
        number = self.counters().events
        match event:
            case Store(address, 8, _):
                self.writes[address].append(number)
            case RegWrite():
                registers = self.unit.registers
                self._ring = registers.load(vtd.IQA)
                self._head = registers.load(vtd.IQH)
                self._cause = number
            case Descriptor():
                step = 32 if self._ring >> 11 & 1 else 16
                size = 0x1000 << (self._ring & 7)
                self.slots[number] = (self._ring & ~PAGE) + self._head
                self.causes[number] = self._cause
                self._head = (self._head + step) % size

    def _note_use(self, event: Access) -> None:
        assert isinstance(self.unit, _Unit) and self.unit.verdict is not None
        fresh = self.unit.verdict.permitted[0]
        if not isinstance(fresh.outcome, Translation) or not fresh.steps:
            return
        leaf = fresh.steps[-1]
        if leaf.role not in (Role.FIRST_STAGE, Role.SECOND_STAGE):
            return
        writer = self.unit.memory.last_writer(leaf.address)
        self.uses.append(
            Use(
                self.counters().events - 1,
                fresh.domain,
                event.iova >> 12,
                fresh.outcome,
                leaf.address,
                writer,
            )
        )


@dataclass(frozen=True)
class Beginning:
    """The first events of a trace and what was noted about them."""

    header: Header
    events: list[Event]
    probe: Probe

    @classmethod
    def of(cls, path: Path) -> Beginning:
        """Read and probe the beginning of a trace, up to a stimulus."""
        with open_events(path) as source:
            header = source.header
            events = list(source.events(0, LOOKED_AT))
        events = events[: boundary(events, len(events) - 200)]
        config = unit_config(header)
        assert isinstance(config, UnitConfig)
        return cls(header, events, Probe(config, events))

    def edited(self, edit: Edit) -> list[Event]:
        """Return the events that the edited text stands for, up to some way behind the edit."""
        stop = boundary(self.events, edit.last + BEHIND)
        events: list[Event] = []
        for number, event in enumerate(self.events[:stop]):
            if number not in edit.lines:
                events.append(event)
            elif (line := edit.lines[number]) is not None:
                assert line != format_event(event)
                events.append(parse_event(line))
        return events


def boundary(events: Sequence[Event], wanted: int) -> int:
    """Return the number of the first stimulus from wanted on that ends what is expected."""
    for number in range(min(wanted, len(events)), len(events)):
        if isinstance(events[number], RegWrite | Access):
            return number
    return len(events)


def used_once(probe: Probe) -> Iterator[tuple[Use, Store]]:
    """Yield the uses of a mapping that one store made and one access used, at a new place."""
    by_store: dict[int, list[Use]] = defaultdict(list)
    seen: set[tuple[int, Outcome]] = set()
    fresh: set[int] = set()
    for use in probe.uses:
        if use.store is not None:
            by_store[use.store].append(use)
        # What was translated so before may be remembered as invalidated, which says more.
        if (use.page, use.outcome) not in seen:
            fresh.add(use.access)
        seen.add((use.page, use.outcome))
    for store, uses in by_store.items():
        event = probe.events[store]
        if len(uses) == 1 and uses[0].access in fresh and isinstance(event, Store):
            yield uses[0], event


def with_value(store: Store, value: int) -> str:
    """Return the line of a store with another value."""
    return format_event(Store(store.address, store.size, value))


def flipped_bits(probe: Probe) -> Iterator[Edit]:
    """Flip an address bit of a mapping that is used once: that use diverges."""
    for use, store in used_once(probe):
        assert use.store is not None
        lines: dict[int, str | None] = {use.store: with_value(store, store.value ^ FLIPPED)}
        yield Edit(lines, FindingKind.DIVERGENCE, "access", use.access, use.access)


def swapped_stores(probe: Probe) -> Iterator[Edit]:
    """Swap the values of a mapping that is used once and of the next store to its entry."""
    for use, store in used_once(probe):
        assert use.store is not None
        later = [number for number in probe.writes[use.entry] if number > use.store]
        if not later:
            continue
        other = probe.events[later[0]]
        if isinstance(other, Store) and other.value != store.value and later[0] > use.access:
            lines: dict[int, str | None] = {
                use.store: with_value(store, other.value),
                later[0]: with_value(other, store.value),
            }
            yield Edit(lines, FindingKind.DIVERGENCE, "access", use.access, later[0])


def page_invalidations(probe: Probe) -> Iterator[tuple[int, Descriptor]]:
    """Yield the page-selective invalidations by the number of their event."""
    for number in probe.slots:
        event = probe.events[number]
        assert isinstance(event, Descriptor)
        shape = PAGES_IN.get(descriptor_type(event.words[0]))
        if shape is not None and layout(shape)["g"].get(event.words) == SELECTIVE:
            yield number, event


def missing_invalidations(probe: Probe) -> Iterator[Edit]:
    """Take the line of a page-selective invalidation out: its doorbell lacks a descriptor."""
    for number, _ in page_invalidations(probe):
        kind = FindingKind.DIVERGENCE
        yield Edit({number: None}, kind, "descriptor", probe.causes[number], number)


def misdirected_invalidations(probe: Probe) -> Iterator[Edit]:
    """Let an invalidation name another page: the next use of the remapped page is luck.

    Taken are hinted invalidations (IH = 1) of one page, used before and, mapped elsewhere, exactly
    once behind it until something covers the page again.
    """
    shape = layout(IotlbInvalidation)
    covering = [(n, *reach) for n in probe.slots if (reach := _reach(probe.events[n]))]
    places = {n: place for place, (n, _, _) in enumerate(covering)}
    uses: dict[tuple[int, int], list[Use]] = defaultdict(list)
    for use in probe.uses:
        uses[use.domain, use.page].append(use)
    for number, event in page_invalidations(probe):
        if shape["am"].get(event.words) or not shape["ih"].get(event.words):
            continue
        page = shape["addr"].get(event.words)
        around = uses[shape["did"].get(event.words), page]
        before = [use for use in around if use.access < number]
        earlier = reversed(covering[: places[number]])
        later = covering[places[number] + 1 :]
        floor = next((n for n, low, high in earlier if low <= page <= high), -1)
        ceiling = next((n for n, low, high in later if low <= page <= high), len(probe.events))
        behind = [use for use in around if number < use.access < ceiling]
        if not before or before[-1].access < floor or len(behind) != 1:
            continue
        if behind[0].outcome == before[-1].outcome:
            continue
        stores = [n for n in probe.writes[probe.slots[number] + 8] if n < number]
        last = probe.events[stores[-1]]
        assert isinstance(last, Store)
        assert last.value == event.words[1]
        low, high, *rest = event.words
        other = high ^ 1 << 35
        lines: dict[int, str | None] = {
            stores[-1]: with_value(last, other),
            number: format_event(Descriptor((low, other, *rest))),
        }
        found = behind[0].access
        yield Edit(lines, FindingKind.UNFLUSHED, "access", found, found)


def _reach(event: Event) -> tuple[int, int] | None:
    """Return the first and the last page an invalidation may reach, whatever its domain."""
    if not isinstance(event, Descriptor) or descriptor_type(event.words[0]) not in PAGES_IN:
        return None
    shape = layout(IotlbInvalidation)
    if shape["g"].get(event.words) != SELECTIVE:
        return 0, 1 << 52
    size = 1 << shape["am"].get(event.words)
    first = shape["addr"].get(event.words) & -size
    return first, first + size - 1
