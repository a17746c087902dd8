"""Turn events into msgpack arrays and back (docs/design.md, section 3).

One set of checks stands behind every way into a trace: the stored form, the text form and the
writer all pass through ``from_fields``, so whatever was written can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from decoders.errors import DecodeError
from decoders.events import (
    ATTRIBUTES,
    TAGS,
    Access,
    AccessKind,
    Clock,
    ConfigSpace,
    Delivery,
    Descriptor,
    DeviceReset,
    DeviceTlbMessage,
    Endpoint,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Features,
    Gap,
    Interrupt,
    InterruptRequest,
    Message,
    Outcome,
    PageRequest,
    PageRequestRecord,
    PageResponse,
    Posted,
    RegRead,
    RegWrite,
    Release,
    Request,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from harness.trace import checks
from harness.trace.checks import (
    ANSWER_LIMIT,
    CONFIG_LIMIT,
    PAGE,
    REASON_LIMIT,
    REGIONS_LIMIT,
    REQUEST_LIMIT,
    U8,
    U16,
    U20,
    U32,
    U64,
    FieldError,
)
from harness.trace.packing import Packer, Unpacker
from harness.trace.page_forms import (
    device_tlb_message,
    page_request,
    page_request_record,
    page_response,
)

POSTED_SIZE = 64  # bytes of a posted descriptor, which is aligned to them

__all__ = [
    "PAGE", "TAG_OF", "Encoder", "FieldError", "decode", "from_fields", "storable", "to_fields"
]  # fmt: skip

TAG_OF: dict[type[Event], int] = {kind: tag for tag, kind in TAGS.items()}
"""Tag of each event class."""


_ROLES = {int(role): role for role in Role}
_KINDS = {int(kind): kind for kind in AccessKind}
_ATTRIBUTES = {int(flags): flags for flags in ATTRIBUTES}


def _reg_write(offset: object, size: object, value: object) -> RegWrite:
    width, number = checks.sized(size, value)
    return RegWrite(checks.number(offset, U32, "offset"), width, number)


def _reg_read(offset: object, size: object, value: object) -> RegRead:
    start = checks.number(offset, U32, "offset")
    if value is None:
        return RegRead(start, checks.width(size), None)
    return RegRead(start, *checks.sized(size, value))


def _store(address: object, size: object, value: object) -> Store:
    start = checks.number(address, U64, "address")
    width, number = checks.sized(size, value)
    if start % PAGE + width > PAGE:
        raise FieldError("size", f"{width} bytes at {start:#x} cross a page")
    return Store(start, width, number)


def _snapshot(address: object, role: object, level: object, data: object) -> Snapshot:
    start = checks.page(address)
    content = checks.octets(data, PAGE, "data")
    return Snapshot(
        start,
        checks.member(_ROLES, role, "role"),
        checks.number(level, 7, "level"),
        content.ljust(PAGE, b"\0"),
    )


def _release(address: object) -> Release:
    return Release(checks.page(address))


def _descriptor(words: object) -> Descriptor:
    if type(words) not in (list, tuple):
        raise FieldError("words", f"is {checks.describe(words)}, not an array")
    assert isinstance(words, list | tuple)
    if len(words) not in (2, 4):
        raise FieldError("words", f"has {len(words)} words, not 2 or 4")
    return Descriptor(
        tuple([checks.number(word, U64, f"words[{index}]") for index, word in enumerate(words)])
    )


def _access(
    sid: object,
    pasid: object,
    iova: object,
    kind: object,
    outcome: object,
    attributes: object = 0,
) -> Access:
    return Access(
        checks.number(sid, U32, "sid"),
        None if pasid is None else checks.number(pasid, U20, "pasid"),
        checks.number(iova, U64, "iova"),
        checks.member(_KINDS, kind, "kind"),
        None if outcome is None else _outcome(outcome),
        checks.member(_ATTRIBUTES, attributes, "attributes"),
    )


def _outcome(outcome: object) -> Outcome:
    if not isinstance(outcome, list):
        return Fault(checks.number(outcome, 0xFF, "outcome.reason"))
    if len(outcome) != 2:
        raise FieldError("outcome", f"has {len(outcome)} members, not address and mask")
    return Translation(
        checks.number(outcome[0], U64, "outcome.address"),
        checks.number(outcome[1], U64, "outcome.mask"),
    )


def _fault_record(index: object, low: object, high: object) -> FaultRecord:
    return FaultRecord(
        checks.number(index, U64, "index"),
        checks.number(low, U64, "low"),
        checks.number(high, U64, "high"),
    )


def _status_write(address: object, value: object) -> StatusWrite:
    start = checks.number(address, U64, "address")
    if start % 4:
        raise FieldError("address", f"{start:#x} is not one of a doubleword")
    return StatusWrite(start, checks.number(value, U32, "value"))


def _interrupt(address: object, data: object) -> Interrupt:
    return Interrupt(checks.number(address, U64, "address"), checks.number(data, U32, "data"))


def _reset() -> Reset:
    return Reset()


def _clock(microseconds: object) -> Clock:
    return Clock(checks.number(microseconds, U64, "microseconds"))


def _gap(reason: object) -> Gap:
    if type(reason) is not str:
        raise FieldError("reason", f"is {checks.describe(reason)}, not text")
    try:
        length = len(reason.encode())
    except UnicodeEncodeError as error:
        raise FieldError("reason", f"is not text: {error.reason}") from error
    if length > REASON_LIMIT:
        raise FieldError("reason", f"has {length} bytes, the limit is {REASON_LIMIT}")
    return Gap(reason)


def _request(data: object, room: object, answer: object) -> Request:
    read = checks.octets(data, REQUEST_LIMIT, "data")
    most = checks.number(room, U32, "room")
    written = None if answer is None else checks.octets(answer, ANSWER_LIMIT, "answer")
    if written is not None and len(written) > most:
        raise FieldError("answer", f"has {len(written)} bytes, there is room for {most}")
    return Request(read, most, written)


def _fault_report(reason: object, flags: object, endpoint: object, address: object) -> FaultReport:
    return FaultReport(
        checks.number(reason, U8, "reason"),
        checks.number(flags, U32, "flags"),
        checks.number(endpoint, U32, "endpoint"),
        checks.number(address, U64, "address"),
    )


def _features(offered: object, accepted: object) -> Features:
    return Features(
        checks.number(offered, U64, "offered"), checks.number(accepted, U64, "accepted")
    )


def _config_space(data: object) -> ConfigSpace:
    return ConfigSpace(checks.octets(data, CONFIG_LIMIT, "data"))


def _device_reset() -> DeviceReset:
    return DeviceReset()


def _endpoint(endpoint: object, regions: object) -> Endpoint:
    if type(regions) not in (list, tuple):
        raise FieldError("regions", f"is {checks.describe(regions)}, not an array")
    assert isinstance(regions, list | tuple)
    if len(regions) > REGIONS_LIMIT:
        raise FieldError("regions", f"has {len(regions)} members, the limit is {REGIONS_LIMIT}")
    return Endpoint(
        checks.number(endpoint, U32, "endpoint"),
        tuple([_region(region, f"regions[{index}]") for index, region in enumerate(regions)]),
    )


def _region(region: object, name: str) -> tuple[int, int, int]:
    if type(region) not in (list, tuple):
        raise FieldError(name, f"is {checks.describe(region)}, not an array")
    assert isinstance(region, list | tuple)
    if len(region) != 3:
        raise FieldError(name, f"has {len(region)} members, not subtype, start and end")
    subtype = checks.number(region[0], U8, f"{name}.subtype")
    start = checks.number(region[1], U64, f"{name}.start")
    end = checks.number(region[2], U64, f"{name}.end")
    if end < start:
        raise FieldError(f"{name}.end", f"{end:#x} is before the start {start:#x}")
    return subtype, start, end


def _interrupt_request(
    sid: object, address: object, data: object, outcome: object
) -> InterruptRequest:
    return InterruptRequest(
        None if sid is None else checks.number(sid, U16, "sid"),
        checks.number(address, U64, "address"),
        checks.number(data, U32, "data"),
        None if outcome is None else _delivery(outcome),
    )


def _delivery(outcome: object) -> Delivery:
    if not isinstance(outcome, list):
        return Fault(checks.number(outcome, U8, "outcome.reason"))
    if len(outcome) == 2:
        return Message(
            checks.number(outcome[0], U64, "outcome.address"),
            checks.number(outcome[1], U32, "outcome.data"),
        )
    if len(outcome) != 3:
        raise FieldError(
            "outcome", f"has {len(outcome)} members, not two of a message or three of a posting"
        )
    descriptor = checks.number(outcome[0], U64, "outcome.descriptor")
    if descriptor % POSTED_SIZE:
        raise FieldError("outcome.descriptor", f"{descriptor:#x} is not one of 64 bytes")
    return Posted(
        descriptor,
        checks.number(outcome[1], U8, "outcome.vector"),
        bool(checks.number(outcome[2], 1, "outcome.urgent")),
    )


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
        (Request, 3, _request),
        (FaultReport, 4, _fault_report),
        (Features, 2, _features),
        (ConfigSpace, 1, _config_space),
        (DeviceReset, 0, _device_reset),
        (Endpoint, 2, _endpoint),
        (InterruptRequest, 4, _interrupt_request),
        (PageRequest, 5, page_request),
        (PageRequestRecord, 2, page_request_record),
        (PageResponse, 4, page_response),
        (DeviceTlbMessage, 5, device_tlb_message),
    )
}

_OPTIONAL = {TAG_OF[Access]: 1}
"""Fields that a kind may have behind those, by tag."""


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
    given = len(array) - 1
    if given != count and given != count + _OPTIONAL.get(tag, 0):
        raise FieldError("", f"{TAGS[tag].__name__} has {count} fields, the array holds {given}")
    return reader(*array[1:])


def to_fields(event: Event) -> list[Any]:
    """Return the array ``[tag, *fields]`` of an event, unchecked."""
    return [TAG_OF[type(event)], *_FIELDS[type(event)](event)]


def _outcome_field(event: Access) -> Any:
    outcome = event.outcome
    if isinstance(outcome, Translation):
        return [outcome.address, outcome.mask]
    return None if outcome is None else outcome.reason


def _delivery_field(event: InterruptRequest) -> Any:
    match event.outcome:
        case Message(address, data):
            return [address, data]
        case Posted(descriptor, vector, urgent):
            return [descriptor, vector, int(urgent)]
        case Fault(reason):
            return reason
        case None:
            return None


# What each kind is stored as, behind its tag.
_FIELDS: dict[type[Event], Callable[[Any], Sequence[Any]]] = {
    RegWrite: lambda e: (e.offset, e.size, e.value),
    RegRead: lambda e: (e.offset, e.size, e.value),
    Store: lambda e: (e.address, e.size, e.value),
    Snapshot: lambda e: (e.address, int(e.role), e.level, e.data.rstrip(b"\0")),
    Release: lambda e: (e.address,),
    Descriptor: lambda e: (list(e.words),),
    Access: lambda e: (
        *(e.sid, e.pasid, e.iova, int(e.kind), _outcome_field(e)),
        *([int(e.attributes)] if e.attributes else []),
    ),
    FaultRecord: lambda e: (e.index, e.low, e.high),
    StatusWrite: lambda e: (e.address, e.value),
    Interrupt: lambda e: (e.address, e.data),
    Reset: lambda e: (),
    Clock: lambda e: (e.microseconds,),
    Gap: lambda e: (e.reason,),
    Request: lambda e: (e.data, e.room, e.answer),
    FaultReport: lambda e: (e.reason, e.flags, e.endpoint, e.address),
    Features: lambda e: (e.offered, e.accepted),
    ConfigSpace: lambda e: (e.data,),
    DeviceReset: lambda e: (),
    Endpoint: lambda e: (e.endpoint, [list(region) for region in e.regions]),
    InterruptRequest: lambda e: (e.sid, e.address, e.data, _delivery_field(e)),
    PageRequest: lambda e: (e.sid, e.pasid, e.address, int(e.flags), e.group),
    PageRequestRecord: lambda e: (e.address, list(e.words)),
    PageResponse: lambda e: (e.sid, e.pasid, e.group, e.code),
    DeviceTlbMessage: lambda e: (e.sid, e.pasid, e.address, e.mask, int(e.every_pasid)),
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
