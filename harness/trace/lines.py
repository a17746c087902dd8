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
from harness.trace.codec import PAGE, TAG_OF, FieldError, from_fields

_HEX = re.compile("0x([0-9a-fA-F]{1,16})")
_DECIMAL = re.compile("[0-9]{1,20}")
_SID = re.compile("([0-9a-f]{1,2}):([01]?[0-9a-f])[.]([0-7])", re.IGNORECASE)
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

Words = list[str]


def format_sid(sid: int) -> str:
    """Return a source id as bus:device.function, a wider endpoint id as a number."""
    if sid >> 16:
        return f"{sid:#x}"
    return f"{sid >> 8:02x}:{sid >> 3 & 0x1F:02x}.{sid & 7}"


def parse_sid(text: str) -> int:
    """Return the source id that bus:device.function, or a number with 0x, stands for.

    Errors: ValueError.
    """
    plain = _HEX.fullmatch(text)
    if plain is not None:
        return int(plain[1], 16)
    match = _SID.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.40} is not bus:device.function")
    bus, device, function = (int(group, 16) for group in match.groups())
    return bus << 8 | device << 3 | function


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
}


# --- reading -------------------------------------------------------------------------------------


def _split(rest: str, names: str) -> Words:
    words = rest.split()
    wanted = names.split()
    if len(words) != len(wanted):
        raise FieldError("", f"{len(words)} words, not {len(wanted)} ({names})")
    return words


def _hex(word: str, name: str) -> int:
    match = _HEX.fullmatch(word)
    if match is None:
        raise FieldError(name, f"{word!r:.40} is not a 64-bit number in hexadecimal with 0x")
    return int(match[1], 16)


def _decimal(word: str, name: str) -> int:
    if not _DECIMAL.fullmatch(word):
        raise FieldError(name, f"{word!r:.40} is not a decimal number")
    return int(word)


def _choice(choices: dict[str, int], word: str, name: str) -> int:
    if word not in choices:
        raise FieldError(name, f"{word!r:.40} is none of {' '.join(choices)}")
    return choices[word]


def _read_reg_write(rest: str) -> list[Any]:
    offset, size, value = _split(rest, "offset size value")
    return [_hex(offset, "offset"), _decimal(size, "size"), _hex(value, "value")]


def _read_reg_read(rest: str) -> list[Any]:
    offset, size, value = _split(rest, "offset size value")
    captured = None if value == "-" else _hex(value, "value")
    return [_hex(offset, "offset"), _decimal(size, "size"), captured]


def _read_store(rest: str) -> list[Any]:
    address, size, value = _split(rest, "address size value")
    return [_hex(address, "address"), _decimal(size, "size"), _hex(value, "value")]


def _read_snapshot(rest: str) -> list[Any]:
    words = rest.split()
    address, role, level = _split(" ".join(words[:3]), "address role level")
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
        _hex(address, "address"),
        _choice(_ROLES, role, "role"),
        _decimal(level, "level"),
        bytes(data),
    ]


def _read_release(rest: str) -> list[Any]:
    (address,) = _split(rest, "address")
    return [_hex(address, "address")]


def _read_descriptor(rest: str) -> list[Any]:
    return [[_hex(word, f"words[{index}]") for index, word in enumerate(rest.split())]]


def _source(word: str, name: str) -> int:
    try:
        return parse_sid(word)
    except ValueError as error:
        raise FieldError(name, str(error)) from error


def _read_access(rest: str) -> list[Any]:
    words = rest.split()
    sid, pasid, iova, kind, sign = _split(" ".join(words[:5]), "sid pasid iova kind outcome")
    source = _source(sid, "sid")
    outcome: object
    if sign == "=":
        address, mask = _split(" ".join(words[5:]), "address mask")
        outcome = [_hex(address, "outcome.address"), _hex(mask, "outcome.mask")]
    elif sign == "!":
        (reason,) = _split(" ".join(words[5:]), "reason")
        outcome = _hex(reason, "outcome.reason")
    elif sign == "?" and len(words) == 5:
        outcome = None
    else:
        raise FieldError("outcome", f"{' '.join(words[4:])!r:.60} is none of = ! ?")
    kind, *names = kind.split("+")
    flags = [_choice(_ATTRIBUTES, name, "attributes") for name in names]
    if len(set(flags)) != len(flags):
        raise FieldError("attributes", f"{'+'.join(names)!r:.60} says one of them twice")
    return [
        source,
        None if pasid == "-" else _hex(pasid, "pasid"),
        _hex(iova, "iova"),
        _choice(_KINDS, kind, "kind"),
        outcome,
        *([sum(flags)] if flags else []),
    ]


def _read_fault_record(rest: str) -> list[Any]:
    index, low, high = _split(rest, "index low high")
    return [_decimal(index, "index"), _hex(low, "low"), _hex(high, "high")]


def _read_status(rest: str) -> list[Any]:
    address, value = _split(rest, "address value")
    return [_hex(address, "address"), _hex(value, "value")]


def _read_interrupt(rest: str) -> list[Any]:
    address, data = _split(rest, "address data")
    return [_hex(address, "address"), _hex(data, "data")]


def _read_reset(rest: str) -> list[Any]:
    return list(_split(rest, ""))


def _read_clock(rest: str) -> list[Any]:
    (microseconds,) = _split(rest, "microseconds")
    return [_decimal(microseconds, "microseconds")]


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
    data, room, sign = _split(" ".join(words[:3]), "data room answer")
    answer = None
    if sign == "=":
        (word,) = _split(" ".join(words[3:]), "answer")
        answer = _read_octets(word, "answer")
    elif sign != "?" or len(words) != 3:
        raise FieldError("answer", f"{' '.join(words[2:])!r:.60} is neither = nor ?")
    return [_read_octets(data, "data"), _decimal(room, "room"), answer]


def _read_fault_report(rest: str) -> list[Any]:
    reason, flags, endpoint, address = _split(rest, "reason flags endpoint address")
    return [
        _decimal(reason, "reason"),
        _hex(flags, "flags"),
        _source(endpoint, "endpoint"),
        _hex(address, "address"),
    ]


def _read_features(rest: str) -> list[Any]:
    offered, accepted = _split(rest, "offered accepted")
    return [_hex(offered, "offered"), _hex(accepted, "accepted")]


def _read_config(rest: str) -> list[Any]:
    (data,) = _split(rest, "data")
    return [_read_octets(data, "data")]


def _read_endpoint(rest: str) -> list[Any]:
    endpoint, *words = rest.split() or [""]
    regions = []
    for index, word in enumerate(words):
        match = _REGION.fullmatch(word)
        if match is None:
            raise FieldError(f"regions[{index}]", f"{word!r:.60} is not subtype:start-end")
        regions.append([int(match[1]), int(match[2], 16), int(match[3], 16)])
    return [_source(endpoint, "endpoint"), regions]


def _read_interrupt_request(rest: str) -> list[Any]:
    words = rest.split()
    sid, address, data, sign = _split(" ".join(words[:4]), "sid address data outcome")
    outcome: object
    if sign == "=":
        target, content = _split(" ".join(words[4:]), "address data")
        outcome = [_hex(target, "outcome.address"), _hex(content, "outcome.data")]
    elif sign == "+":
        urgent = words[6:] == ["urgent"]
        descriptor, vector = _split(" ".join(words[4:6] if urgent else words[4:]), "address vector")
        posted = _hex(descriptor, "outcome.descriptor"), _hex(vector, "outcome.vector")
        outcome = [*posted, int(urgent)]
    elif sign == "!":
        (reason,) = _split(" ".join(words[4:]), "reason")
        outcome = _hex(reason, "outcome.reason")
    elif sign == "?" and len(words) == 4:
        outcome = None
    else:
        raise FieldError("outcome", f"{' '.join(words[3:])!r:.60} is none of = + ! ?")
    return [
        None if sid == "-" else _source(sid, "sid"),
        _hex(address, "address"),
        _hex(data, "data"),
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
    )
}

WORDS: dict[type[Event], str] = {kind: word for kind, (word, _) in _WRITERS.items()}
"""First word of the lines of each kind."""

EVENT_WORDS: dict[str, type[Event]] = {word: kind for word, (kind, _) in _READERS.items()}
"""Kind of event that a first word stands for."""
