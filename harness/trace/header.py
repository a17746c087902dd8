"""Describe the machine a trace was recorded on, and how it was recorded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from decoders.errors import DecodeError
from decoders.vtd.registers import VIRTUAL_COMMANDS
from harness.trace.checks import CONFIG_LIMIT
from harness.trace.packing import Packer, unpack_map

HEADER_LIMIT = 1 << 20
"""Bytes of the stored header."""

VERSION = 1
UNITS_LIMIT = 64
RANGES_LIMIT = 4096
SWITCHES_LIMIT = 256
MEMBERS_LIMIT = 4096  # members of one list or map
DEPTH_LIMIT = 8  # lists and maps in source, one in another
CONTAINERS_LIMIT = 16384  # lists and maps, in all
SOURCE_LIMIT = 8192  # of them in source: with all ranges and units that stays below
VALUES_LIMIT = 1 << 18  # commas of the JSON form

JSON_LIMIT = 1 << 20
"""Characters of a header as JSON; one of many control characters may exceed it."""

VTD, VIRTIO = "vtd", "virtio-iommu"
"""Kinds of units that are known; a header may name others."""

OCTETS = re.compile(rf"(?:[0-9a-f]{{2}}){{1,{CONFIG_LIMIT}}}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")

# Strings, so that what they contain is passed over, and what begins or parts values. Nothing is
# tried twice (possessive, and a string may lack its end), or a hostile line would take forever.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)

U32 = (1 << 32) - 1
U64 = (1 << 64) - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UnitInfo:
    """Describe one IOMMU: where its registers are and what they say it can do.

    kind is VTD or VIRTIO. base is the guest-physical address of its registers. A number
    that is not known is 0. Of a virtio-iommu, capability holds the feature bits it offers and
    config its config space when the recording began; no other unit has one. virtual_commands is
    the offset of VCCAP, where a VT-d unit has virtual commands (ECAP.VCS). updates says how one
    fares when it has to set an A or D bit (harness.model.config.Updates); empty: it is done.
    """

    kind: str = VTD
    base: int = 0xFED9_0000
    version: int = 0
    capability: int = 0
    extended_capability: int = 0
    host_address_width: int = 0
    config: bytes = b""
    virtual_commands: int = 0
    updates: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """Describe a recording.

    dialect names whose reading of the specification the unit follows ("qemu-10.0", "spec"), and
    switches holds what it does otherwise, by the members of the dialect that are true or false,
    or masks.
    memory lists the machine's RAM as (start, length), ascending and apart; empty means that all
    of memory can be read. source is free: tool, tool_version, qemu, kernel, command... as
    strings, numbers, lists and maps. created is an ISO 8601 time, or empty.
    """

    version: int = VERSION
    dialect: str = "spec"
    units: tuple[UnitInfo, ...] = (UnitInfo(),)
    memory: tuple[tuple[int, int], ...] = ()
    source: dict[str, Any] = field(default_factory=dict, hash=False)
    created: str = ""
    switches: dict[str, int] = field(default_factory=dict, hash=False)

    def to_map(self) -> dict[str, Any]:
        """Return the header as a map of plain values, ready for msgpack or JSON.

        Equal headers give equal maps, down to the order of their members.
        Errors: DecodeError when a reader would refuse it.
        """
        plain: dict[str, Any] = {
            "version": self.version,
            "dialect": self.dialect,
            "units": [_plain_unit(unit) for unit in self.units],
            "memory": [list(piece) for piece in self.memory],
            "source": _sorted(self.source),
            "created": self.created,
        }
        if self.switches:
            plain[_SWITCHES] = _sorted(self.switches)
        Header.from_map(plain)
        return plain

    @classmethod
    def from_map(cls, plain: object, path: str = "trace.header") -> Header:
        """Check a map of plain values and return the header it describes.

        Errors: DecodeError, whose path begins with path.
        """
        members = _members(plain, _with(plain, _HEADER_NAMES, (_SWITCHES,)), path)
        version = _number(members["version"], U64, f"{path}.version")
        if version != VERSION:
            raise DecodeError(f"{path}.version", f"{version} is not known, only {VERSION} is")
        return cls(
            version,
            _name(members["dialect"], f"{path}.dialect"),
            _each(members["units"], UNITS_LIMIT, f"{path}.units", _unit),
            _memory(members["memory"], f"{path}.memory"),
            _source(members["source"], f"{path}.source"),
            _created(members["created"], f"{path}.created"),
            _switches(members.get(_SWITCHES, {}), f"{path}.{_SWITCHES}"),
        )

    def to_msgpack(self) -> bytes:
        """Return the stored form.

        Errors: DecodeError when a reader would refuse it.
        """
        stored = Packer().pack(self.to_map())
        if len(stored) > HEADER_LIMIT:
            raise DecodeError("trace.header", f"{len(stored)} bytes, the limit is {HEADER_LIMIT}")
        return stored

    @classmethod
    def from_msgpack(cls, stored: bytes, path: str = "trace.header") -> Header:
        """Return the header in its stored form.

        Errors: DecodeError.
        """
        try:
            plain = unpack_map(stored, members=MEMBERS_LIMIT, containers=CONTAINERS_LIMIT)
        except ValueError as error:  # includes bad UTF-8 and too deep nesting
            problem = f"is not a msgpack map ({str(error) or type(error).__name__})"
            raise DecodeError(path, problem) from error
        return cls.from_map(plain, path)

    def to_json(self) -> str:
        """Return the header as one line of JSON with sorted keys.

        Errors: DecodeError when a reader would refuse it.
        """
        self.to_msgpack()  # for its limit
        text = json.dumps(self.to_map(), sort_keys=True)
        if len(text) > JSON_LIMIT:
            raise DecodeError("text.header", f"{len(text)} bytes, the limit is {JSON_LIMIT}")
        return text

    @classmethod
    def from_json(cls, text: str, path: str = "text.header") -> Header:
        """Return the header written as JSON.

        Errors: DecodeError.
        """
        _check_json(text, path)
        try:
            plain = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise DecodeError(path, f"is not JSON ({error})") from error
        except RecursionError as error:
            raise DecodeError(path, "lists and maps are nested too deep") from error
        header = cls.from_map(plain, path)
        header.to_msgpack()  # for its limit
        return header


_HEADER_NAMES = ("version", "dialect", "units", "memory", "source", "created")
_UNIT_NAMES = (
    "kind",
    "base",
    "version",
    "capability",
    "extended_capability",
    "host_address_width",
)
# Members only where there is something:
_CONFIG = "config"
_VIRTUAL_COMMANDS = "virtual_commands"
_UPDATES = "updates"
_SWITCHES = "switches"


def _plain_unit(unit: UnitInfo) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(unit, name) for name in _UNIT_NAMES}
    if unit.config:
        plain[_CONFIG] = unit.config.hex()
    if unit.virtual_commands:
        plain[_VIRTUAL_COMMANDS] = unit.virtual_commands
    if unit.updates:
        plain[_UPDATES] = unit.updates
    return plain


def _check_json(text: str, path: str) -> None:
    """Refuse JSON that would take much more memory than room, before it is read."""
    if len(text) > JSON_LIMIT:
        raise DecodeError(path, f"has {len(text)} characters, the limit is {JSON_LIMIT}")
    containers = values = 0
    for token in _JSON_TOKEN.finditer(text):
        containers += token[0] in ("[", "{")
        values += token[0] == ","
        if containers > CONTAINERS_LIMIT or values > VALUES_LIMIT:
            raise DecodeError(path, f"has more than {CONTAINERS_LIMIT} lists and maps, or values")


def _sorted(value: object, depth: int = 0) -> object:
    # Too deep, or with names that cannot be compared, it is refused a moment later.
    if isinstance(value, dict) and depth <= DEPTH_LIMIT:
        names = sorted(value, key=str)
        return {name: _sorted(value[name], depth + 1) for name in names}
    if isinstance(value, list) and depth <= DEPTH_LIMIT:
        return [_sorted(member, depth + 1) for member in value]
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _members(plain: object, names: Sequence[str], path: str) -> Mapping[str, Any]:
    if not isinstance(plain, dict):
        raise DecodeError(path, "is not a map")
    for name in names:
        if name not in plain:
            raise DecodeError(f"{path}.{name}", "is missing")
    for name in plain:
        if name not in names:
            raise DecodeError(path, f"has a member {name!r:.60} that is not known")
    return plain


def _with(plain: object, names: Sequence[str], optional: Sequence[str]) -> Sequence[str]:
    """Return names with those of the optional ones that are there."""
    given = plain if isinstance(plain, dict) else {}
    return (*names, *(name for name in optional if name in given))


def _number(value: object, limit: int, path: str) -> int:
    if type(value) is not int:
        raise DecodeError(path, f"is {value!r:.40}, not a number")
    if not 0 <= value <= limit:
        raise DecodeError(path, f"{value:#x} is not within 0..{limit:#x}")
    return value


def _name(value: object, path: str) -> str:
    if type(value) is not str or not NAME.fullmatch(value):
        raise DecodeError(path, f"{value!r:.80} is not a name (letters, digits, . _ + -)")
    return value


def _each(value: object, limit: int, path: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise DecodeError(path, "is not a list")
    if len(value) > limit:
        raise DecodeError(path, f"has {len(value)} members, the limit is {limit}")
    return tuple(read(member, f"{path}[{index}]") for index, member in enumerate(value))


def _unit(value: object, path: str) -> UnitInfo:
    names = _with(value, _UNIT_NAMES, (_CONFIG, _VIRTUAL_COMMANDS, _UPDATES))
    members = _members(value, names, path)
    vccap = members.get(_VIRTUAL_COMMANDS)
    if vccap is not None and (type(vccap) is not int or vccap not in VIRTUAL_COMMANDS):
        places = " nor ".join(f"{place:#x}" for place in VIRTUAL_COMMANDS)
        raise DecodeError(f"{path}.{_VIRTUAL_COMMANDS}", f"{vccap!r:.40} is neither {places}")
    return UnitInfo(
        _name(members["kind"], f"{path}.kind"),
        _number(members["base"], U64, f"{path}.base"),
        _number(members["version"], U32, f"{path}.version"),
        _number(members["capability"], U64, f"{path}.capability"),
        _number(members["extended_capability"], U64, f"{path}.extended_capability"),
        _number(members["host_address_width"], 64, f"{path}.host_address_width"),
        _octets(members[_CONFIG], f"{path}.{_CONFIG}") if _CONFIG in members else b"",
        vccap or 0,
        _name(members[_UPDATES], f"{path}.{_UPDATES}") if _UPDATES in members else "",
    )


def _octets(value: object, path: str) -> bytes:
    if type(value) is not str or not OCTETS.fullmatch(value):
        raise DecodeError(path, f"is not 1 to {CONFIG_LIMIT} bytes in hexadecimal")
    return bytes.fromhex(value)


def _memory(value: object, path: str) -> tuple[tuple[int, int], ...]:
    pieces = _each(value, RANGES_LIMIT, path, _range)
    end = 0
    for index, (start, length) in enumerate(pieces):
        if start < end:
            raise DecodeError(f"{path}[{index}]", f"{start:#x} is not behind the range before it")
        end = start + length
    return pieces


def _range(value: object, path: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise DecodeError(path, "is not a list of start and length")
    start = _number(value[0], U64, f"{path}.start")
    length = _number(value[1], U64, f"{path}.length")
    if not length or start + length > 1 << 64:
        raise DecodeError(f"{path}.length", f"{length:#x} bytes at {start:#x} are no range")
    return start, length


def _source(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(path, "is not a map")
    _check_free(value, path, DEPTH_LIMIT)
    if _containers(value) > SOURCE_LIMIT:
        raise DecodeError(path, f"has more than {SOURCE_LIMIT} lists and maps")
    return value


def _containers(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_containers, value.values()))
    return 1 + sum(map(_containers, value)) if isinstance(value, list) else 0


def _check_free(value: object, path: str, depth: int) -> None:
    """Refuse what msgpack and JSON do not both hold without loss."""
    if value is None or type(value) is bool:
        return
    if type(value) is int:
        if not -(1 << 63) <= value <= U64:
            raise DecodeError(path, "is a number of more than 64 bits")
    elif type(value) is float:
        if not math.isfinite(value):
            raise DecodeError(path, f"{value} is not a number")
    elif type(value) is str:
        _check_text(value, path)
    elif type(value) in (list, dict):
        _check_members(value, path, depth)
    else:
        raise DecodeError(path, f"is of type {type(value).__name__}")


def _check_members(value: Any, path: str, depth: int) -> None:
    if not depth:
        raise DecodeError(path, f"is nested deeper than {DEPTH_LIMIT}")
    if len(value) > MEMBERS_LIMIT:
        raise DecodeError(path, f"has {len(value)} members, the limit is {MEMBERS_LIMIT}")
    if isinstance(value, list):
        for index, member in enumerate(value):
            _check_free(member, f"{path}[{index}]", depth - 1)
        return
    for name, member in value.items():
        if type(name) is not str:
            raise DecodeError(path, f"has a member {name!r:.60} whose name is not text")
        _check_text(name, path)
        # Names come from outside, and the path is shown on a terminal.
        shown = f".{name}" if NAME.fullmatch(name) else f"[{name!r:.60}]"
        _check_free(member, path + shown, depth - 1)


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can spell
        raise DecodeError(path, f"is not text: {error.reason}") from error


def _switches(value: object, path: str) -> dict[str, int]:
    if not isinstance(value, dict):
        raise DecodeError(path, "is not a map")
    if len(value) > SWITCHES_LIMIT:
        raise DecodeError(path, f"has {len(value)} members, the limit is {SWITCHES_LIMIT}")
    for name, on in value.items():
        _name(name, path)
        if type(on) is not bool and type(on) is not int:
            raise DecodeError(f"{path}.{name}", f"is {on!r:.40}, not true or false, nor a mask")
        _number(int(on), U64, f"{path}.{name}")
    return value


def _created(value: object, path: str) -> str:
    if type(value) is not str or len(value) > 64:
        raise DecodeError(path, f"{value!r:.80} is not an ISO 8601 time")
    if value:
        try:
            datetime.fromisoformat(value)
        except ValueError as error:
            raise DecodeError(path, f"{value!r} is not an ISO 8601 time") from error
    return value
