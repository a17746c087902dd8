"""Put small, canonical values in the place of what a machine happened to use (VT-d).

Tables move to the first pages of RAM, entries that nothing reads become zero, and addresses become
those of the first entries of their tables; domains, PASIDs and devices are those of `identities`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
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
    IotlbInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.registers import iva_offset
from harness.memory import PAGE_SHIFT, PAGE_SIZE
from harness.minimise.deletion import applied
from harness.minimise.gate import Gate
from harness.minimise.identities import IDENTITIES
from harness.minimise.trace import Trace
from harness.minimise.view import QUADWORD, Change, Pass, View, shape_of

_INDEX_BITS: Final = 9
_ADDRESS: Final = ((1 << 52) - 1) & -PAGE_SIZE
_POINTERS: Final = (vtd.RTADDR.offset, vtd.IQA.offset, vtd.IRTA.offset)
_STAGES: Final = (Role.FIRST_STAGE, Role.SECOND_STAGE)
_WITH_ADDRESS: Final = (layout(IotlbInvalidation), layout(PasidIotlbInvalidation))
_SELECTIVE: Final = 3


def canonical(gate: Gate) -> None:
    """Change values of the best trace for smaller ones."""
    for edits in (_unread, _single_words, _pages, *IDENTITIES, _indexes):
        view = View(gate.best)
        count, make = edits(view)
        applied(range(count), partial(_changed, view, make), gate)


def _changed(
    view: View, make: Callable[[Collection[int]], Change], chosen: Collection[int]
) -> Trace:
    change = make(chosen)
    return view.trace(change(event, number) for number, event in enumerate(view.events))


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
            for at in range(0, PAGE_SIZE, QUADWORD):
                if event.address + at in view.read:
                    data[at : at + QUADWORD] = event.data[at : at + QUADWORD]
            return replace(event, data=bytes(data))

        return change

    return len(found), make


def _single_words(view: View) -> Pass:
    """Store the only quadword of a page, instead of giving the page."""
    found = {}
    for number, event in enumerate(view.events):
        if isinstance(event, Snapshot):
            words = [at for at in range(0, PAGE_SIZE, QUADWORD) if any(event.data[at : at + 8])]
            if len(words) == 1:
                value = int.from_bytes(event.data[words[0] : words[0] + 8], "little")
                found[number] = Store(event.address + words[0], QUADWORD, value)
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
                if size == QUADWORD and address in view.read and value & _ADDRESS:
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
            role, level = view.read.get(address & -QUADWORD, (None, 0))
            if role not in _STAGES or level not in maps:
                return address
            index = address % PAGE_SIZE // QUADWORD
            return address ^ (index ^ maps[level].get(index, index)) * QUADWORD

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
            shape_ = shape_of(words)
            if shape_ is None or not _selects_pages(shape_, words):
                return event
            moved = iova(words[1] & _ADDRESS) | words[1] & ~_ADDRESS
            return replace(event, words=(words[0], moved, *words[2:]))
        case Snapshot(start, _, _, data):
            made = bytearray(PAGE_SIZE)
            for offset in range(0, PAGE_SIZE, QUADWORD):
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
