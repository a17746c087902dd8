"""Tests of the stored form of single events."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings

from decoders.errors import DecodeError
from decoders.events import (
    TAGS,
    Access,
    AccessKind,
    Attribute,
    ConfigSpace,
    Endpoint,
    Event,
    Gap,
    RegWrite,
    Request,
    Snapshot,
    Store,
)
from harness.trace.checks import (
    ANSWER_LIMIT,
    CONFIG_LIMIT,
    REASON_LIMIT,
    REGIONS_LIMIT,
    REQUEST_LIMIT,
)
from harness.trace.codec import Encoder, FieldError, decode, from_fields, to_fields
from tests.harness.trace.strategies import BY_KIND, events
from tests.writers.trace import raw_events


def test_every_kind_is_tried() -> None:
    assert set(BY_KIND) == set(TAGS.values())


@pytest.mark.parametrize("kind", TAGS.values(), ids=lambda kind: kind.__name__)
def test_round_trip(kind: type[Event]) -> None:
    @settings(deadline=None)
    @given(BY_KIND[kind])
    def check(event: Event) -> None:
        raw = Encoder().encode(event)
        assert list(decode(raw, "block", 0)) == [event]
        assert type(next(decode(raw, "block", 0))) is kind

    check()


@settings(deadline=None)
@given(events)
def test_stored_as_tag_and_fields_in_order(event: Event) -> None:
    tag, *fields = msgpack.unpackb(Encoder().encode(event))
    assert TAGS[tag] is type(event)
    optional = isinstance(event, Access) and not event.attributes
    assert len(fields) == len(type(event).__dataclass_fields__) - optional


def test_snapshot_is_cut_and_filled() -> None:
    event = from_fields([4, 0x1000, 5, 1, b"\x07"])
    assert isinstance(event, Snapshot)
    assert event.data == b"\x07" + bytes(4095)
    assert to_fields(event)[4] == b"\x07"


def test_enums_come_back_as_enums() -> None:
    event = from_fields([7, 1, None, 0, 2, None])
    assert getattr(event, "kind") is AccessKind.WRITE  # noqa: B009


def test_attributes_are_stored_only_where_there_are_any() -> None:
    plain = [7, 1, None, 0, 2, None]
    event = from_fields([*plain, 0])
    assert event == from_fields(plain)
    assert to_fields(event) == plain
    marked = from_fields([*plain, 5])
    assert isinstance(marked, Access)
    assert marked.attributes == Attribute.PRIVILEGED | Attribute.TRANSLATED
    assert to_fields(marked) == [*plain, 5]


BAD: list[tuple[Any, str, str]] = [
    (7, "", "not an array with a tag"),
    ([], "", "not an array with a tag"),
    ([0], "tag", "0 is not known"),
    ([14, b"", 3, bytes(4)], "answer", "room for 3"),
    ([14, bytes(4097), 4, None], "data", "4097 bytes"),
    ([14, "", 4, None], "data", "not bytes"),
    ([15, 256, 0, 0, 0], "reason", "not within"),
    ([15, 0, 0, 1 << 32, 0], "endpoint", "not within"),
    ([16, 1 << 64, 0], "offered", "not within"),
    ([17, bytes(4097)], "data", "4097 bytes"),
    ([18, 0], "", "has 0 fields"),
    ([19, 0, [[0, 1, 0]]], "regions[0].end", "before the start"),
    ([19, 0, [[0, 1]]], "regions[0]", "2 members"),
    ([19, 0, [[0, 0, 0]] * 65], "regions", "65 members"),
    ([20, 1 << 16, 0, 0, None], "sid", "not within"),
    ([20, None, 0, 1 << 32, None], "data", "not within"),
    ([20, None, 0, 0, 256], "outcome.reason", "not within"),
    ([20, None, 0, 0, [0]], "outcome", "1 members"),
    ([20, None, 0, 0, [0, 1 << 32]], "outcome.data", "not within"),
    ([20, None, 0, 0, [32, 0, 0]], "outcome.descriptor", "not one of 64 bytes"),
    ([20, None, 0, 0, [0, 256, 0]], "outcome.vector", "not within"),
    ([20, None, 0, 0, [0, 0, 2]], "outcome.urgent", "not within"),
    ([21, 1 << 16, None, 0, 0, 0], "sid", "not within"),
    ([21, 0, 1 << 20, 0, 0, 0], "pasid", "not within"),
    ([21, 0, None, 1, 0, 0], "address", "not the start of a page"),
    ([21, 0, None, 0, 32, 0], "flags", "not within"),
    ([21, 0, None, 0, 0, 512], "group", "not within"),
    ([22, 16, [0] * 4], "address", "not one of 32 bytes"),
    ([22, 0, [0] * 3], "words", "3 words, not 4"),
    ([22, 0, 0], "words", "type int, not an array"),
    ([22, 0, [0, 0, 0, 1 << 64]], "words[3]", "not within"),
    ([23, 0, None, 512, 0], "group", "not within"),
    ([23, 0, None, 0, 16], "code", "not within"),
    ([24, 0, None, 0, 0x7FF, 0], "mask", "not the size of pages"),
    ([24, 0, None, 0, 0x2FFF, 0], "mask", "not the size of pages"),
    ([24, 0, None, 0x1000, 0x1FFF, 0], "address", "not one of 0x2000 bytes"),
    ([24, 0, None, 0, 0xFFF, 2], "every_pasid", "not within"),
    ([24, 0, 5, 0, 0xFFF, 1], "pasid", "0x5 is given, and every one"),
    ([99], "tag", "99 is not known"),
    ([True, 0, 4, 0], "tag", "True is not known"),
    (["x"], "tag", "'x' is not known"),
    ([1, 0, 4], "", "RegWrite has 3 fields, the array holds 2"),
    ([1, 0, 4, 0, 0], "", "the array holds 4"),
    ([11, 0], "", "Reset has 0 fields"),
    ([1, -1, 4, 0], "offset", "-0x1 is not within"),
    ([1, 1 << 32, 4, 0], "offset", "not within 0..0xffffffff"),
    ([1, 0, 3, 0], "size", "3 is not 1, 2, 4 or 8"),
    ([1, 0, 4, 1 << 32], "value", "does not fit into 4 bytes"),
    ([1, 0, 4, None], "value", "absent, not a number"),
    ([1, 0, 4, 1.0], "value", "type float, not a number"),
    ([1, 0, 4, True], "value", "type bool, not a number"),
    ([2, 0, 5, None], "size", "5 is not"),
    ([3, 0xFFD, 4, 0], "size", "cross a page"),
    ([4, 0x10, 0, 0, b""], "address", "not the start of a page"),
    ([4, 0, 9, 0, b""], "role", "9 is not known"),
    ([4, 0, 0, 8, b""], "level", "not within 0..0x7"),
    ([4, 0, 0, 0, ""], "data", "type str, not bytes"),
    ([4, 0, 0, 0, bytes(4097)], "data", "4097 bytes"),
    ([5, 1], "address", "not the start of a page"),
    ([6, [0]], "words", "1 words, not 2 or 4"),
    ([6, [0, "x"]], "words[1]", "type str"),
    ([6, 0], "words", "type int, not an array"),
    ([7, 1 << 32, None, 0, 0, None], "sid", "not within"),
    ([7, 0, 1 << 20, 0, 0, None], "pasid", "not within"),
    ([7, 0, None, 0, 4, None], "kind", "4 is not known"),
    ([7, 0, None, 0, 0, 256], "outcome.reason", "not within"),
    ([7, 0, None, 0, 0, [1]], "outcome", "1 members"),
    ([7, 0, None, 0, 0, [1, "x"]], "outcome.mask", "type str"),
    ([7, 0, None, 0, 0, None, 6], "attributes", "6 is not known"),
    ([7, 0, None, 0, 0, None, 8], "attributes", "8 is not known"),
    ([7, 0, None, 0, 0, None, None], "attributes", "not known"),
    ([7, 0, None, 0, 0, None, 1, 1], "", "Access has 5 fields, the array holds 7"),
    ([7, 0, None, 0, 0], "", "Access has 5 fields, the array holds 4"),
    ([9, 0, 1 << 32], "value", "not within"),
    ([10, 0, 1 << 32], "data", "not within"),
    ([13, b"x"], "reason", "type bytes, not text"),
    ([13, "é" * 2049], "reason", "4098 bytes"),
    ([13, "\ud800"], "reason", "not text"),
]


@pytest.mark.parametrize(("array", "field", "problem"), BAD, ids=str)
def test_refused(array: Any, field: str, problem: str) -> None:
    with pytest.raises(FieldError) as caught:
        from_fields(array)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_writer_refuses_what_a_reader_would() -> None:
    for event in (RegWrite(0, 4, 1 << 32), Store(0xFFF, 2, 0), RegWrite(-1, 4, 0)):
        with pytest.raises(FieldError):
            Encoder().encode(event)


def test_path_names_block_event_and_field() -> None:
    raw = raw_events([[11], [1, 0, 3, 0]])
    decoded = decode(raw, "trace.block[3]", 16, 0x99)
    assert len([next(decoded)]) == 1
    with pytest.raises(DecodeError) as caught:
        next(decoded)
    assert caught.value.path == "trace.block[3].event[17].size"
    assert caught.value.offset == 0x99


@pytest.mark.parametrize(
    "tail",
    [
        b"\xc1",  # never used by msgpack
        b"\x93\x01",  # cut short
        b"\xdd\xff\xff\xff\xff",  # 2^32 - 1 members
        b"\x9f" + b"\0" * 14,  # a member too few
        b"\x92\x0d\xdb\xff\xff\xff\xff",  # 4 GiB of text
        b"\x92\x0d\xa1\xff",  # not UTF-8
        b"\x95\x04\0\0\0\xc6\xff\xff\xff\xff",  # 4 GiB of page
        b"\x91" * 2000,  # nested
        b"\x81\x01\x02",  # a map
        b"\xd4\x05\x01",  # an extension
    ],
    ids=bytes.hex,
)
def test_damaged_content_after_good_events(tail: bytes) -> None:
    decoded = decode(raw_events([[11], [12, 5]]) + tail, "block", 0)
    assert len([next(decoded), next(decoded)]) == 2
    with pytest.raises(DecodeError, match=r"block\.event\[2\]"):
        next(decoded)


@pytest.mark.parametrize(
    ("inside", "limit"),
    [
        (b"\x81\x01\x02", "max_map_len"),
        (b"\xd4\x05\x01", "max_ext_len"),
        (b"\xdc\x00\x41" + b"\0" * 65, "max_array_len"),
        (b"\xc6\x00\x01\x00\x01" + bytes((1 << 16) + 1), "max_bin_len"),
        (b"\xda\x10\x01" + b"x" * 4097, "max_str_len"),
    ],
    ids=["map", "extension", "array", "data", "text"],
)
def test_bounds_are_kept_while_unpacking(inside: bytes, limit: str) -> None:
    """Refuse before the value is made: from_fields would, but only when it exists."""
    with pytest.raises(DecodeError, match=limit):
        next(decode(b"\x92\x0d" + inside, "block", 0))


@pytest.mark.parametrize(
    "event",
    [
        Request(bytes(REQUEST_LIMIT), ANSWER_LIMIT, bytes(ANSWER_LIMIT)),
        Endpoint(1, tuple((0, first, first) for first in range(REGIONS_LIMIT))),
        ConfigSpace(bytes(CONFIG_LIMIT)),
        Gap("x" * REASON_LIMIT),
    ],
    ids=lambda event: type(event).__name__,
)
def test_the_longest_of_each_kind_come_back(event: Event) -> None:
    assert list(decode(Encoder().encode(event), "block", 0)) == [event]
