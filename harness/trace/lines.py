"""Turn events into lines of text and back, without loss (docs/design.md, section 4)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    Clock,
    ConfigSpace,
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
from harness.trace import page_lines
from harness.trace.codec import PAGE, TAG_OF, FieldError, from_fields
from harness.trace.words import (
    choice,
    decimal,
    format_sid,
    hexadecimal,
    parse_sid,
    source_id,
    split,
)

__all__ = [
    "ATTRIBUTE_NAMES", "EVENT_WORDS", "KIND_NAMES", "ROLE_NAMES", "WORDS", "format_attributes",
    "format_event", "format_sid", "parse_event", "parse_sid",
]  # fmt: skip

_QUADWORD = re.compile("([0-9a-f]{1,3})=0x([0-9a-f]{1,16})", re.IGNORECASE)
_COMMENT = re.compile(r" ;(?= |$)")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.?))", re.DOTALL)

ROLE_NAMES = {role: role.name.lower().replace("_", "-") for role in Role}
KIND_NAMES = {kind: kind.name.lower() for kind in AccessKind}
ATTRIBUTE_NAMES = {
    Attribute.PRIVILEGED: "priv",
    Attribute.TRANSLATION_REQUEST: "ats",
    Attribute.TRANSLATED: "translated",
}
_ATTRIBUTES = {name: int(flag) for flag, name in ATTRIBUTE_NAMES.items()}
_ROLES = {name: int(role) for role, name in ROLE_NAMES.items()}
_KINDS = {name: int(kind) for kind, name in KIND_NAMES.items()}


def format_attributes(attributes: Attribute) -> str:
    """Return what follows the kind of a request: nothing, or +priv and the like."""
    return "".join(f"+{name}" for flag, name in ATTRIBUTE_NAMES.items() if flag & attributes)


def format_event(event: Event) -> str:
    """Return the line that stands for an event, without its end."""
    word, write = _WRITERS[type(event)]
    rest = write(event)
    return f"{word} {rest}" if rest else word


def parse_event(line: str) -> Event:
    """Return the event that a line stands for.

    Errors: FieldError.
    """
    comment = _COMMENT.search(line)
    if comment:
        line = line[: comment.start()]
    word, _, rest = line.strip().partition(" ")
    if word not in _READERS:
        raise FieldError("", f"{word!r:.40} is no event")
    kind, read = _READERS[word]
    return from_fields([TAG_OF[kind], *read(rest)])


# --- writing -------------------------------------------------------------------------------------


def _write_snapshot(event: Snapshot) -> str:
    words = memoryview(event.data).cast("Q")
    pieces = [f"{event.address:#x} {ROLE_NAMES[event.role]} {event.level}"]
    # The cast reads in the machine's byte order, so only the search for zeros may use it.
    for index, word in enumerate(words):
        if word:
            value = int.from_bytes(event.data[index * 8 : index * 8 + 8], "little")
            pieces.append(f"{index:x}={value:#x}")
    return " ".join(pieces)


def _write_access(event: Access) -> str:
    pasid = "-" if event.pasid is None else f"{event.pasid:#x}"
    if event.outcome is None:
        outcome = "?"
    elif isinstance(event.outcome, Translation):
        outcome = f"= {event.outcome.address:#x} {event.outcome.mask:#x}"
    else:
        outcome = f"! {event.outcome.reason:#04x}"
    kind = KIND_NAMES[event.kind] + format_attributes(event.attributes)
    return f"{format_sid(event.sid)} {pasid} {event.iova:#x} {kind} {outcome}"


def _write_descriptor(event: Descriptor) -> str:
    low, *rest = event.words
    return " ".join([f"{low:#018x}", *(f"{word:#x}" for word in rest)])


# What would not survive on a line: controls, the comment sign, the escape itself, outer spaces.
_UNSAFE = re.compile(r"[^ -:<-\[\]-~]|^ +| +$")


def _write_reason(event: Gap) -> str:
    return _UNSAFE.sub(lambda match: "".join(map(_escape, match[0])), event.reason)


def _escape(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return r"\\"
    if char.isprintable() and code >= 0x80:
        return char
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Bytes as hexadecimal; many zeros at their end are counted instead: ff+508.
_OCTETS = re.compile(r"((?:[0-9a-f]{2})*)(?:\+([0-9]{1,6}))?", re.IGNORECASE)
_ZEROS = 8
_ZEROS_LIMIT = 1 << 17
_REGION = re.compile(r"([0-9]{1,3}):(0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,16})", re.IGNORECASE)


def _octets(data: bytes) -> str:
    zeros = len(data) - len(data.rstrip(b"\0"))
    if not data:
        return "-"
    return data.hex() if zeros < _ZEROS else f"{data[: len(data) - zeros].hex()}+{zeros}"


def _write_request(event: Request) -> str:
    answer = "?" if event.answer is None else f"= {_octets(event.answer)}"
    return f"{_octets(event.data)} {event.room} {answer}"


def _write_fault_report(event: FaultReport) -> str:
    return f"{event.reason} {event.flags:#x} {format_sid(event.endpoint)} {event.address:#x}"


def _write_endpoint(event: Endpoint) -> str:
    regions = (f"{subtype}:{start:#x}-{end:#x}" for subtype, start, end in event.regions)
    return " ".join([format_sid(event.endpoint), *regions])


def _write_interrupt_request(event: InterruptRequest) -> str:
    source = "-" if event.sid is None else format_sid(event.sid)
    match event.outcome:
        case Message(address, data):
            outcome = f"= {address:#x} {data:#x}"
        case Posted(descriptor, vector, urgent):
            outcome = f"+ {descriptor:#x} {vector:#04x}{' urgent' if urgent else ''}"
        case Fault(reason):
            outcome = f"! {reason:#04x}"
        case None:
            outcome = "?"
    return f"{source} {event.address:#x} {event.data:#x} {outcome}"


_WRITERS: dict[type[Event], tuple[str, Callable[[Any], str]]] = {
    RegWrite: ("reg.write", lambda e: f"{e.offset:#05x} {e.size} {e.value:#x}"),
    RegRead: (
        "reg.read",
        lambda e: f"{e.offset:#05x} {e.size} {'-' if e.value is None else hex(e.value)}",
    ),
    Store: ("store", lambda e: f"{e.address:#x} {e.size} {e.value:#x}"),
    Snapshot: ("snapshot", _write_snapshot),
    Release: ("release", lambda e: f"{e.address:#x}"),
    Descriptor: ("descriptor", _write_descriptor),
    Access: ("access", _write_access),
    FaultRecord: ("fault-record", lambda e: f"{e.index} {e.low:#x} {e.high:#x}"),
    StatusWrite: ("status", lambda e: f"{e.address:#x} {e.value:#x}"),
    Interrupt: ("interrupt", lambda e: f"{e.address:#x} {e.data:#x}"),
    Reset: ("reset", lambda e: ""),
    Clock: ("clock", lambda e: f"{e.microseconds}"),
    Gap: ("gap", _write_reason),
    Request: ("request", _write_request),
    FaultReport: ("fault-report", _write_fault_report),
    Features: ("features", lambda e: f"{e.offered:#x} {e.accepted:#x}"),
    ConfigSpace: ("config", lambda e: _octets(e.data)),
    DeviceReset: ("device-reset", lambda e: ""),
    Endpoint: ("endpoint", _write_endpoint),
    InterruptRequest: ("interrupt-request", _write_interrupt_request),
    PageRequest: ("page-request", page_lines.write_page_request),
    PageRequestRecord: ("page-request-record", page_lines.write_record),
    PageResponse: ("page-response", page_lines.write_response),
    DeviceTlbMessage: ("device-tlb", page_lines.write_device_tlb),
}


# --- reading -------------------------------------------------------------------------------------


def _read_reg_write(rest: str) -> list[Any]:
    offset, size, value = split(rest, "offset size value")
    return [hexadecimal(offset, "offset"), decimal(size, "size"), hexadecimal(value, "value")]


def _read_reg_read(rest: str) -> list[Any]:
    offset, size, value = split(rest, "offset size value")
    captured = None if value == "-" else hexadecimal(value, "value")
    return [hexadecimal(offset, "offset"), decimal(size, "size"), captured]


def _read_store(rest: str) -> list[Any]:
    address, size, value = split(rest, "address size value")
    return [hexadecimal(address, "address"), decimal(size, "size"), hexadecimal(value, "value")]


def _read_snapshot(rest: str) -> list[Any]:
    words = rest.split()
    address, role, level = split(" ".join(words[:3]), "address role level")
    data = bytearray(PAGE)
    seen = set()
    for word in words[3:]:
        match = _QUADWORD.fullmatch(word)
        index = int(match[1], 16) if match else PAGE
        if match is None or index >= PAGE // 8:
            raise FieldError("data", f"{word!r:.40} is not index=quadword, both hexadecimal")
        if index in seen:
            raise FieldError("data", f"quadword {index:x} is given twice")
        seen.add(index)
        data[index * 8 : index * 8 + 8] = int(match[2], 16).to_bytes(8, "little")
    return [
        hexadecimal(address, "address"),
        choice(_ROLES, role, "role"),
        decimal(level, "level"),
        bytes(data),
    ]


def _read_release(rest: str) -> list[Any]:
    (address,) = split(rest, "address")
    return [hexadecimal(address, "address")]


def _read_descriptor(rest: str) -> list[Any]:
    return [[hexadecimal(word, f"words[{index}]") for index, word in enumerate(rest.split())]]


def _read_access(rest: str) -> list[Any]:
    words = rest.split()
    sid, pasid, iova, kind, sign = split(" ".join(words[:5]), "sid pasid iova kind outcome")
    source = source_id(sid, "sid")
    outcome: object
    if sign == "=":
        address, mask = split(" ".join(words[5:]), "address mask")
        outcome = [hexadecimal(address, "outcome.address"), hexadecimal(mask, "outcome.mask")]
    elif sign == "!":
        (reason,) = split(" ".join(words[5:]), "reason")
        outcome = hexadecimal(reason, "outcome.reason")
    elif sign == "?" and len(words) == 5:
        outcome = None
    else:
        raise FieldError("outcome", f"{' '.join(words[4:])!r:.60} is none of = ! ?")
    kind, *names = kind.split("+")
    flags = [choice(_ATTRIBUTES, name, "attributes") for name in names]
    if len(set(flags)) != len(flags):
        raise FieldError("attributes", f"{'+'.join(names)!r:.60} says one of them twice")
    return [
        source,
        None if pasid == "-" else hexadecimal(pasid, "pasid"),
        hexadecimal(iova, "iova"),
        choice(_KINDS, kind, "kind"),
        outcome,
        *([sum(flags)] if flags else []),
    ]


def _read_fault_record(rest: str) -> list[Any]:
    index, low, high = split(rest, "index low high")
    return [decimal(index, "index"), hexadecimal(low, "low"), hexadecimal(high, "high")]


def _read_status(rest: str) -> list[Any]:
    address, value = split(rest, "address value")
    return [hexadecimal(address, "address"), hexadecimal(value, "value")]


def _read_interrupt(rest: str) -> list[Any]:
    address, data = split(rest, "address data")
    return [hexadecimal(address, "address"), hexadecimal(data, "data")]


def _read_reset(rest: str) -> list[Any]:
    return list(split(rest, ""))


def _read_clock(rest: str) -> list[Any]:
    (microseconds,) = split(rest, "microseconds")
    return [decimal(microseconds, "microseconds")]


def _read_gap(rest: str) -> list[Any]:
    return [_ESCAPE.sub(_unescape, rest.strip(" "))]


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code is None:
        if match[4] != "\\":
            raise FieldError("reason", rf"{match[0]!r} is none of \\ \xNN \uNNNN \UNNNNNNNN")
        return "\\"
    if int(code, 16) > 0x10FFFF:
        raise FieldError("reason", f"{match[0]!r} is no character")
    return chr(int(code, 16))


def _read_octets(word: str, name: str) -> bytes:
    if word == "-":
        return b""
    match = _OCTETS.fullmatch(word)
    zeros = int(match[2] or 0) if match else 0
    if match is None or zeros > _ZEROS_LIMIT:
        raise FieldError(name, f"{word!r:.40} is not - nor bytes in hexadecimal")
    return bytes.fromhex(match[1]) + bytes(zeros)


def _read_request(rest: str) -> list[Any]:
    words = rest.split()
    data, room, sign = split(" ".join(words[:3]), "data room answer")
    answer = None
    if sign == "=":
        (word,) = split(" ".join(words[3:]), "answer")
        answer = _read_octets(word, "answer")
    elif sign != "?" or len(words) != 3:
        raise FieldError("answer", f"{' '.join(words[2:])!r:.60} is neither = nor ?")
    return [_read_octets(data, "data"), decimal(room, "room"), answer]


def _read_fault_report(rest: str) -> list[Any]:
    reason, flags, endpoint, address = split(rest, "reason flags endpoint address")
    return [
        decimal(reason, "reason"),
        hexadecimal(flags, "flags"),
        source_id(endpoint, "endpoint"),
        hexadecimal(address, "address"),
    ]


def _read_features(rest: str) -> list[Any]:
    offered, accepted = split(rest, "offered accepted")
    return [hexadecimal(offered, "offered"), hexadecimal(accepted, "accepted")]


def _read_config(rest: str) -> list[Any]:
    (data,) = split(rest, "data")
    return [_read_octets(data, "data")]


def _read_endpoint(rest: str) -> list[Any]:
    endpoint, *words = rest.split() or [""]
    regions = []
    for index, word in enumerate(words):
        match = _REGION.fullmatch(word)
        if match is None:
            raise FieldError(f"regions[{index}]", f"{word!r:.60} is not subtype:start-end")
        regions.append([int(match[1]), int(match[2], 16), int(match[3], 16)])
    return [source_id(endpoint, "endpoint"), regions]


def _read_interrupt_request(rest: str) -> list[Any]:
    words = rest.split()
    sid, address, data, sign = split(" ".join(words[:4]), "sid address data outcome")
    outcome: object
    if sign == "=":
        target, content = split(" ".join(words[4:]), "address data")
        outcome = [hexadecimal(target, "outcome.address"), hexadecimal(content, "outcome.data")]
    elif sign == "+":
        urgent = words[6:] == ["urgent"]
        descriptor, vector = split(" ".join(words[4:6] if urgent else words[4:]), "address vector")
        posted = (
            hexadecimal(descriptor, "outcome.descriptor"),
            hexadecimal(vector, "outcome.vector"),
        )
        outcome = [*posted, int(urgent)]
    elif sign == "!":
        (reason,) = split(" ".join(words[4:]), "reason")
        outcome = hexadecimal(reason, "outcome.reason")
    elif sign == "?" and len(words) == 4:
        outcome = None
    else:
        raise FieldError("outcome", f"{' '.join(words[3:])!r:.60} is none of = + ! ?")
    return [
        None if sid == "-" else source_id(sid, "sid"),
        hexadecimal(address, "address"),
        hexadecimal(data, "data"),
        outcome,
    ]


_READERS: dict[str, tuple[type[Event], Callable[[str], list[Any]]]] = {
    _WRITERS[kind][0]: (kind, read)
    for kind, read in (
        (RegWrite, _read_reg_write),
        (RegRead, _read_reg_read),
        (Store, _read_store),
        (Snapshot, _read_snapshot),
        (Release, _read_release),
        (Descriptor, _read_descriptor),
        (Access, _read_access),
        (FaultRecord, _read_fault_record),
        (StatusWrite, _read_status),
        (Interrupt, _read_interrupt),
        (Reset, _read_reset),
        (Clock, _read_clock),
        (Gap, _read_gap),
        (Request, _read_request),
        (FaultReport, _read_fault_report),
        (Features, _read_features),
        (ConfigSpace, _read_config),
        (DeviceReset, _read_reset),
        (Endpoint, _read_endpoint),
        (InterruptRequest, _read_interrupt_request),
        (PageRequest, page_lines.read_page_request),
        (PageRequestRecord, page_lines.read_record),
        (PageResponse, page_lines.read_response),
        (DeviceTlbMessage, page_lines.read_device_tlb),
    )
}

WORDS: dict[type[Event], str] = {kind: word for kind, (word, _) in _WRITERS.items()}
"""First word of the lines of each kind."""

EVENT_WORDS: dict[str, type[Event]] = {word: kind for word, (kind, _) in _READERS.items()}
"""Kind of event that a first word stands for."""
