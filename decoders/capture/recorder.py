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

from decoders.events import Gap, Release, Role, Snapshot, Store

GRAMMAR: Final = 1
"""The version of the grammar that this module reads; `dmr begin` names it."""

REASON_LIMIT: Final = 256
"""Bytes of a `dmr lost` reason that are kept."""

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


Line = Begin | RegStore | RegLoad | Snapshot | Store | Release | Gap


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


VERBS: Final[dict[bytes, Callable[[bytes], Line | None]]] = {
    b"begin": parse_begin,
    b"reg": parse_reg,
    b"rd": parse_rd,
    b"st": parse_st,
    b"snap": parse_snap,
    b"rel": parse_rel,
    b"lost": parse_lost,
}
"""What follows `dmr ` on a line, and who parses the rest."""
