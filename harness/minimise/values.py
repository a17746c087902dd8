"""Put small, canonical values in the place of what a machine happened to use (VT-d).

Tables move to the first pages of RAM, entries that nothing reads become zero, domains are counted
from 1, and addresses become those of the first entries of their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from decoders.events import (
    Access,
    Descriptor,
    Event,
    FaultRecord,
    RegWrite,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.layout import Layout, layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTORS,
    IotlbInvalidation,
    PasidIotlbInvalidation,
    descriptor_type,
)
from decoders.vtd.registers import ContextCommand, IotlbRegister, iotlb_offset, iva_offset
from decoders.vtd.tables import ContextEntry, PasidEntry
from harness.memory import PAGE_SHIFT, PAGE_SIZE
from harness.minimise.closure import read_by
from harness.minimise.deletion import applied
from harness.minimise.gate import Gate
from harness.minimise.ring import followed
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.replay import unit_config

_INDEX_BITS: Final = 9
_ADDRESS: Final = ((1 << 52) - 1) & -PAGE_SIZE
_QUADWORD: Final = 8
_ENTRY_DOMAIN: Final = {
    Role.CONTEXT: layout(ContextEntry)["did"],
    Role.PASID_TABLE: layout(PasidEntry)["did"],
}
_ENTRY_WORDS: Final = {Role.CONTEXT: layout(ContextEntry).words, Role.PASID_TABLE: 8}
_POINTERS: Final = (vtd.RTADDR.offset, vtd.IQA.offset, vtd.IRTA.offset)
_COMMAND: Final = layout(ContextCommand)
_IOTLB: Final = layout(IotlbRegister)
_STAGES: Final = (Role.FIRST_STAGE, Role.SECOND_STAGE)
_WITH_ADDRESS: Final = (layout(IotlbInvalidation), layout(PasidIotlbInvalidation))
_SELECTIVE: Final = 3


class View:
    """Say of each quadword of a trace what it is: an entry of a table, or part of a descriptor."""

    def __init__(self, trace: Trace) -> None:
        config = unit_config(trace.header)
        assert isinstance(config, UnitConfig)
        self.config, self.header = config, trace.header
        self.ring = followed(trace.events)
        self.events = self.ring.events
        self.read = read_by(config, self.events).words
        self.descriptors: dict[int, tuple[Layout, int]] = {}
        """Store that holds a word of a descriptor: its layout, and which word."""
        for one in self.ring.queued:
            shape = _shape(one.words)
            for number in one.stores:
                store = self.events[number]
                if shape and isinstance(store, Store) and store.size == _QUADWORD:
                    at = store.address - one.base - one.slot
                    self.descriptors[number] = shape, at // _QUADWORD
        self.words = {n: one.words for one in self.ring.queued for n in one.stores}

    def trace(self, events: Iterable[Event]) -> Trace:
        """Return changed events as a trace."""
        return Trace(self.header, tuple(events))


def _shape(words: Sequence[int]) -> Layout | None:
    found = DESCRIPTORS.get(descriptor_type(words[0])) if words else None
    return layout(found) if found else None


Change = Callable[[Event, int], Event]
"""Makes an event of a view smaller, given its number."""


def canonical(gate: Gate) -> None:
    """Change values of the best trace for smaller ones."""
    for edits in (_unread, _single_words, _pages, _domains, _indexes):
        view = View(gate.best)
        count, make = edits(view)
        applied(range(count), partial(_changed, view, make), gate)


def _changed(
    view: View, make: Callable[[Collection[int]], Change], chosen: Collection[int]
) -> Trace:
    change = make(chosen)
    return view.trace(change(event, number) for number, event in enumerate(view.events))


Pass = tuple[int, Callable[[Collection[int]], Change]]
"""Number of edits, and what makes a change of some of them."""


# --- memory --------------------------------------------------------------------------------------


def _unread(view: View) -> Pass:
    """Clear the quadwords of snapshots that no walk reads."""
    found = [n for n, event in enumerate(view.events) if isinstance(event, Snapshot)]

    def make(chosen: Collection[int]) -> Change:
        cleared = {found[index] for index in chosen}

        def change(event: Event, number: int) -> Event:
            if number not in cleared or not isinstance(event, Snapshot):
                return event
            data = bytearray(PAGE_SIZE)
            for at in range(0, PAGE_SIZE, _QUADWORD):
                if event.address + at in view.read:
                    data[at : at + _QUADWORD] = event.data[at : at + _QUADWORD]
            return replace(event, data=bytes(data))

        return change

    return len(found), make


def _single_words(view: View) -> Pass:
    """Store the only quadword of a page, instead of giving the page."""
    found = {}
    for number, event in enumerate(view.events):
        if isinstance(event, Snapshot):
            words = [at for at in range(0, PAGE_SIZE, _QUADWORD) if any(event.data[at : at + 8])]
            if len(words) == 1:
                value = int.from_bytes(event.data[words[0] : words[0] + 8], "little")
                found[number] = Store(event.address + words[0], _QUADWORD, value)
    places = list(found)

    def make(chosen: Collection[int]) -> Change:
        instead = {places[index]: found[places[index]] for index in chosen}
        return lambda event, number: instead.get(number, event)

    return len(places), make


# --- pages ---------------------------------------------------------------------------------------


def _pages(view: View) -> Pass:
    """Move tables, the queue, status words and what pages map to, to the first pages of RAM."""
    old = list(dict.fromkeys(_used(view)))
    taken = zip(old, _free(view.header.memory), strict=False)
    places = [(page, new) for page, new in taken if page != new]

    def make(chosen: Collection[int]) -> Change:
        moved = dict(places[index] for index in chosen)

        def at(address: int) -> int:
            return moved.get(address & -PAGE_SIZE, address & -PAGE_SIZE) | address % PAGE_SIZE

        def word(value: int) -> int:
            page = value & _ADDRESS
            return value & ~_ADDRESS | moved.get(page, page)

        def change(event: Event, number: int) -> Event:
            match event:
                case Store(address, 8, value):
                    return replace(event, address=at(address), value=word(value))
                case Store(address, _, _):
                    return replace(event, address=at(address))
                case Snapshot(address, _, _, data):
                    words = memoryview(data).cast("Q")
                    made = b"".join(word(one).to_bytes(8, "little") for one in words)
                    return replace(event, address=at(address), data=made)
                case RegWrite(offset, 8, value) if offset in _POINTERS:
                    return replace(event, value=word(value))
                case RegWrite(offset, 4, value) if offset in _POINTERS:
                    return replace(event, value=word(value) & 0xFFFF_FFFF)
                case Access(outcome=Translation(address, mask)) if mask == PAGE_SIZE - 1:
                    return replace(event, outcome=Translation(word(address), mask))
                case StatusWrite(address):
                    return replace(event, address=at(address))
                case Descriptor(words):
                    return replace(event, words=tuple(word(one) for one in words))
                case _:
                    return event

        return change

    return len(places), make


def _used(view: View) -> Iterator[int]:
    for event in view.events:
        match event:
            case Store(address, size, value):
                yield address & -PAGE_SIZE
                if size == _QUADWORD and address in view.read and value & _ADDRESS:
                    yield value & _ADDRESS
            case Snapshot(address) | StatusWrite(address):
                yield address & -PAGE_SIZE
            case RegWrite(offset, _, value) if offset in _POINTERS and value & _ADDRESS:
                yield value & _ADDRESS
            case Access(outcome=Translation(address, mask)) if mask == PAGE_SIZE - 1:
                yield address & _ADDRESS
            case _:
                pass


def _free(ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yield pages of RAM behind the first, which holds what real machines have there."""
    for start, length in ranges or ((0, 1 << 52),):
        first = -(-max(start, PAGE_SIZE) // PAGE_SIZE) * PAGE_SIZE
        yield from range(first, start + length - PAGE_SIZE + 1, PAGE_SIZE)


# --- domains -------------------------------------------------------------------------------------


def _domains(view: View) -> Pass:
    """Count domains from 1."""
    used: dict[int, None] = {}
    for number, event in enumerate(view.events):
        _with_domain(view, event, number, lambda did: used.setdefault(did) or did)
    places = [(did, new) for new, did in enumerate((did for did in used if did), 1) if did != new]

    def make(chosen: Collection[int]) -> Change:
        renamed = dict(places[index] for index in chosen)
        return lambda event, number: _with_domain(
            view, event, number, lambda did: renamed.get(did, did)
        )

    return len(places), make


def _with_domain(view: View, event: Event, number: int, named: Callable[[int], int]) -> Event:
    """Return an event whose domain id, if it holds one, is that which `named` returns for it."""

    def put(value: int, low: int) -> int:
        return value & ~(0xFFFF << low) | named(value >> low & 0xFFFF) << low

    match event:
        case Store(address, 8, value):
            if number in view.descriptors:
                shape, word = view.descriptors[number]
                field = shape.fields.get("did")
                if field is None or field.word != word:
                    return event
                return replace(event, value=put(value, field.low))
            low = _domain_at(view, address)
            return event if low is None else replace(event, value=put(value, low))
        case Snapshot(start, _, _, data):
            made = bytearray(data)
            for at in range(0, PAGE_SIZE, _QUADWORD):
                low = _domain_at(view, start + at)
                if low is not None:
                    value = put(int.from_bytes(data[at : at + 8], "little"), low)
                    made[at : at + 8] = value.to_bytes(8, "little")
            return replace(event, data=bytes(made))
        case Descriptor(words):
            shape_ = _shape(words)
            if shape_ is None or "did" not in shape_.fields:
                return event
            low = shape_["did"].low
            return replace(event, words=(put(words[0], low), *words[1:]))
        case RegWrite(vtd.CCMD.offset, 8, value):
            return replace(event, value=put(value, _COMMAND["did"].low))
        case RegWrite(offset, 8, value) if offset == iotlb_offset(view.config.extended_capability):
            return replace(event, value=put(value, _IOTLB["did"].low))
        case _:
            return event


def _domain_at(view: View, address: int) -> int | None:
    """Return the lowest bit of the domain id in the quadword at an address, if one is there."""
    role, _ = view.read.get(address, (None, 0))
    field = _ENTRY_DOMAIN.get(role) if role is not None else None
    if role is None or field is None:
        return None
    return field.low if address // _QUADWORD % _ENTRY_WORDS[role] == field.word else None


# --- addresses -----------------------------------------------------------------------------------


def _indexes(view: View) -> Pass:
    """Let addresses go through the first entries of their tables: one edit for each level."""
    levels: dict[int, dict[int, int]] = {}
    for event in view.events:
        if isinstance(event, Access):
            for level in range(1, 6):
                known = levels.setdefault(level, {})
                known.setdefault(_index(event.iova, level), len(known))
    places = [level for level, known in levels.items() if any(a != b for a, b in known.items())]

    def make(chosen: Collection[int]) -> Change:
        maps = {places[index]: levels[places[index]] for index in chosen}

        def iova(address: int) -> int:
            for level, known in maps.items():
                index = _index(address, level)
                shift = PAGE_SHIFT + _INDEX_BITS * (level - 1)
                address ^= (index ^ known.get(index, index)) << shift
            return address

        def at(address: int) -> int:
            role, level = view.read.get(address & -_QUADWORD, (None, 0))
            if role not in _STAGES or level not in maps:
                return address
            index = address % PAGE_SIZE // _QUADWORD
            return address ^ (index ^ maps[level].get(index, index)) * _QUADWORD

        return lambda event, number: _with_address(view, event, number, iova, at)

    return len(places), make


def _with_address(
    view: View, event: Event, number: int, iova: Callable[[int], int], at: Callable[[int], int]
) -> Event:
    match event:
        case Access():
            return replace(event, iova=iova(event.iova))
        case FaultRecord(low=low):
            return replace(event, low=iova(low))
        case Store(address, _, value):
            if number not in view.descriptors:
                return replace(event, address=at(address))
            shape, word = view.descriptors[number]
            if word == 1 and _selects_pages(shape, view.words[number]):
                return replace(event, value=iova(value & _ADDRESS) | value & ~_ADDRESS)
            return event
        case Descriptor(words):
            shape_ = _shape(words)
            if shape_ is None or not _selects_pages(shape_, words):
                return event
            moved = iova(words[1] & _ADDRESS) | words[1] & ~_ADDRESS
            return replace(event, words=(words[0], moved, *words[2:]))
        case Snapshot(start, _, _, data):
            made = bytearray(PAGE_SIZE)
            for offset in range(0, PAGE_SIZE, _QUADWORD):
                if any(data[offset : offset + 8]):
                    to = at(start + offset) % PAGE_SIZE
                    made[to : to + 8] = data[offset : offset + 8]
            return replace(event, data=bytes(made))
        case RegWrite(offset, 8, value) if offset == iva_offset(view.config.extended_capability):
            return replace(event, value=iova(value & _ADDRESS) | value & ~_ADDRESS)
        case _:
            return event


def _selects_pages(shape: Layout, words: Sequence[int]) -> bool:
    return shape in _WITH_ADDRESS and shape["g"].get(words) == _SELECTIVE


def _index(address: int, level: int) -> int:
    return address >> PAGE_SHIFT + _INDEX_BITS * (level - 1) & (1 << _INDEX_BITS) - 1
