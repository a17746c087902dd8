"""Put events, answers and steps of walks into words that stay the same each time they occur."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Event,
    Fault,
    FaultRecord,
    FaultReport,
    Interrupt,
    Message,
    PageRequestRecord,
    PageResponse,
    Posted,
    RegRead,
    Request,
    Role,
    StatusWrite,
    Translation,
)
from decoders.layout import Layout, layout
from decoders.virtio_iommu.requests import status_of
from decoders.vtd.descriptors import DESCRIPTORS, descriptor_type
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import REGISTERS
from harness.decoded_virtio import request_name
from harness.findings import StepTuple

_RECORD: Final = layout(FaultRecordRegister)
_REASON: Final = _RECORD["fr"]
_REGISTERS: Final = {register.offset: register for register in REGISTERS.values()}
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]+|\b\d+\b")
_ROLES: Final = {int(one): one.name.lower().replace("_", " ") for one in Role}


def without_numbers(text: str) -> str:
    """Return a text whose numbers are cut out."""
    return _NUMBER.sub("N", text)


def event_words(event: Event | None) -> str:
    """Name the kind of an event."""
    match event:
        case None:
            return ""
        case RegRead(offset):
            register = _REGISTERS.get(offset)
            return f"RegRead {register.name if register else hex(offset)}"
        case Access(pasid=pasid):
            return "Access" if pasid is None else "Access with PASID"
        case Request(data):
            return f"Request {without_numbers(request_name(data))}"
        case _:
            return type(event).__name__


def pair(permitted: object, observed: object, event: Event | None) -> str:
    """Put what was permitted and what was seen of an event into words."""
    if isinstance(permitted, FaultRecord) and isinstance(observed, FaultRecord):
        fields = ", ".join(_record_fields(permitted, observed))
        if fields and _abstract(permitted) == _abstract(observed):
            return f"fault record: {fields}"
    if isinstance(event, RegRead) and isinstance(permitted, int) and isinstance(observed, int):
        register = _REGISTERS.get(event.offset)
        if register is not None and register.fields is not None:
            shape = layout(register.fields)
            return ", ".join(_fields(shape, (permitted,), (observed,))) or "reserved bits"
    left, right = _abstract(permitted), _abstract(observed)
    if isinstance(permitted, Translation) and isinstance(observed, Translation):
        if observed.mask > permitted.mask:
            right = "wider translation"
        elif observed.mask < permitted.mask:
            right = "narrower translation"
    return f"{left} -> {right}"


def _fields(shape: Layout, permitted: Sequence[int], observed: Sequence[int]) -> Iterator[str]:
    """Yield the fields that differ, of those of one bit how."""
    for name, field in shape.fields.items():
        if field.word < len(permitted):
            right, seen = field.get(permitted), field.get(observed)
            if right != seen:
                yield f"{name} {right} -> {seen}" if field.width == 1 else name


def _record_fields(permitted: FaultRecord, observed: FaultRecord) -> Iterator[str]:
    """Yield the fields of a record that differ; PV says nothing where PP is not what it should."""
    words = [(one.low, one.high) for one in (permitted, observed)]
    apart = [_RECORD["pp"].get(one) for one in words]
    for name in _fields(_RECORD, *words):
        if name != "pv" or apart == [1, 1]:
            yield name
    if permitted.index != observed.index:
        yield "index"


def _abstract(outcome: object) -> str:
    """Put an answer into words that leave out what changes from one occurrence to the next."""
    match outcome:
        case None:
            return "nothing"
        case Translation():
            return "translation"
        case Message():
            return "message"
        case Posted():
            return "posted"
        case Fault(reason):
            return f"fault {reason:#04x}"
        case Descriptor(words):
            kind = descriptor_type(words[0])
            shape = DESCRIPTORS.get(kind)
            return shape.__name__ if shape else f"descriptor {kind:#x}"
        case FaultRecord(_, low, high):
            return f"fault record {_REASON.get((low, high)):#04x}"
        case FaultReport(reason):
            return f"fault report {reason:#04x}"
        case PageResponse(code=code):
            return f"page response {code}"
        case StatusWrite() | Interrupt() | PageRequestRecord() | DeviceTlbMessage():
            return type(outcome).__name__
        case bytes():
            status = status_of(outcome)
            return "no status" if status is None else f"status {status}, {len(outcome)} bytes"
        case bool() | int():
            return "value"
        case _:
            return without_numbers(str(outcome))


def role_words(step: StepTuple) -> str:
    """Name what the entry is that was read in a step."""
    return _ROLES.get(step[0], str(step[0]))


def last_step(steps: Sequence[StepTuple]) -> str:
    """Name the last entry that was read, with its level."""
    if not steps:
        return ""
    level = steps[-1][1]
    return role_words(steps[-1]) + (f" level {level}" if level else "")
