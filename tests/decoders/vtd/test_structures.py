"""Every VT-d structure: its fields are where they should be, and it survives a round trip."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.packet import Padding

from decoders.errors import DecodeError
from decoders.fields import Structure, bit_fields, build, decode, encode, structure_size, words
from decoders.layout import layout
from tests.decoders.vtd.placements import PLACEMENTS
from tools.generate_layout import structures

ALL = structures()
every_structure = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def test_the_second_table_is_complete() -> None:
    assert set(PLACEMENTS) == set(ALL)


@every_structure
def test_fields_are_where_the_second_table_has_them(cls: type[Structure]) -> None:
    found = {
        name: (field.word, field.low + field.width - 1, field.low)
        for name, field in layout(cls).fields.items()
    }
    assert found == PLACEMENTS[cls]


@every_structure
def test_each_bit_belongs_to_its_field(cls: type[Structure]) -> None:
    place = layout(cls)
    owner = {
        (word, bit): (name, bit - low)
        for name, (word, high, low) in PLACEMENTS[cls].items()
        for bit in range(low, high + 1)
    }
    for word in range(place.words):
        for bit in range(place.word_size * 8):
            values = [0] * place.words
            values[word] = 1 << bit
            packet = decode(cls, values, "bit")
            nonzero = {
                name: packet.getfieldval(name)
                for name, _ in bit_fields(cls)
                if packet.getfieldval(name)
            }
            assert len(nonzero) == 1
            name, value = next(iter(nonzero.items()))
            unnamed = place.reserved[word] | place.ignored[word]
            if (word, bit) in owner:
                assert (name, value) == (owner[word, bit][0], 1 << owner[word, bit][1])
                assert not unnamed >> bit & 1
            else:
                assert name.startswith(("reserved", "ignored"))
                assert unnamed >> bit & 1
            assert words(packet) == tuple(values)


@every_structure
@settings(max_examples=20, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_bytes_survive_dissection(cls: type[Structure], data: st.DataObject) -> None:
    size = structure_size(cls)
    content = data.draw(st.binary(min_size=size, max_size=size))
    packet = decode(cls, content, "x")
    assert encode(packet) == content
    # A packet keeps the bytes it was dissected from; made from its fields alone it must agree.
    again = build(cls, **{name: packet.getfieldval(name) for name, _ in bit_fields(cls)})
    assert encode(again) == content
    assert decode(cls, words(packet), "x") == packet


@every_structure
@settings(max_examples=20, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_fields_survive_building(cls: type[Structure], data: st.DataObject) -> None:
    values = {
        name: data.draw(st.integers(0, (1 << width) - 1), name) for name, width in bit_fields(cls)
    }
    packet = decode(cls, encode(build(cls, **values)), "x")
    assert {name: packet.getfieldval(name) for name in values} == values
    place, found = layout(cls), words(packet)
    for name, field in place.fields.items():
        assert field.get(found) == values[name]
        assert field.address(found) == values[name] << field.low


@every_structure
def test_a_structure_of_another_size_is_refused(cls: type[Structure]) -> None:
    size = structure_size(cls)
    for length in range(size):
        with pytest.raises(DecodeError) as caught:
            decode(cls, bytes(length), "queue[3]")
        assert (caught.value.path, caught.value.offset) == ("queue[3]", length)
    with pytest.raises(DecodeError) as caught:
        decode(cls, bytes(size + 1), "queue[3]")
    assert (caught.value.path, caught.value.offset) == ("queue[3]", size)


@every_structure
def test_scapy_leaves_what_follows_alone(cls: type[Structure]) -> None:
    packet = cls(bytes(structure_size(cls)) + b"next")
    assert isinstance(packet.payload, Padding)
    assert packet.payload.load == b"next"
