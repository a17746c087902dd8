"""Change and cross streams of encoded events, so that what comes out is events again.

Changes are made to the fields of the stored form; what the codec refuses is left as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from decoders.events import Access, Event, InterruptRequest, PageRequest, RegRead, RegWrite, Store
from fuzzers.event_values import has_numbers, numbers, other, other_number, placed
from fuzzers.scaffold import encoded, sound
from harness.trace.codec import TAG_OF, FieldError, from_fields, to_fields

_MOST_CHANGES: Final = 4
_LONGEST_RUN: Final = 6
_LONGEST_SERIES: Final = 8
_OF_REGISTERS: Final = frozenset({TAG_OF[RegWrite], TAG_OF[RegRead]})
_STORE: Final = TAG_OF[Store]
_USES: Final = frozenset({TAG_OF[Access], TAG_OF[InterruptRequest], TAG_OF[PageRequest]})

Fields = list[Any]
Change = Callable[[list[Fields], Random], None]
Registers = Sequence[tuple[int, Sequence[int]]]
"""Offset of each register, and the sizes it is written in, its own first."""


class EventMutator:
    """Change streams of events behind a first byte, which chooses a scaffold.

    words are events worth having; choices is how many scaffolds there are.
    """

    def __init__(self, words: Sequence[Event], choices: int, registers: Registers) -> None:
        self._words = [to_fields(event) for event in words]
        self._choices = choices
        self._registers = tuple(registers)
        self._changes: tuple[Change, ...] = (
            *(self._change, self._change, self._change, self._change),
            *(_take_over, _take_over, _pair, _swap, _repeat, _drop, _series, _renew),
            *(self._insert, self._insert, self._touch),
        )

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Return a stream with a few changes."""
        random = Random(seed)
        head = data[:1] or b"\0"
        if random.random() < 0.05:
            head = bytes((random.randrange(self._choices),))
        stream = [to_fields(event) for event in sound(data[1:])]
        for _ in range(random.randint(1, _MOST_CHANGES)):
            random.choice(self._changes)(stream, random)
        if random.random() < 0.05:
            return _damaged(head, stream, max_size, random)[:max_size]
        return head + _packed(stream, max_size - 1)

    def cross(self, first: bytes, second: bytes, max_size: int, seed: int) -> bytes:
        """Return the beginning of one stream and the end, or a part, of another."""
        random = Random(seed)
        ours = [to_fields(event) for event in sound(first[1:])]
        theirs = [to_fields(event) for event in sound(second[1:])]
        at = random.randint(0, len(ours))
        start = random.randint(0, len(theirs))
        end = len(theirs) if random.random() < 0.5 else random.randint(start, len(theirs))
        behind = ours[at:] if random.random() < 0.5 else []
        return (first[:1] or b"\0") + _packed(
            [*ours[:at], *theirs[start:end], *behind], max_size - 1
        )

    def _insert(self, stream: list[Fields], random: Random) -> None:
        if self._words:
            word = list(random.choice(self._words))
            at = random.randint(0, len(stream))
            stream.insert(at, word)
            if random.random() < 0.5:
                self._change_one(stream, at, random)

    def _touch(self, stream: list[Fields], random: Random) -> None:
        """Access any register, in a size that it is accessed in."""
        offset, sizes = random.choice(self._registers)
        value = other_number(random.choice((0, (1 << 64) - 1)), random)
        fields = [TAG_OF[RegWrite if random.random() < 0.8 else RegRead], offset]
        size = random.choice(sizes)
        stream.insert(random.randint(0, len(stream)), [*fields, size, value & (1 << 8 * size) - 1])

    def _change(self, stream: list[Fields], random: Random) -> None:
        if stream:
            self._change_one(stream, random.randrange(len(stream)), random)

    def _change_one(self, stream: list[Fields], at: int, random: Random) -> None:
        """Change one field of an event."""
        fields = list(stream[at])
        if len(fields) < 2:
            return
        if fields[0] in _OF_REGISTERS and random.random() < 0.3:
            fields[1], sizes = random.choice(self._registers)
            fields[2] = sizes[0] if random.random() < 0.7 else random.choice(sizes)
            if fields[3] is not None:
                fields[3] &= (1 << 8 * fields[2]) - 1
        else:
            place = random.randrange(1, len(fields))
            fields[place] = other(fields[place], random)
        _keep(stream, at, fields)


def _packed(stream: Sequence[Fields], max_size: int) -> bytes:
    out = b""
    for fields in stream:
        piece = encoded((from_fields(fields),))
        if len(out) + len(piece) > max_size:
            break
        out += piece
    return out


def _damaged(head: bytes, stream: Sequence[Fields], max_size: int, random: Random) -> bytes:
    """Spoil a byte, or end within an event: rather in one that says how long it is."""
    if stream and random.random() < 0.5:
        long = [n for n, fields in enumerate(stream) if _has_length(fields)]
        some = long if long and random.random() < 0.5 else range(len(stream))
        at = random.choice(some)
        last = encoded((from_fields(stream[at]),))
        return head + _packed(stream[:at], max_size) + last[: random.randrange(len(last))]
    changed = bytearray(head + _packed(stream, max_size))
    changed[random.randrange(len(changed))] = random.choice((0, 0x93, 0xC0, random.randrange(256)))
    return bytes(changed)


def _has_length(fields: Fields) -> bool:
    return any(isinstance(value, bytes | str) for value in fields)


def _take_over(stream: list[Fields], random: Random) -> None:
    """Give a number of one event to another: addresses and ids that meet, or nearly."""
    if len(stream) < 2:
        return
    at = random.randrange(len(stream))
    alike = [fields for fields in stream if fields[0] == stream[at][0]]
    _give(stream, at, random.choice(alike if random.random() < 0.5 else stream), random)


def _pair(stream: list[Fields], random: Random) -> None:
    """Have an event twice, the second time with one of its numbers in the place of another."""
    if stream:
        at = random.randrange(len(stream))
        stream.insert(at + 1, list(stream[at]))
        _give(stream, at + 1, stream[at], random)


def _give(stream: list[Fields], at: int, giver: Fields, random: Random) -> None:
    fields = list(stream[at])
    places = [n for n in range(1, len(fields)) if has_numbers(fields[n])]
    given = numbers(giver)
    if places and given:
        # Most of what an event says stands in its octets, if it has some.
        octets = [n for n in places if isinstance(fields[n], bytes)]
        place = random.choice(octets if octets and random.random() < 0.7 else places)
        fields[place] = placed(fields[place], random.choice(given), random)
        _keep(stream, at, fields)


def _keep(stream: list[Fields], at: int, fields: Fields) -> None:
    if fields[0] == _STORE and type(fields[2]) is int and type(fields[3]) is int:
        fields[3] &= (1 << 8 * min(fields[2], 8)) - 1
    with contextlib.suppress(FieldError):
        stream[at] = to_fields(from_fields(fields))


def _run(stream: list[Fields], random: Random) -> slice:
    start = random.randrange(len(stream))
    return slice(start, start + random.randint(1, _LONGEST_RUN))


def _swap(stream: list[Fields], random: Random) -> None:
    if stream:
        where = _run(stream, random)
        moved = stream[where]
        del stream[where]
        at = random.randint(0, len(stream))
        stream[at:at] = moved


def _repeat(stream: list[Fields], random: Random) -> None:
    if stream:
        at = random.randint(0, len(stream))
        stream[at:at] = [list(fields) for fields in stream[_run(stream, random)]]


def _series(stream: list[Fields], random: Random) -> None:
    """Do a few events again and again, a number of one of them counting up: what has a limit."""
    if not stream:
        return
    where = _run(stream, random)
    run = stream[where]
    which = random.randrange(len(run))
    places = [n for n in range(1, len(run[which])) if type(run[which][n]) is int]
    if not places:
        return
    place, step = random.choice(places), random.choice((1, 8, 0x1000))
    made: list[Fields] = []
    for number in range(1, random.randint(2, _LONGEST_SERIES) + 1):
        made += [list(fields) for fields in run]
        at = len(made) - len(run) + which
        fields = list(made[at])
        fields[place] += number * step
        _keep(made, at, fields)
    stream[where.stop : where.stop] = made


def _renew(stream: list[Fields], random: Random) -> None:
    """Change and use something again and again: what is kept under one name has many contents."""
    stores = [fields for fields in stream if fields[0] == _STORE]
    uses = [fields for fields in stream if fields[0] in _USES]
    if not stores or not uses:
        return
    store, use, step = random.choice(stores), random.choice(uses), random.choice((1, 8, 0x1000))
    made: list[Fields] = []
    for number in range(random.randint(2, _LONGEST_SERIES)):
        made += [list(store), list(use)]
        fields = list(store)
        fields[3] += number * step
        _keep(made, 2 * number, fields)
    at = random.randint(0, len(stream))
    stream[at:at] = made


def _drop(stream: list[Fields], random: Random) -> None:
    if stream:
        del stream[_run(stream, random)]
