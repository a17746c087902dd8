"""The lines of page requests, their answers, and messages to device TLBs."""

from __future__ import annotations

from typing import Any

from decoders.events import (
    DeviceTlbMessage,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
)
from harness.trace.checks import FieldError
from harness.trace.words import choice, decimal, format_sid, hexadecimal, source_id, split

FLAG_NAMES = {
    PageRequestFlag.READ: "read",
    PageRequestFlag.WRITE: "write",
    PageRequestFlag.EXECUTE: "execute",
    PageRequestFlag.PRIVILEGED: "priv",
    PageRequestFlag.LAST: "last",
}
_FLAGS = {name: int(flag) for flag, name in FLAG_NAMES.items()}
NONE, EVERY = "-", "*"
"""Stand for no flag, no PASID, and every PASID."""


def write_page_request(event: PageRequest) -> str:
    """Return what a line says of a page request."""
    flags = "+".join(name for flag, name in FLAG_NAMES.items() if flag & event.flags) or NONE
    return f"{_source(event)} {event.address:#x} {flags} {event.group}"


def write_record(event: PageRequestRecord) -> str:
    """Return what a line says of a page request record."""
    return " ".join(f"{number:#x}" for number in (event.address, *event.words))


def write_response(event: PageResponse) -> str:
    """Return what a line says of a page response."""
    return f"{_source(event)} {event.group} {event.code}"


def write_device_tlb(event: DeviceTlbMessage) -> str:
    """Return what a line says of a message to a device TLB."""
    source = f"{format_sid(event.sid)} {EVERY}" if event.every_pasid else _source(event)
    return f"{source} {event.address:#x} {event.mask:#x}"


def _source(event: PageRequest | PageResponse | DeviceTlbMessage) -> str:
    pasid = NONE if event.pasid is None else f"{event.pasid:#x}"
    return f"{format_sid(event.sid)} {pasid}"


def read_page_request(rest: str) -> list[Any]:
    """Return the fields of a page request from its line."""
    sid, pasid, address, flags, group = split(rest, "sid pasid address flags group")
    names = [] if flags == NONE else flags.split("+")
    known = [choice(_FLAGS, name, "flags") for name in names]
    if len(set(known)) != len(known):
        raise FieldError("flags", f"{flags!r:.60} says one of them twice")
    page = hexadecimal(address, "address")
    return [*_read_source(sid, pasid), page, sum(known), decimal(group, "group")]


def read_record(rest: str) -> list[Any]:
    """Return the fields of a page request record from its line."""
    address, *words = rest.split() or [""]
    numbers = [hexadecimal(word, f"words[{index}]") for index, word in enumerate(words)]
    return [hexadecimal(address, "address"), numbers]


def read_response(rest: str) -> list[Any]:
    """Return the fields of a page response from its line."""
    sid, pasid, group, code = split(rest, "sid pasid group code")
    return [*_read_source(sid, pasid), decimal(group, "group"), decimal(code, "code")]


def read_device_tlb(rest: str) -> list[Any]:
    """Return the fields of a message to a device TLB from its line."""
    sid, pasid, address, mask = split(rest, "sid pasid address mask")
    place = [hexadecimal(address, "address"), hexadecimal(mask, "mask")]
    every = pasid == EVERY
    return [*_read_source(sid, NONE if every else pasid), *place, int(every)]


def _read_source(sid: str, pasid: str) -> list[Any]:
    number = None if pasid == NONE else hexadecimal(pasid, "pasid")
    return [source_id(sid, "sid"), number]
