"""Tests of requests, properties and config space against bytes written by struct."""

from __future__ import annotations

import struct

import pytest

from decoders.bytewise import build, encode, packed
from decoders.errors import DecodeError
from decoders.virtio_iommu.config import (
    BYPASS_OFFSET,
    bypasses,
    decode_config,
    describe,
    encode_config,
    written_bypass,
)
from decoders.virtio_iommu.constants import Feature, RequestType
from decoders.virtio_iommu.properties import encode_properties, read_properties, resv_mem
from decoders.virtio_iommu.requests import (
    READABLE_SIZE,
    REQUESTS,
    decode_request,
    encode_request,
    field_of,
    status_of,
)
from decoders.virtio_iommu.structures import Config, FaultReport, Map, Probe, RequestTail

BYTES = {
    RequestType.ATTACH: struct.pack("<B3sIII4s", 1, b"abc", 7, 0x108, 1, b"wxyz"),
    RequestType.DETACH: struct.pack("<B3sII8s", 2, b"abc", 7, 0x108, b"ABCDEFGH"),
    RequestType.MAP: struct.pack("<B3xIQQQI", 3, 7, 0x1000, 0x2FFF, 0x7F00_0000_0000_1000, 5),
    RequestType.UNMAP: struct.pack("<B3xIQQ4x", 4, 7, 0x1000, 0xFFFF_FFFF_FFFF_FFFF),
    RequestType.PROBE: struct.pack("<B3xI64s", 5, 0x108, bytes(range(64))),
}
FIELDS: dict[RequestType, dict[str, int | bytes]] = {
    RequestType.ATTACH: {"domain": 7, "endpoint": 0x108, "flags": 1, "reserved": b"wxyz"},
    RequestType.DETACH: {"domain": 7, "endpoint": 0x108, "reserved_head": b"abc"},
    RequestType.MAP: {"virt_end": 0x2FFF, "phys_start": 0x7F00_0000_0000_1000, "flags": 5},
    RequestType.UNMAP: {"domain": 7, "virt_start": 0x1000, "virt_end": (1 << 64) - 1},
    RequestType.PROBE: {"endpoint": 0x108, "reserved": bytes(range(64))},
}


@pytest.mark.parametrize("kind", RequestType)
def test_a_request_is_read_and_written(kind: RequestType) -> None:
    request = decode_request(BYTES[kind], "request")
    assert {name: request.getfieldval(name) for name in FIELDS[kind]} == FIELDS[kind]
    assert encode_request(request) == BYTES[kind]
    assert len(BYTES[kind]) == READABLE_SIZE[kind]


@pytest.mark.parametrize("kind", RequestType)
def test_a_field_by_its_name(kind: RequestType) -> None:
    for name, value in FIELDS[kind].items():
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else value
        assert field_of(BYTES[kind], name) == number, name
    assert field_of(BYTES[kind] + b"behind", "type") == kind
    assert field_of(BYTES[kind], "nowhere") is None


def test_a_field_that_is_not_there() -> None:
    attach = BYTES[RequestType.ATTACH]
    assert [field_of(attach[:size], "endpoint") for size in (0, 1, 11)] == [None] * 3
    assert field_of(attach[:12], "endpoint") == 0x108
    assert field_of(b"\x09" + attach[1:], "endpoint") is None
    assert field_of(BYTES[RequestType.MAP], "endpoint") is None


@pytest.mark.parametrize(
    ("answer", "status"),
    [(None, None), (b"", None), (b"\4\0\0", None), (b"\4\0\0\0", 4), (b"\1\2\7\0\0\0", 7)],
)
def test_the_status_is_in_the_tail(answer: bytes | None, status: int | None) -> None:
    assert status_of(answer) == status


@pytest.mark.parametrize("kind", RequestType)
def test_the_fast_form_says_the_same(kind: RequestType) -> None:
    fast = packed(REQUESTS[kind])
    values = fast.unpack(b"before" + BYTES[kind] + b"behind", len("before"))
    slow = decode_request(BYTES[kind], "request")
    assert dict(zip(fast.names, values, strict=True)) == slow.fields
    assert fast.pack(*values) == BYTES[kind]
    assert fast.size == len(BYTES[kind])
    for name in FIELDS[kind]:
        changed = bytearray(BYTES[kind])
        changed[fast.offset(name)] ^= 0xFF
        other = decode_request(bytes(changed), "request")
        differing = {n for n in fast.names if other.getfieldval(n) != slow.getfieldval(n)}
        assert differing == {name}, f"{name} is not at {fast.offset(name)}"


@pytest.mark.parametrize("kind", RequestType)
def test_each_short_request_names_the_field_that_is_cut(kind: RequestType) -> None:
    whole = BYTES[kind]
    fast = packed(REQUESTS[kind])
    for size in range(len(whole)):
        with pytest.raises(DecodeError, match="the data ends here, at offset 0x40") as caught:
            decode_request(whole[:size], "queue[3]", 0x40)
        cut = max((n for n in fast.names if fast.offset(n) <= size), key=fast.offset)
        assert caught.value.path == f"queue[3].{cut}", size


def test_unknown_types_and_what_follows_a_request() -> None:
    for kind in (0, 6, 255):
        with pytest.raises(DecodeError, match=rf"r.type: type {kind} is not defined, at .* 0x8"):
            decode_request(bytes([kind]) + bytes(71), "r", 8)
    with pytest.raises(DecodeError, match=r"r: Map takes 36 bytes, 2 more follow, at offset 0x24"):
        decode_request(BYTES[RequestType.MAP] + b"ab", "r")


def test_tail_and_fault_report() -> None:
    assert encode(build(RequestTail, status=6)) == b"\6\0\0\0"
    report = build(FaultReport, reason=2, flags=0x102, endpoint=8, address=0xFFFF_F000)
    assert encode(report) == struct.pack("<B3xII4xQ", 2, 0x102, 8, 0xFFFF_F000)


def test_packed_refuses_what_does_not_fit() -> None:
    with pytest.raises(struct.error):
        packed(Map).unpack(bytes(packed(Map).size - 1))
    with pytest.raises(struct.error):
        packed(Probe).pack(256, b"", 0, b"")
    with pytest.raises(KeyError):
        packed(Map).offset("endpoint")


# --- properties ----------------------------------------------------------------------------------

MSI = struct.pack("<HHB3xQQ", 1, 20, 1, 0xFEE0_0000, 0xFEEF_FFFF)


def test_properties_up_to_the_end() -> None:
    data = encode_properties([resv_mem(0xFEE0_0000, 0xFEEF_FFFF, 1), resv_mem(0, 0xFFF)], 512)
    assert data[:24] == MSI
    assert len(data) == 512
    first, second = read_properties(data, "probe")
    assert first.region is not None
    assert second.region is not None
    assert (first.region.subtype, first.region.start) == (1, 0xFEE0_0000)
    assert (second.offset, second.region.subtype, second.region.end) == (24, 0, 0xFFF)
    assert len(list(read_properties(MSI, "probe"))) == 1, "a payload may be full"
    assert list(read_properties(bytes(3), "probe")) == []


def test_properties_that_a_driver_passes_over() -> None:
    strange = struct.pack("<HH5s", 0x1001, 5, b"12345") + struct.pack("<HH", 0xFFF, 0)
    ended = strange + struct.pack("<HH", 0x3000, 0) + MSI + bytes(4) + b"not read"
    first, second, third, last = read_properties(ended, "probe")
    assert (first.type, first.reserved, first.data, first.region) == (1, 0x1000, b"12345", None)
    assert (second.type, second.data, second.region) == (0xFFF, b"", None)
    assert (third.type, third.reserved) == (0, 0x3000)
    assert last.region is not None


def test_a_property_may_be_longer_than_what_is_known_of_it() -> None:
    longer = struct.pack("<HHB3xQQ4s", 1, 24, 1, 0x1000, 0x1FFF, b"more") + MSI
    first, second = read_properties(longer, "probe")
    assert first.region is not None and first.region.end == 0x1FFF
    assert first.data[20:] == b"more"
    assert second.offset == 28 and second.region is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MSI[:20], r"property\[0\].length: 20 bytes, 16 are left, at offset 0x102"),
        (MSI + MSI[:3], r"property\[1\]: the payload ends within its head, at offset 0x118"),
        (b"\1\0\0\0", r"property\[0\].length: 0 bytes, RESV_MEM takes 20, at offset 0x102"),
        (b"\1\0\x13\0" + bytes(24), r"property\[0\].length: 19 bytes, RESV_MEM takes 20"),
        (MSI + b"\7\0\xff\xff", r"property\[1\].length: 65535 bytes, 0 are left, at offset 0x11a"),
    ],
)
def test_properties_that_do_not_fit(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        list(read_properties(data, "probe", 0x100))


def test_regions_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match=r"take 24 bytes, probe_size is 23"):
        encode_properties([resv_mem(0, 1)], 23)
    with pytest.raises(ValueError, match="ends at 0x0, below its start 0x1"):
        resv_mem(1, 0)


# --- config space --------------------------------------------------------------------------------


def test_config_space() -> None:
    data = struct.pack("<QQQIIIB3s", 0xFFFF_F000, 1, (1 << 39) - 1, 2, 9, 512, 1, b"abc")
    config = decode_config(data)
    assert encode_config(config) == data
    assert data[BYPASS_OFFSET] == config.bypass == 1
    everything = Feature(0x7F)
    assert list(describe(config, everything)) == [
        "granule 0x1000",
        "addresses 0x1 to 0x7fffffffff",
        "domains 0x2 to 0x9",
        "512 bytes of properties",
        "endpoints without a domain bypass",
    ]
    assert list(describe(config, 0)) == [
        "granule 0x1000",
        "addresses 0x0 to 0xffffffffffffffff",
        "domains 0x0 to 0xffffffff",
    ]
    refused = build(Config, bypass=0xFE)
    assert "endpoints without a domain are refused" in describe(refused, Feature.BYPASS_CONFIG)
    older = "endpoints without a domain bypass once the driver accepts BYPASS"
    assert older in describe(build(Config), Feature.BYPASS)
    assert older in describe(build(Config), Feature.BYPASS | Feature.BYPASS_CONFIG)
    for accepted, meaning in ((Feature.BYPASS, "bypass"), (Feature.MAP_UNMAP, "are refused")):
        words = describe(build(Config), Feature.BYPASS | Feature.MAP_UNMAP, accepted)
        assert f"endpoints without a domain {meaning}" in words
    assert "no page size, which no driver can use" in describe(build(Config), 0)
    with pytest.raises(DecodeError, match=r"config.reserved: the data ends here"):
        decode_config(data[:-1])


BOTH = Feature.BYPASS | Feature.BYPASS_CONFIG


@pytest.mark.parametrize(
    ("bypass", "offered", "accepted", "expected"),
    [
        (0, 0, 0, False),
        (1, 0, 0, False),
        (1, Feature.BYPASS_CONFIG, 0, True),
        (1, Feature.BYPASS_CONFIG, Feature.MAP_UNMAP, True),
        (0, Feature.BYPASS_CONFIG, Feature.BYPASS_CONFIG, False),
        (0xFE, Feature.BYPASS_CONFIG, 0, False),
        (1, Feature.BYPASS, 0, False),
        (0, Feature.BYPASS, Feature.BYPASS, True),
        (0, BOTH, Feature.BYPASS, True),
        (1, BOTH, Feature.BYPASS_CONFIG, True),
        (0, BOTH, Feature.BYPASS_CONFIG, False),
    ],
)
def test_either_feature_lets_endpoints_bypass(
    bypass: int, offered: int, accepted: int, expected: bool
) -> None:
    assert bypasses(bypass, offered, accepted) is expected


@pytest.mark.parametrize(
    ("offset", "size", "value", "bypass"),
    [
        (36, 1, 1, 1),
        (36, 4, 0xABCD_EF02, 2),
        (33, 4, 0x0312_3456, 3),
        (32, 8, 0x0102_0304_0506_0708, 4),
        (32, 4, 0xFFFF_FFFF, None),
        (37, 1, 1, None),
    ],
)
def test_what_a_write_makes_of_bypass(
    offset: int, size: int, value: int, bypass: int | None
) -> None:
    assert written_bypass(offset, size, value) == bypass
