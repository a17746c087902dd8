"""Change and cross streams of encoded events, so that what comes out is events again.

Changes are made to the fields of the stored form; what the codec refuses is left as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from decoders.events import Event, RegRead, RegWrite, Store
from decoders.vtd.registers import REGISTERS
from fuzzers.scaffold import encoded, sound
from harness.trace.codec import TAG_OF, FieldError, from_fields, to_fields

_MOST_CHANGES: Final = 4
_LONGEST_RUN: Final = 6
_LONGEST_SERIES: Final = 8
_INTERESTING: Final = (
    0, 1, 2, 3, 4, 7, 8, 0x10, 0x1F, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, 0x1000,
    0xFFFF, 0x10000, 0xFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFEE00000, 1 << 32, 1 << 39,
    1 << 47, 1 << 48, 1 << 52, 1 << 63, (1 << 64) - 1, (1 << 64) - 8, (1 << 64) - 0x1000,
)  # fmt: skip
_WIDTHS: Final = (8, 16, 20, 32, 64)
"""Bits of numbers: flags, source ids, PASIDs, registers, addresses."""

_REGISTERS: Final = tuple((register.offset, register.size) for register in REGISTERS.values())
_OF_REGISTERS: Final = frozenset({TAG_OF[RegWrite], TAG_OF[RegRead]})
_STORE: Final = TAG_OF[Store]

Fields = list[Any]
Change = Callable[[list[Fields], Random], None]


class EventMutator:
    """Change streams of events behind a first byte, which chooses a scaffold.

    words are events worth having; choices is how many scaffolds there are.
    """

    def __init__(self, words: Sequence[Event], choices: int) -> None:
        self._words = [to_fields(event) for event in words]
        self._choices = choices
        self._changes: tuple[Change, ...] = (
            *(_change, _change, _change, _change, _take_over, _take_over, _swap, _repeat, _drop),
            _series,
            *(self._insert, self._insert),
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
        if random.random() < 0.03:
            return _damaged(head + _packed(stream, max_size), random)[:max_size]
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
                _change_one(stream, at, random)


def _packed(stream: Sequence[Fields], max_size: int) -> bytes:
    out = b""
    for fields in stream:
        piece = encoded((from_fields(fields),))
        if len(out) + len(piece) > max_size:
            break
        out += piece
    return out


def _damaged(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    changed[random.randrange(len(changed))] = random.choice((0, 0x93, 0xC0, random.randrange(256)))
    return bytes(changed)


def _change(stream: list[Fields], random: Random) -> None:
    if stream:
        _change_one(stream, random.randrange(len(stream)), random)


def _change_one(stream: list[Fields], at: int, random: Random) -> None:
    """Change one field of an event."""
    fields = list(stream[at])
    if len(fields) < 2:
        return
    if fields[0] in _OF_REGISTERS and random.random() < 0.3:
        fields[1], size = random.choice(_REGISTERS)
        # Software may write half of a register, or two beside each other.
        fields[2] = size if random.random() < 0.7 else 12 - size
        if fields[3] is not None:
            fields[3] &= (1 << 8 * fields[2]) - 1
    else:
        place = random.randrange(1, len(fields))
        fields[place] = _other(fields[place], fields, random)
    _keep(stream, at, fields)


def _other(value: Any, fields: Fields, random: Random) -> Any:
    """Return another value of a field."""
    if isinstance(value, bool) or value is None:
        return random.choice((None, 0, random.choice(_INTERESTING), [0x1000, 0xFFF]))
    if isinstance(value, int):
        return _other_number(value, random)
    if isinstance(value, bytes):
        return _other_octets(value, random)
    if isinstance(value, list) and value:
        changed = list(value)
        place = random.randrange(len(changed))
        changed[place] = _other(changed[place], fields, random)
        return changed
    return None


def _other_number(value: int, random: Random) -> int:
    match random.randrange(6):
        case 0 | 1:
            return value ^ 1 << random.randrange(random.choice(_WIDTHS))
        case 2:
            return value ^ 1 << random.randrange(max(1, value.bit_length() + 1))
        case 3:
            return max(0, value + random.choice((-0x1000, -8, -1, 1, 8, 0x1000)))
        case 4:
            return random.choice(_INTERESTING)
        case _:
            return random.getrandbits(random.choice((1, 4, 8, 16, 32, 64)))


def _other_octets(value: bytes, random: Random) -> bytes:
    changed = bytearray(value)
    if not changed or random.random() < 0.1:
        return bytes(changed) + random.randbytes(random.choice((1, 4, 8)))
    if random.random() < 0.1:
        return bytes(changed[: random.randrange(len(changed))])
    # Numbers stand at multiples of 8 or 4.
    size = random.choice((1, 1, 4, 8))
    at = random.randrange(0, len(changed), size)
    if size == 8 and random.random() < 0.3:
        # Beginnings and ends meet.
        other_at = random.randrange(0, len(changed), size)
        changed[at : at + size] = changed[other_at : other_at + size]
        return bytes(changed)
    number = int.from_bytes(changed[at : at + size], "little")
    other = _other_number(number, random) & (1 << 8 * size) - 1
    changed[at : at + size] = other.to_bytes(size, "little")
    return bytes(changed)


def _take_over(stream: list[Fields], random: Random) -> None:
    """Give a number of one event to another: addresses and ids that meet."""
    if len(stream) < 2:
        return
    at = random.randrange(len(stream))
    fields = list(stream[at])
    places = [n for n in range(1, len(fields)) if type(fields[n]) is int]
    other = stream[random.randrange(len(stream))]
    numbers = [value for value in other[1:] if type(value) is int]
    if places and numbers:
        fields[random.choice(places)] = random.choice(numbers)
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


def _drop(stream: list[Fields], random: Random) -> None:
    if stream:
        del stream[_run(stream, random)]
