"""Turn events into msgpack arrays and back (docs/design.md, section 3).

One set of checks stands behind every way into a trace: the stored form, the text form and the
writer all pass through ``from_fields``, so whatever was written can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from decoders.errors import DecodeError
from decoders.events import (
    TAGS,
    Access,
    AccessKind,
    Clock,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Gap,
    Interrupt,
    Outcome,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from harness.trace.packing import Packer, Unpacker

PAGE = 4096
REASON_LIMIT = 4096  # bytes of a Gap's reason

TAG_OF: dict[type[Event], int] = {kind: tag for tag, kind in TAGS.items()}
"""Tag of each event class."""

U16, U20, U32, U64 = ((1 << bits) - 1 for bits in (16, 20, 32, 64))
_SIZES = (1, 2, 4, 8)

T = TypeVar("T")


class FieldError(ValueError):
    """Report which field of one event is wrong, for a caller who knows where the event stands."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}" if field else problem)

    def at(self, path: str, offset: int | None = None, unit: str = "offset") -> DecodeError:
        """Give the same report with its place: path names the event, offset where it lies."""
        full = f"{path}.{self.field}" if self.field else path
        return DecodeError(full, self.problem, offset, unit)


def _number(value: object, limit: int, name: str) -> int:
    # bool is a child of int, and msgpack has a type of its own for it.
    if type(value) is not int:
        raise FieldError(name, f"is {_describe(value)}, not a number")
    if not 0 <= value <= limit:
        raise FieldError(name, f"{value:#x} is not within 0..{limit:#x}")
    return value


def _describe(value: object) -> str:
    return "absent" if value is None else f"of type {type(value).__name__}"


def _sized(size: object, value: object) -> tuple[int, int]:
    width = _size(size)
    number = _number(value, U64, "value")
    if number >> (8 * width):
        raise FieldError("value", f"{number:#x} does not fit into {width} bytes")
    return width, number


def _size(size: object) -> int:
    if type(size) is not int or size not in _SIZES:
        raise FieldError("size", f"{size!r:.40} is not 1, 2, 4 or 8")
    return size


def _page(address: object) -> int:
    number = _number(address, U64, "address")
    if number % PAGE:
        raise FieldError("address", f"{number:#x} is not the start of a page")
    return number


def _member(choices: dict[int, T], value: object, name: str) -> T:
    if type(value) is not int or value not in choices:
        raise FieldError(name, f"{value!r:.40} is not known")
    return choices[value]


_ROLES = {int(role): role for role in Role}
_KINDS = {int(kind): kind for kind in AccessKind}


def _reg_write(offset: object, size: object, value: object) -> RegWrite:
    width, number = _sized(size, value)
    return RegWrite(_number(offset, U32, "offset"), width, number)


def _reg_read(offset: object, size: object, value: object) -> RegRead:
    start = _number(offset, U32, "offset")
    if value is None:
        return RegRead(start, _size(size), None)
    return RegRead(start, *_sized(size, value))


def _store(address: object, size: object, value: object) -> Store:
    start = _number(address, U64, "address")
    width, number = _sized(size, value)
    if start % PAGE + width > PAGE:
        raise FieldError("size", f"{width} bytes at {start:#x} cross a page")
    return Store(start, width, number)


def _snapshot(address: object, role: object, level: object, data: object) -> Snapshot:
    start = _page(address)
    if type(data) is not bytes:
        raise FieldError("data", f"is {_describe(data)}, not bytes")
    if len(data) > PAGE:
        raise FieldError("data", f"has {len(data)} bytes, a page has {PAGE}")
    return Snapshot(
        start,
        _member(_ROLES, role, "role"),
        _number(level, 7, "level"),
        data.ljust(PAGE, b"\0"),
    )


def _release(address: object) -> Release:
    return Release(_page(address))


def _descriptor(words: object) -> Descriptor:
    if type(words) not in (list, tuple):
        raise FieldError("words", f"is {_describe(words)}, not an array")
    assert isinstance(words, list | tuple)
    if len(words) not in (2, 4):
        raise FieldError("words", f"has {len(words)} words, not 2 or 4")
    return Descriptor(
        tuple([_number(word, U64, f"words[{index}]") for index, word in enumerate(words)])
    )


def _access(sid: object, pasid: object, iova: object, kind: object, outcome: object) -> Access:
    return Access(
        _number(sid, U16, "sid"),
        None if pasid is None else _number(pasid, U20, "pasid"),
        _number(iova, U64, "iova"),
        _member(_KINDS, kind, "kind"),
        None if outcome is None else _outcome(outcome),
    )


def _outcome(outcome: object) -> Outcome:
    if not isinstance(outcome, list):
        return Fault(_number(outcome, 0xFF, "outcome.reason"))
    if len(outcome) != 2:
        raise FieldError("outcome", f"has {len(outcome)} members, not address and mask")
    return Translation(
        _number(outcome[0], U64, "outcome.address"), _number(outcome[1], U64, "outcome.mask")
    )


def _fault_record(index: object, low: object, high: object) -> FaultRecord:
    return FaultRecord(
        _number(index, U64, "index"), _number(low, U64, "low"), _number(high, U64, "high")
    )


def _status_write(address: object, value: object) -> StatusWrite:
    start = _number(address, U64, "address")
    if start % 4:
        raise FieldError("address", f"{start:#x} is not one of a doubleword")
    return StatusWrite(start, _number(value, U32, "value"))


def _interrupt(address: object, data: object) -> Interrupt:
    return Interrupt(_number(address, U64, "address"), _number(data, U32, "data"))


def _reset() -> Reset:
    return Reset()


def _clock(microseconds: object) -> Clock:
    return Clock(_number(microseconds, U64, "microseconds"))


def _gap(reason: object) -> Gap:
    if type(reason) is not str:
        raise FieldError("reason", f"is {_describe(reason)}, not text")
    try:
        length = len(reason.encode())
    except UnicodeEncodeError as error:
        raise FieldError("reason", f"is not text: {error.reason}") from error
    if length > REASON_LIMIT:
        raise FieldError("reason", f"has {length} bytes, the limit is {REASON_LIMIT}")
    return Gap(reason)


# Number of fields and reader of each kind.
_READERS: dict[int, tuple[int, Callable[..., Event]]] = {
    TAG_OF[kind]: (count, reader)
    for kind, count, reader in (
        (RegWrite, 3, _reg_write),
        (RegRead, 3, _reg_read),
        (Store, 3, _store),
        (Snapshot, 4, _snapshot),
        (Release, 1, _release),
        (Descriptor, 1, _descriptor),
        (Access, 5, _access),
        (FaultRecord, 3, _fault_record),
        (StatusWrite, 2, _status_write),
        (Interrupt, 2, _interrupt),
        (Reset, 0, _reset),
        (Clock, 1, _clock),
        (Gap, 1, _gap),
    )
}


def from_fields(array: object) -> Event:
    """Return the event that an array ``[tag, *fields]`` stands for.

    Errors: FieldError for anything that is not exactly an event.
    """
    if not isinstance(array, list) or not array:
        raise FieldError("", "is not an array with a tag")
    tag = array[0]
    if type(tag) is not int or tag not in _READERS:
        raise FieldError("tag", f"{tag!r:.40} is not known")
    count, reader = _READERS[tag]
    if len(array) != count + 1:
        raise FieldError(
            "", f"{TAGS[tag].__name__} has {count} fields, the array holds {len(array) - 1}"
        )
    return reader(*array[1:])


def to_fields(event: Event) -> list[Any]:
    """Return the array ``[tag, *fields]`` of an event, unchecked."""
    return [TAG_OF[type(event)], *_FIELDS[type(event)](event)]


def _outcome_field(event: Access) -> Any:
    outcome = event.outcome
    if isinstance(outcome, Translation):
        return [outcome.address, outcome.mask]
    return None if outcome is None else outcome.reason


# What each kind is stored as, behind its tag.
_FIELDS: dict[type[Event], Callable[[Any], Sequence[Any]]] = {
    RegWrite: lambda e: (e.offset, e.size, e.value),
    RegRead: lambda e: (e.offset, e.size, e.value),
    Store: lambda e: (e.address, e.size, e.value),
    Snapshot: lambda e: (e.address, int(e.role), e.level, e.data.rstrip(b"\0")),
    Release: lambda e: (e.address,),
    Descriptor: lambda e: (list(e.words),),
    Access: lambda e: (e.sid, e.pasid, e.iova, int(e.kind), _outcome_field(e)),
    FaultRecord: lambda e: (e.index, e.low, e.high),
    StatusWrite: lambda e: (e.address, e.value),
    Interrupt: lambda e: (e.address, e.data),
    Reset: lambda e: (),
    Clock: lambda e: (e.microseconds,),
    Gap: lambda e: (e.reason,),
}


def storable(event: Event) -> Event:
    """Return the event, or a Gap that says why no trace can hold it.

    A log may claim what no unit does: a fault reason of 999.
    """
    try:
        from_fields(to_fields(event))
    except FieldError as error:
        return Gap(f"out of bounds: {type(event).__name__}: {error}"[:1000])
    return event


class Encoder:
    """Encode events one after another."""

    def __init__(self) -> None:
        self._packer = Packer()

    def encode(self, event: Event) -> bytes:
        """Return the stored form of an event.

        Errors: FieldError when a reader would refuse it.
        """
        fields = to_fields(event)
        from_fields(fields)
        return self._packer.pack(fields)


def decode(raw: bytes, path: str, first_event: int, offset: int | None = None) -> Iterator[Event]:
    """Yield the events in the raw content of a block.

    path names the block, offset is where it lies in the file, and first_event is the number of
    its first event. Errors: DecodeError, after the events before the damage.
    """
    unpacker = Unpacker(raw)
    messages = iter(unpacker)
    number = first_event
    while True:
        position = unpacker.position
        try:
            array = next(messages)
        except StopIteration:
            if position != len(raw):
                raise DecodeError(
                    f"{path}.event[{number}]", "runs past the block", offset
                ) from None
            return
        except ValueError as error:
            problem = f"is not a message within bounds ({str(error) or type(error).__name__})"
            raise DecodeError(f"{path}.event[{number}]", problem, offset) from error
        try:
            event = from_fields(array)
        except FieldError as error:
            raise error.at(f"{path}.event[{number}]", offset) from error
        yield event
        number += 1
