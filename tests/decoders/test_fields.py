"""Bit-field words: written lowest bit first, stored little endian."""

from __future__ import annotations

import pytest

from decoders.errors import DecodeError
from decoders.fields import (
    Structure,
    build,
    decode,
    doubleword,
    encode,
    quadwords,
    structure_size,
    word_size,
    words,
)


class Pair(Structure):
    fields_desc = quadwords(
        [("a", 4), ("reserved", 4), ("b", 56)],
        [("c", 1), ("ignored", 62), ("d", 1)],
    )


class Half(Structure):
    fields_desc = doubleword(("a", 3), ("b", 29))


class Bytes(Structure):
    fields_desc = quadwords([("a", 16), ("b", 8), ("c", 40)])


def test_low_fields_come_first() -> None:
    low = build(Pair, a=0x5, b=0xFF, c=1)
    assert encode(low) == bytes.fromhex("05ff000000000000 0100000000000000")
    high = build(Pair, b=1 << 55, d=1)
    assert encode(high) == bytes.fromhex("0000000000000080 0000000000000080")
    assert encode(build(Half, a=1, b=1 << 28)) == bytes.fromhex("01000080")


def test_fields_at_byte_boundaries_are_not_turned_around_by_themselves() -> None:
    content = bytes.fromhex("0102030405060708")
    packet = decode(Bytes, content, "bytes")
    assert (packet.a, packet.b, packet.c) == (0x0201, 0x03, 0x0807060504)
    assert encode(build(Bytes, a=packet.a, b=packet.b, c=packet.c)) == content


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": 16}, "Pair.a: 0x10 does not fit 4 bits"),
        ({"c": -1}, "Pair.c: -0x1 does not fit 1 bits"),
        ({"e": 0}, "Pair has no field e"),
    ],
)
def test_building_cuts_nothing(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Pair, **values)


def test_sizes() -> None:
    assert (word_size(Pair), structure_size(Pair)) == (8, 16)
    assert (word_size(Half), structure_size(Half)) == (4, 4)


def test_unnamed_fields_carry_their_place() -> None:
    names = [field.name for field in Pair.fields_desc]
    assert names == ["b", "reserved0_4", "a", "d", "ignored1_1", "c"]


def test_words_and_bytes_are_the_same() -> None:
    packet = decode(Pair, (0x1_0000_0002, 0x3), "pair")
    assert decode(Pair, memoryview(encode(packet)), "pair") == packet
    assert words(packet) == (0x1_0000_0002, 0x3)
    assert words(decode(Half, [0xDEADBEEF], "half")) == (0xDEADBEEF,)


def test_a_word_with_missing_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="word 0 has 63 bits, not 64"):
        quadwords([("a", 63)])
    with pytest.raises(ValueError, match="word 1 has 65 bits, not 64"):
        quadwords([("a", 64)], [("b", 64), ("c", 1)])
    with pytest.raises(ValueError, match="word 0 has 64 bits, not 32"):
        doubleword(("a", 64))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "pair: Pair takes 16 bytes, the data ends after 0, at offset 0x0"),
        (bytes(15), "pair: Pair takes 16 bytes, the data ends after 15, at offset 0xf"),
        (bytes(24), "pair: Pair takes 16 bytes, 8 more follow, at offset 0x10"),
        ((1,), "pair: Pair takes 16 bytes, the data ends after 8, at offset 0x8"),
        ((0, 1 << 64), "pair.word[1]: 0x10000000000000000 does not fit 64 bits, at offset 0x8"),
        ((-1, 0), "pair.word[0]: -0x1 does not fit 64 bits, at offset 0x0"),
    ],
)
def test_errors_say_where(data: bytes | tuple[int, ...], message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(Pair, data, "pair")
    assert str(caught.value) == message
