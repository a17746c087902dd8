"""Requests, answers and config spaces in words, sound or not."""

from __future__ import annotations

import pytest

from decoders.events import FaultReport, Request
from decoders.virtio_iommu.constants import MapFlag
from harness.decoded_virtio import (
    config_field,
    decode_config,
    decode_report,
    decode_request,
    flag_names,
    region_text,
)
from tests.writers.virtio_iommu import (
    FEATURES,
    attach,
    config,
    detach,
    map_,
    probe,
    regions,
    tail,
    unmap,
)


@pytest.mark.parametrize(
    ("data", "answer", "words"),
    [
        (attach(1, 0x18, 1), tail(0), "ATTACH domain=0x1 endpoint=00:03.0 BYPASS  OK"),
        (attach(1, 0x18, 6), tail(4), "ATTACH domain=0x1 endpoint=00:03.0 0x6  INVAL"),
        (detach(2, 0x1_0000), tail(6), "DETACH domain=0x2 endpoint=0x10000  NOENT"),
        (map_(1, 0x1000, 0x1FFF, 0x80000, 7), tail(0),
         "MAP domain=0x1 0x1000-0x1fff -> 0x80000 READ|WRITE|MMIO  OK"),
        (map_(1, 0, 0xFFF, 0, 0), tail(0), "MAP domain=0x1 0x0-0xfff -> 0x0 none  OK"),
        (unmap(1, 0, (1 << 64) - 1), tail(5), "UNMAP domain=0x1 0x0-0xffffffffffffffff  RANGE"),
        (unmap(1, 0, 1)[:-1] + b"\1", tail(0), "UNMAP domain=0x1 0x0-0x1 reserved=0x1000000  OK"),
        (detach(1, 0)[:-8], tail(0), "DETACH (12 of 20 bytes)  OK"),
        (detach(1, 8) + b"more", tail(0),
         "DETACH domain=0x1 endpoint=00:01.0 and 4 more bytes  OK"),
        (b"\x2a\0\0\0", b"", "request of unknown type 0x2a (4 bytes)  nothing written"),
        (b"", None, "empty request  not captured"),
        (detach(1, 8), b"\0\0", "DETACH domain=0x1 endpoint=00:01.0  only 2 bytes written"),
        (detach(1, 8), b"\x63\0\0\0", "DETACH domain=0x1 endpoint=00:01.0  status 0x63"),
        (detach(1, 8), b"\0\1\2\3",
         "DETACH domain=0x1 endpoint=00:01.0  OK (reserved bytes 010203)"),
        (probe(8), tail(6, bytes(64)), "PROBE endpoint=00:01.0  NOENT"),
    ],
)  # fmt: skip
def test_requests(data: bytes, answer: bytes | None, words: str) -> None:
    assert decode_request(Request(data, 4, answer)).text() == words


def test_properties_stand_below() -> None:
    payload = regions((0, 0x1000, 0x1FFF))[:24] + b"\5\x10\2\0\xab\xcd" + bytes(34)
    found = decode_request(Request(probe(8), 68, tail(0, payload)))
    assert found.lines == ("reserved 0x1000-0x1fff RESERVED", "property 0x1005 abcd")
    cut = decode_request(Request(probe(8), 68, tail(0, b"\1\0\xff\0")))
    assert len(cut.lines) == 1
    assert cut.lines[0].startswith("damaged: probe.property[0].length")


def test_reports() -> None:
    assert decode_report(FaultReport(1, 0x105, 8, 0)).text() == (
        "DOMAIN the endpoint has no domain  READ|EXEC|ADDRESS"
    )
    assert decode_report(FaultReport(9, 0x200, 8, 0)).text() == "unknown fault reason  0x200"
    assert decode_report(FaultReport(0, 0, 8, 0)).text() == "UNKNOWN not specified  none"


def test_flags_without_a_name_are_kept() -> None:
    assert flag_names(1 << 60 | 0x85, MapFlag) == ["READ", "MMIO", "0x1000000000000080"]


def test_regions_of_unknown_subtype() -> None:
    assert region_text((1, 0, 0xFFF)) == "0x0-0xfff MSI"
    assert region_text((7, 0, 0xFFF)) == "0x0-0xfff subtype 7 (taken for RESERVED)"


def test_fields_of_config_space() -> None:
    names = [config_field(offset) for offset in (0, 3, 32, 36, 37, 40)]
    assert names == [
        "config.page_size_mask", "config.page_size_mask+3", "config.probe_size", "config.bypass",
        "config.reserved", "config+0x28",
    ]  # fmt: skip


def test_config_space_means_what_the_features_say() -> None:
    told = decode_config(config(bypass=0), FEATURES, FEATURES)
    assert "endpoints without a domain are refused" in told.lines
    assert "64 bytes of properties" in told.lines
    plain = decode_config(config(bypass=0), 1, 1)
    assert not any("bypass" in line or "properties" in line for line in plain.lines)


@pytest.mark.parametrize("size", [0, 8, 35])
def test_a_short_config_space_is_damaged(size: int) -> None:
    found = decode_config(config()[:size], FEATURES, FEATURES)
    assert [line[:8] for line in found.lines] == ["damaged:"]
    assert len(found.fields) == {0: 0, 8: 1, 35: 5}[size]
