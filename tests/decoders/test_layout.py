"""Layouts derived from Scapy classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.fields import Structure, doubleword, quadwords
from decoders.layout import Field, layout
from decoders.vtd import ContextEntry


class Pair(Structure):
    fields_desc = quadwords(
        [("present", 1), ("reserved", 11), ("pointer", 52)],
        [("ignored", 3), ("reserved", 5), ("number", 16), ("reserved", 40)],
    )


class Half(Structure):
    fields_desc = doubleword(("reserved", 30), ("pending", 1), ("mask", 1))


def test_the_layout_of_quadwords() -> None:
    place = layout(Pair)
    assert (place.name, place.words, place.word_size, place.size) == ("Pair", 2, 8, 16)
    assert place.fields == {
        "present": Field(0, 0, 1),
        "pointer": Field(0, 12, 52),
        "number": Field(1, 8, 16),
    }
    assert list(place.fields) == ["present", "pointer", "number"]
    assert place.reserved == (0xFFE, 0xFFFFFFFF_FF0000F8)
    assert place.ignored == (0, 0x7)


def test_the_layout_of_a_doubleword() -> None:
    place = layout(Half)
    assert (place.words, place.word_size, place.size) == (1, 4, 4)
    assert place.fields == {"pending": Field(0, 30, 1), "mask": Field(0, 31, 1)}
    assert place.reserved == (0x3FFFFFFF,)


def test_a_layout_is_made_once() -> None:
    assert layout(Pair) is layout(Pair)
    assert layout(Pair) is not layout(Half)


def test_masks_are_in_place() -> None:
    assert layout(Pair)["number"].mask == 0xFFFF00
    assert layout(Pair).mask("present", "pointer") == 0xFFFFFFFF_FFFFF001
    assert layout(Pair).mask() == 0
    with pytest.raises(ValueError, match="Pair: present, number are not in one word"):
        layout(Pair).mask("present", "number")


def test_a_pointer_is_masked_not_shifted() -> None:
    words = (0x0000_0012_3456_7FFF, 0)
    assert layout(Pair)["pointer"].address(words) == 0x12_3456_7000
    assert layout(Pair)["pointer"].get(words) == 0x1_2345_67


@pytest.mark.parametrize("value", [-1, 0x10000])
def test_a_value_that_does_not_fit_is_refused(value: int) -> None:
    words = [0, 0]
    with pytest.raises(ValueError, match="does not fit 16 bits"):
        layout(Pair)["number"].put(words, value)
    assert words == [0, 0]


@given(
    words=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2),
    value=st.integers(0, 0xFFFF),
)
def test_put_changes_its_field_alone(words: list[int], value: int) -> None:
    number = layout(Pair)["number"]
    before = list(words)
    number.put(words, value)
    assert number.get(words) == value
    assert words[0] == before[0]
    assert words[1] & ~number.mask == before[1] & ~number.mask


def test_every_bit_has_one_use() -> None:
    place = layout(ContextEntry)
    for word in range(place.words):
        masks = [field.mask for field in place.fields.values() if field.word == word]
        masks += [place.reserved[word], place.ignored[word]]
        assert sum(masks) == (1 << place.word_size * 8) - 1
