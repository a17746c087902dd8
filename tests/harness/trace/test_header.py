"""Tests of the header in both forms."""

from __future__ import annotations

import copy
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings

from decoders.errors import DecodeError
from harness.trace import Header, UnitInfo
from harness.trace.header import HEADER_LIMIT, RANGES_LIMIT, UNITS_LIMIT
from tests.harness.trace.strategies import headers
from tests.writers.trace import PLAIN_HEADER


@settings(deadline=None)
@given(headers)
def test_round_trip(header: Header) -> None:
    assert Header.from_msgpack(header.to_msgpack()) == header
    assert Header.from_json(header.to_json()) == header
    assert "\n" not in header.to_json()


@settings(deadline=None)
@given(headers)
def test_equal_headers_are_stored_alike(header: Header) -> None:
    assert Header.from_json(header.to_json()).to_msgpack() == header.to_msgpack()


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


BAD: list[tuple[tuple[Any, ...], Any, str]] = [
    (("version",), 2, "version"),
    (("version",), None, "version"),
    (("dialect",), "a b", "dialect"),
    (("dialect",), "", "dialect"),
    (("units",), {}, "units"),
    (("units",), [PLAIN_HEADER["units"][0]] * 65, "units"),
    (("units", 0, "base"), -1, "units[0].base"),
    (("units", 0, "capability"), 1 << 64, "units[0].capability"),
    (("units", 0, "capability"), True, "units[0].capability"),
    (("units", 0, "host_address_width"), 65, "units[0].host_address_width"),
    (("units", 0, "kind"), 1, "units[0].kind"),
    (("units", 0, "virtual_commands"), 0xE10, "units[0].virtual_commands"),
    (("units", 0, "virtual_commands"), True, "units[0].virtual_commands"),
    (("units", 0, "updates"), 1, "units[0].updates"),
    (("units", 0, "updates"), "a b", "units[0].updates"),
    (("switches",), [], "switches"),
    (("switches",), {"x": 1 << 64}, "switches.x"),
    (("switches",), {"x": 0.5}, "switches.x"),
    (("switches",), {"a b": True}, "switches"),
    (("switches",), {f"x{number}": True for number in range(257)}, "switches"),
    (("memory",), [[0, 1]] * 4097, "memory"),
    (("memory",), [[0, 0]], "memory[0].length"),
    (("memory",), [[1, (1 << 64) - 1], [0, 1]], "memory[1]"),
    (("memory",), [[1, 1 << 63], [2, 1]], "memory[1]"),
    (("memory",), [[5]], "memory[0]"),
    (("source",), [], "source"),
    (("source",), {"x": _nested(9)}, "source.x"),
    (("source",), {"x": [0] * 4097}, "source.x"),
    (("source",), {"x": float("inf")}, "source.x"),
    (("source",), {"x": [[]] * 4096, "y": [[]] * 4096}, "source"),
    (("created",), "yesterday", "created"),
    (("created",), "2" * 65, "created"),
    (("extra",), 1, ""),
]


@pytest.mark.parametrize(("where", "value", "path"), BAD, ids=lambda value: str(value)[:40])
def test_refused(where: tuple[Any, ...], value: Any, path: str) -> None:
    plain = copy.deepcopy(PLAIN_HEADER)
    *outer, last = where
    target: Any = plain
    for step in outer:
        target = target[step]
    target[last] = value
    with pytest.raises(DecodeError) as caught:
        Header.from_map(plain, "h")
    assert caught.value.path.startswith(f"h.{path}" if path else "h")


@pytest.mark.parametrize("name", PLAIN_HEADER)
def test_missing_member(name: str) -> None:
    plain = {key: value for key, value in PLAIN_HEADER.items() if key != name}
    with pytest.raises(DecodeError, match=f"{name}: is missing"):
        Header.from_map(plain)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"version": NaN}', "1" * 5000, '{"source": {"a": "\\ud800"}}'],
    ids=lambda text: text[:20],
)
def test_bad_json(text: str) -> None:
    with pytest.raises(DecodeError):
        Header.from_json(text)


@pytest.mark.parametrize(
    "stored",
    [b"", b"\xc1", b"\x81", b"\x90", b"\x91" * 600, b"\xdd\xff\xff\xff\xff", b"\x80\x80"],
    ids=bytes.hex,
)
def test_bad_msgpack(stored: bytes) -> None:
    with pytest.raises(DecodeError):
        Header.from_msgpack(stored)


def test_too_long_is_refused_when_written() -> None:
    with pytest.raises(DecodeError, match="limit is 1048576"):
        Header(source={"x": "y" * HEADER_LIMIT}).to_msgpack()


def test_brackets_in_text_are_no_lists() -> None:
    header = Header(source={"x": '[{,\\"' * 80_000})
    assert Header.from_json(header.to_json()) == header


def test_most_of_everything_is_taken_in_both_forms() -> None:
    header = Header(
        units=(UnitInfo(),) * UNITS_LIMIT,
        memory=tuple((2 * start, 1) for start in range(RANGES_LIMIT)),
        source={"a": [[]] * 4096, "b": [[]] * 4093},
    )
    assert Header.from_msgpack(header.to_msgpack()) == header
    assert Header.from_json(header.to_json()) == header


def test_too_long_for_json_is_refused_when_written() -> None:
    header = Header(source={"x": "\x01" * 400_000})
    assert Header.from_msgpack(header.to_msgpack()) == header
    with pytest.raises(DecodeError, match="limit is 1048576"):
        header.to_json()


def test_names_from_outside_are_quoted() -> None:
    with pytest.raises(DecodeError) as caught:
        Header.from_map(PLAIN_HEADER | {"source": {"\x1b[31m": b"x"}})
    assert "\x1b" not in str(caught.value)


def test_plain_header_of_the_builders_is_right() -> None:
    assert Header.from_msgpack(msgpack.packb(PLAIN_HEADER)).to_map() == PLAIN_HEADER
