"""Tests of reading files of tables."""

from __future__ import annotations

import re
import time

import pytest

from decoders.acpi import read_file, read_text, split
from decoders.acpi.files import MOST_TABLES, is_text
from decoders.errors import DecodeError
from tests.decoders.acpi.blobs import ALL, MADE
from tests.writers import acpi as w

DMAR, VIOT = MADE["dmar"], MADE["viot"]


@pytest.mark.parametrize("name", ALL)
def test_one_table_in_each_form(name: str) -> None:
    data = ALL[name]
    assert [found.data for found in read_file(data)] == [data]
    text = w.acpidump(data)
    assert is_text(text) and not is_text(data)
    assert [found.data for found in read_file(text)] == [data]


def test_tables_one_after_another() -> None:
    facs = b"FACS" + (64).to_bytes(4, "little") + bytes(56)
    found = list(read_file(facs + DMAR + bytes(20) + VIOT + bytes(7)))
    assert [f.data for f in found] == [facs, DMAR, VIOT]
    assert [f.signature for f in found] == ["FACS", "DMAR", "VIOT"]
    assert [f.place for f in found] == [0, 64, 64 + len(DMAR) + 20]


def test_text_of_several_tables() -> None:
    text = w.acpidump(DMAR, VIOT)
    found = list(read_file(text))
    assert [f.data for f in found] == [DMAR, VIOT]
    assert [f.place for f in found] == [1, text[: text.index(b"VIOT @")].count(b"\n") + 1]
    assert [f.data for f in read_file(text.replace(b"\n", b"\r\n"))] == [DMAR, VIOT]
    # as `acpidump -n` and older versions print it
    old = re.sub(rb"^    ", b"  ", text.replace(b"@ 0x0000000000000000", b"@ 0x7ff"), flags=re.M)
    assert [f.data for f in read_file(old)] == [DMAR, VIOT]


def test_what_follows_a_single_table_stays_with_it() -> None:
    assert [f.data for f in split(VIOT + b"\xff\xff")] == [VIOT + b"\xff\xff"]


def test_a_broken_length_takes_the_rest() -> None:
    broken = VIOT[:4] + b"\xff\xff\xff\xff" + VIOT[8:] + DMAR
    assert [f.data for f in split(broken)] == [broken]
    assert [f.data for f in split(DMAR + broken)] == [DMAR, broken]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file: there is no table in it, at offset 0x0"),
        (bytes(50), "file: there is no table in it, at offset 0x0"),
        (
            b"#!/bin/sh\n",
            "file.table[0].signature: b'#!/b' is no signature of a table, at offset 0x0",
        ),
        (b"DMA", "file.table[0].signature: b'DMA' is no signature of a table, at offset 0x0"),
        (
            DMAR + VIOT + b"end",
            f"file.table[2].signature: b'end' is no signature of a table, at offset "
            f"{len(DMAR) + len(VIOT):#x}",
        ),
        (
            w.table(b"SSDT", b"") * (MOST_TABLES + 1),
            f"file.table[{MOST_TABLES}]: more than the {MOST_TABLES} tables that are read, "
            f"at offset {36 * MOST_TABLES:#x}",
        ),
    ],
)
def test_what_is_no_table(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        list(read_file(data))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: there is no table in it, at line 1"),
        ("  0000: 41\n", "text.table[0]: b'  0000: 41' is neither a title nor bytes, at line 1"),
        (
            "DMAR @ 0x0\n  0010: 41\n",
            "text.table[0]: bytes for 0x10 where those for 0x0 belong, at line 2",
        ),
        (
            "DMAR @ 0x0\n  0000: 4\n",
            "text.table[0]: b'  0000: 4' is neither a title nor bytes, at line 2",
        ),
        ("X @ 0\n", "text.table[0]: b'X @ 0' is neither a title nor bytes, at line 1"),
        (
            "SSDT @ 0\n" * (MOST_TABLES + 1),
            f"text.table[{MOST_TABLES}]: more than the {MOST_TABLES} tables that are read, "
            f"at line {MOST_TABLES + 1}",
        ),
    ],
)
def test_what_is_no_dump(text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        list(read_text(text.encode()))
    assert str(caught.value) == message


def test_files_are_bounded() -> None:
    with pytest.raises(DecodeError, match="more than the 67108864 that are read"):
        list(read_file(bytes((64 << 20) + 1)))


def test_many_tables_in_a_large_file_take_no_time() -> None:
    """Each of 1,024 tables has 60 MiB behind it, most of them zeros."""
    data = VIOT * 1023 + bytes(60 << 20) + VIOT
    before = time.process_time()
    assert [found.place for found in split(data)][-2:] == [1022 * len(VIOT), len(data) - len(VIOT)]
    assert time.process_time() - before < 2
