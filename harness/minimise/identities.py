"""Count domains and PASIDs from 1 and give devices the first slots of bus 0 (VT-d)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Event,
    FaultRecord,
    InterruptRequest,
    PageRequest,
    PageRequestRecord,
    PageResponse,
    RegWrite,
    Role,
    Snapshot,
    Store,
)
from decoders.layout import Layout, layout
from decoders.vtd import pagerequest
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.interrupt import InterruptRemapEntry
from decoders.vtd.registers import ContextCommand, IotlbRegister, iotlb_offset
from decoders.vtd.tables import ContextEntry, PasidEntry, ScalableContextEntry
from harness.memory import PAGE_SIZE
from harness.minimise.view import QUADWORD, Change, Pass, View, shape_of

SLOTS: Final = tuple(slot << 3 for slot in range(1, 0x1F))
"""Source ids of the slots of bus 0 between the first and the last, which a q35 has devices in."""

_Names = Mapping[str, Callable[[int], int]]
"""Fields by name, and what their values become."""
_Move = Callable[[int], int]
"""Says where a quadword of a table goes."""

_ENTRIES: Final = {
    Role.CONTEXT: layout(ContextEntry),
    Role.SCALABLE_CONTEXT: layout(ScalableContextEntry),
    Role.PASID_TABLE: layout(PasidEntry),
    Role.INTERRUPT_TABLE: layout(InterruptRemapEntry),
}
_COMMAND: Final = layout(ContextCommand)
_IOTLB: Final = layout(IotlbRegister)
_RECORD: Final = layout(FaultRecordRegister)
_PAGE_REQUEST: Final = layout(pagerequest.PageRequest)
_DOMAIN: Final = ("did",)
_SOURCE: Final = ("sid", "rid")
_PASID: Final = ("pasid", "pv", "rid_pasid")
_DIRECTORY_SHIFT: Final = 6
_HALF: Final = 7
"""Bit of a source id that says which of the two context tables of a bus it is in."""


def _same(value: int) -> int:
    return value


# --- the passes ----------------------------------------------------------------------------------


def _domains(view: View) -> Pass:
    """Count domains from 1."""
    return _counted(view, _DOMAIN, range(1, 1 << 16))


def _pasids(view: View) -> Pass:
    """Count PASIDs from 1, and move their entries."""
    return _counted(view, _PASID, range(1, 1 << 20))


def _sources(view: View) -> Pass:
    """Put all devices on bus 0."""
    return _renaming(view, _SOURCE, zip(_devices(view), SLOTS, strict=False))


def _sources_by_bus(view: View) -> Pass:
    """Count buses, and the devices of each: of two with a context table each this may be left."""
    used = _devices(view)
    buses = {bus: number for number, bus in enumerate(dict.fromkeys(sid >> 8 for sid in used))}
    places = []
    for bus, number in buses.items():
        own = [sid for sid in used if sid >> 8 == bus]
        # Alone on a bus behind a root port, a device is in its first slot.
        slots = SLOTS if number == 0 else [slot - SLOTS[0] for slot in SLOTS]
        places += [(sid, number << 8 | slot) for sid, slot in zip(own, slots, strict=False)]
    return _renaming(view, _SOURCE, places)


IDENTITIES: Final = (_domains, _pasids, _sources, _sources_by_bus)


def _devices(view: View) -> list[int]:
    """Return the source ids of requests, in the order in which they come; 0 stays what it is."""
    requests = (Access, PageRequest, InterruptRequest)
    return list(dict.fromkeys(e.sid for e in view.events if isinstance(e, requests) and e.sid))


def _used(view: View, fields: Sequence[str]) -> list[int]:
    """Return the values of some fields but 0, in the order in which they come."""
    used: dict[int, None] = {}

    def note(value: int) -> int:
        if value:
            used.setdefault(value)
        return value

    names = dict.fromkeys(fields, note)
    for number, event in enumerate(view.events):
        _renamed(view, names, _same, event, number)
    return list(used)


def _counted(view: View, fields: Sequence[str], numbers: Iterable[int]) -> Pass:
    """Let the values of some fields be the first of some numbers."""
    return _renaming(view, fields, zip(_used(view, fields), numbers, strict=False))


def _renaming(view: View, fields: Sequence[str], wanted: Iterable[tuple[int, int]]) -> Pass:
    """Return a pass with an edit for each value that is to be another."""
    places = [(old, new) for old, new in wanted if old != new]

    def make(chosen: Collection[int]) -> Change:
        renamed = dict(places[index] for index in chosen)

        def name(value: int) -> int:
            return renamed.get(value, value)

        names = dict.fromkeys(fields, name)
        return partial(_renamed, view, names, partial(_moved, view, names))

    return len(places), make


# --- where entries go ----------------------------------------------------------------------------


def _moved(view: View, names: _Names, address: int) -> int:
    """Return where the quadword at an address goes when those for whom it is read are renamed.

    It stays where two of them want it at different places.
    """
    at = address & -QUADWORD
    role, _ = view.read.get(at, (None, 0))
    if role is None:
        return address
    source, pasid = names.get("sid", _same), names.get("pasid", _same)
    distances: set[int] = set()
    for sid, number in view.readers.get(at, ()):
        word = at // QUADWORD & 1 ^ _half(view, sid)
        before = _place(view, role, word, sid, number)
        distances.add(_place(view, role, word, source(sid), pasid(number)) - before)
    if len(distances) != 1:
        return address
    place = address + distances.pop()
    return place if role == Role.PASID_DIRECTORY or _page(place) == _page(address) else address


def _page(address: int) -> int:
    return address & -PAGE_SIZE


def _half(view: View, sid: int) -> int:
    return sid >> _HALF & 1 if view.scalable else 0


def _place(view: View, role: Role, word: int, sid: int, pasid: int) -> int:
    """Return how far from the beginning of its table an entry is (VT-d 9.1 to 9.6).

    Of a root entry: its word for the half of the bus that the device is in (0), or the other (1).
    """
    match role:
        case Role.ROOT:
            return (sid >> 8) * 16 + (word ^ _half(view, sid)) * QUADWORD
        case Role.CONTEXT:
            return (sid & 0xFF) * 16
        case Role.SCALABLE_CONTEXT:
            return (sid & 0x7F) * 32
        case Role.PASID_DIRECTORY:
            return (pasid >> _DIRECTORY_SHIFT) * 8
        case Role.PASID_TABLE:
            return (pasid & (1 << _DIRECTORY_SHIFT) - 1) * 64
        case _:
            return 0


# --- an event ------------------------------------------------------------------------------------


def _renamed(view: View, names: _Names, at: _Move, event: Event, number: int) -> Event:
    """Return an event with other values in some fields, and entries of tables elsewhere."""
    source, pasid = names.get("sid", _same), names.get("pasid", _same)

    def named(value: int | None) -> int | None:
        return None if value is None else pasid(value)

    match event:
        case Access(sid, number_) | PageRequest(sid, number_):
            return replace(event, sid=source(sid), pasid=named(number_))
        case PageResponse(sid, number_) | DeviceTlbMessage(sid, number_):
            return replace(event, sid=source(sid), pasid=named(number_))
        case InterruptRequest(sid=int(sid)):
            return replace(event, sid=source(sid))
        case FaultRecord(_, low, high):
            low, high = _put(_RECORD, (low, high), names)
            return replace(event, low=low, high=high)
        case PageRequestRecord(words=words):
            return replace(event, words=_put(_PAGE_REQUEST, words, names))
        case Descriptor(words):
            shape = shape_of(words)
            return event if shape is None else replace(event, words=_put(shape, words, names))
        case RegWrite(vtd.CCMD.offset, 8, value):
            return replace(event, value=_put(_COMMAND, (value,), names)[0])
        case RegWrite(offset, 8, value) if offset == iotlb_offset(view.config.extended_capability):
            return replace(event, value=_put(_IOTLB, (value,), names)[0])
        case Store(address, size, value):
            if number in view.descriptors:
                shape, word = view.descriptors[number]
                return replace(event, value=_put(shape, (value,), names, word)[0])
            if size == QUADWORD:
                value = _entry(view, address, value, names)
            return replace(event, address=at(address), value=value)
        case Snapshot(start, _, _, data):
            return replace(event, data=_page_of(view, start, data, names, at))
        case _:
            return event


def _page_of(view: View, start: int, data: bytes, names: _Names, at: _Move) -> bytes:
    made = bytearray(data)
    moved: list[tuple[int, bytes]] = []
    for offset in _read_in(view, start):
        value = int.from_bytes(data[offset : offset + QUADWORD], "little")
        raw = _entry(view, start + offset, value, names).to_bytes(QUADWORD, "little")
        to = at(start + offset)
        made[offset : offset + QUADWORD] = bytes(QUADWORD)
        # A page holds what is in it; what would go to another stays.
        moved.append((to % PAGE_SIZE if _page(to) == start else offset, raw))
    for offset, raw in moved:
        if any(raw):
            made[offset : offset + QUADWORD] = raw
    return bytes(made)


def _read_in(view: View, start: int) -> Iterator[int]:
    return (offset for offset in range(0, PAGE_SIZE, QUADWORD) if start + offset in view.read)


def _entry(view: View, address: int, value: int, names: _Names) -> int:
    """Return what a quadword of a table becomes."""
    role, _ = view.read.get(address, (None, 0))
    shape = None if role is None else _ENTRIES.get(role)
    if shape is None:
        return value
    return _put(shape, (value,), names, address // QUADWORD % shape.words)[0]


def _put(shape: Layout, words: Sequence[int], names: _Names, first: int = 0) -> tuple[int, ...]:
    """Return words of a structure, from one of its words on, with other values in some fields."""
    made = [0] * first + list(words)
    for name, value in names.items():
        field = shape.fields.get(name)
        if field is not None and first <= field.word < len(made):
            field.put(made, value(field.get(made)))
    return tuple(made[first:])
