"""The committed header of ACPI structures says what the Scapy classes say."""

from __future__ import annotations

import re

import pytest

from decoders.bytewise import ByteStructure, field_sizes, size_of
from tools import generate_acpi_layout as generator

STRUCTURES = generator.acpi_structures()


def test_the_committed_header_is_not_stale() -> None:
    stored = generator.HEADER.read_text(encoding="utf-8")
    assert stored == generator.header(), "run: python -m tools.generate_layout"


def test_it_fits_100_columns() -> None:
    assert max(len(line) for line in generator.header().splitlines()) <= 100


def test_no_field_is_a_keyword() -> None:
    names = {name for cls in STRUCTURES for name, _ in field_sizes(cls)}
    assert not names & generator.KEYWORDS


@pytest.mark.parametrize("cls", STRUCTURES, ids=lambda cls: cls.__name__)
def test_fields_are_where_scapy_reads_them(cls: type[ByteStructure]) -> None:
    body = generator.header().partition(f"struct {cls.__name__} {{")[2].partition("};\n\n")[0]
    fields = re.findall(r'Field (\w+)\{"\1", (\d+), (\d+)\}', body)
    assert [name for name, _, _ in fields] == [name for name, _ in field_sizes(cls)]
    # Every byte has a value of its own, so that a field at another place would hold another number.
    data = bytes(range(1, 1 + size_of(cls)))
    decoded = cls(data)
    for name, offset, size in fields:
        value = decoded.getfieldval(name)
        plain = value if isinstance(value, bytes) else value.to_bytes(int(size), "little")
        assert plain == data[int(offset) : int(offset) + int(size)], name
