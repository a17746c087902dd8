"""Parse the lines of the recorder stream, grammar 1 (docs/design.md, section 5).

The recorder writes into the same file as the emulator's own trace, so its lines are found among
others by their first word, ``dmr``. All numbers are lower-case hex without a prefix, at most 64
bits. Every function takes what follows the verb and gives None for a line that does not fit:
which line that was, only the caller knows.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from decoders.events import DeviceReset, Gap, Release, Request, Role, Snapshot, Store

GRAMMAR: Final = 1
"""The version of the grammar that this module reads; `dmr begin` names it."""

REASON_LIMIT: Final = 256
"""Bytes of a `dmr lost` reason that are kept."""

OCTETS_LIMIT: Final = 4096
"""Bytes of zero at the end of what a device reads or writes."""

_PAGE: Final = 4096
_QUADWORDS: Final = _PAGE // 8
_SIZES: Final = {b"1": 1, b"2": 2, b"4": 4, b"8": 8}
_ROLES: Final = {b"%x" % role: role for role in Role}
_ZERO_PAGE: Final = bytes(_PAGE)

_HEX: Final = rb"([0-9a-f]{1,16})"
_begin = re.compile(rb"([0-9a-f]{1,4})").fullmatch
_access = re.compile(_HEX + rb" ([1248]) " + _HEX).fullmatch
_snapshot = re.compile(_HEX + rb" ([0-9a-f]) ([0-9a-f])((?: [0-9a-f]{1,3}:[0-9a-f]{1,16})*)")
_release = re.compile(_HEX).fullmatch
_octets_word = re.compile(rb"((?:[0-9a-f]{2})*)(?:\+([0-9a-f]{1,4}))?").fullmatch
_room = re.compile(rb"[0-9a-f]{1,8}").fullmatch


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a recording: everything that follows obeys this version of the grammar."""

    grammar: int


@dataclass(frozen=True, slots=True)
class RegStore:
    """Confirm a register write, as the processor executed it (after its consequences)."""

    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class RegLoad:
    """Give the value that a register read returned to the processor."""

    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class ConfigStore:
    """Show a store to the config space of a virtio-iommu (after its consequences)."""

    offset: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """Give the feature bits that the driver of a virtio-iommu has accepted."""

    features: int


Line = (
    Begin
    | RegStore
    | RegLoad
    | Snapshot
    | Store
    | Release
    | Gap
    | Request
    | ConfigStore
    | Accepted
    | DeviceReset
)


def _sized(rest: bytes) -> tuple[int, int, int] | None:
    """Parse `WHERE SIZE VALUE`; a value wider than its size is not one."""
    match = _access(rest)
    if match is None:
        return None
    where, size_digit, value_digits = match.groups()
    size = _SIZES[size_digit]
    value = int(value_digits, 16)
    if value >> (size * 8):
        return None
    return int(where, 16), size, value


def parse_begin(rest: bytes) -> Begin | None:
    """Parse `dmr begin GRAMMAR`."""
    match = _begin(rest)
    return None if match is None else Begin(int(match[1], 16))


def parse_reg(rest: bytes) -> RegStore | None:
    """Parse `dmr reg OFFSET SIZE VALUE`."""
    fields = _sized(rest)
    return None if fields is None else RegStore(*fields)


def parse_rd(rest: bytes) -> RegLoad | None:
    """Parse `dmr rd OFFSET SIZE VALUE`."""
    fields = _sized(rest)
    return None if fields is None else RegLoad(*fields)


def parse_st(rest: bytes) -> Store | None:
    """Parse `dmr st GPA SIZE VALUE`; a store that crosses a page is refused."""
    fields = _sized(rest)
    if fields is None:
        return None
    address, size, value = fields
    if address % _PAGE + size > _PAGE:
        return None
    return Store(address, size, value)


def parse_snap(rest: bytes) -> Snapshot | None:
    """Parse `dmr snap GPA ROLE LEVEL [INDEX:QUADWORD ...]`; ROLE is the number of a Role.

    Quadwords that are not listed are zero. An index beyond the page, or one given twice, is
    refused: it can only come from a damaged line.
    """
    match = _snapshot.fullmatch(rest)
    if match is None:
        return None
    address = int(match[1], 16)
    role = _ROLES.get(match[2])
    if role is None or address % _PAGE:
        return None
    listed = match[4]
    if not listed:
        return Snapshot(address, role, int(match[3], 16), _ZERO_PAGE)
    quadwords = [0] * _QUADWORDS
    seen = set()
    for entry in listed.split():
        index_digits, _, quadword = entry.partition(b":")
        index = int(index_digits, 16)
        if index >= _QUADWORDS or index in seen:
            return None
        seen.add(index)
        quadwords[index] = int(quadword, 16)
    data = struct.pack(f"<{_QUADWORDS}Q", *quadwords)
    return Snapshot(address, role, int(match[3], 16), data)


def parse_rel(rest: bytes) -> Release | None:
    """Parse `dmr rel GPA`."""
    match = _release(rest)
    if match is None:
        return None
    address = int(match[1], 16)
    return None if address % _PAGE else Release(address)


def parse_lost(rest: bytes) -> Gap | None:
    """Parse `dmr lost REASON...`; the reason is free text."""
    reason = rest[:REASON_LIMIT].decode("ascii", "backslashreplace").strip()
    return Gap(reason or "the recorder gave no reason")


def _octets(word: bytes) -> bytes | None:
    """Read bytes in hexadecimal, with `+N` for N more of zero; `-` stands for none."""
    match = _octets_word(word)
    if match is None:
        return b"" if word == b"-" else None
    zeros = int(match[2] or b"0", 16)
    if zeros > OCTETS_LIMIT:
        return None
    return bytes.fromhex(match[1].decode("ascii")) + bytes(zeros)


def parse_vreq(rest: bytes) -> Request | None:
    """Parse `dmr vreq READABLE ROOM WRITTEN`; a device cannot write more than there is room."""
    words = rest.split(b" ")
    if len(words) != 3 or _room(words[1]) is None:
        return None
    data, room, answer = _octets(words[0]), int(words[1], 16), _octets(words[2])
    if data is None or answer is None or len(answer) > room:
        return None
    return Request(data, room, answer)


def parse_vfeat(rest: bytes) -> Accepted | None:
    """Parse `dmr vfeat ACCEPTED`."""
    match = _release(rest)
    return None if match is None else Accepted(int(match[1], 16))


def parse_vcfg(rest: bytes) -> ConfigStore | None:
    """Parse `dmr vcfg OFFSET SIZE VALUE`."""
    fields = _sized(rest)
    return None if fields is None else ConfigStore(*fields)


def parse_vrst(rest: bytes) -> DeviceReset | None:
    """Parse `dmr vrst`."""
    return None if rest else DeviceReset()


VERBS: Final[dict[bytes, Callable[[bytes], Line | None]]] = {
    b"begin": parse_begin,
    b"reg": parse_reg,
    b"rd": parse_rd,
    b"st": parse_st,
    b"snap": parse_snap,
    b"rel": parse_rel,
    b"lost": parse_lost,
    b"vreq": parse_vreq,
    b"vfeat": parse_vfeat,
    b"vcfg": parse_vcfg,
    b"vrst": parse_vrst,
}
"""What follows `dmr ` on a line, and who parses the rest."""
