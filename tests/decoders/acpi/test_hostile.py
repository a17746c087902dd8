"""Mutated tables: nothing but DecodeError, nothing lost, and no long wait."""

from __future__ import annotations

import os
import random
import struct
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.acpi import read, read_file, read_tolerant, validate
from decoders.errors import DecodeError
from tests.decoders.acpi.blobs import ALL
from tests.writers import acpi as w

ROUNDS = int(os.environ.get("DMAREWIND_ACPI_MUTATIONS", "3000"))
LONGEST = 2.0
"""Seconds of the processor that one mutated table of the corpus may take."""

INTERESTING = [0, 1, 2, 3, 4, 5, 0x10, 0x30, 0x40, 0x7F, 0x80, 0xFF]
NUMBERS = [0, 1, 4, 16, 36, 47, 48, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutate(data: bytes, choose: random.Random) -> bytes:
    """Change a few bytes, numbers, or the length of a table."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 5)):
        at = choose.randrange(len(changed))
        kind = choose.randrange(6)
        if kind == 0:
            changed[at] = choose.choice(INTERESTING)
        elif kind == 1:
            changed[at] ^= 1 << choose.randrange(8)
        elif kind == 2:
            size = choose.choice([2, 4])
            number = choose.choice(NUMBERS) & ((1 << 8 * size) - 1)
            at = min(at, len(changed) - size)
            changed[at : at + size] = number.to_bytes(size, "little")
        elif kind == 3 and len(changed) > 60:
            del changed[at : at + choose.randint(1, 24)]
        elif kind == 4:
            piece = changed[at : at + choose.randint(1, 40)]
            changed[at:at] = piece
        else:
            changed[at] = choose.randrange(256)
    if choose.random() < 0.7 and len(changed) >= 36:
        struct.pack_into("<I", changed, 4, len(changed))
    return w.sealed(bytes(changed)) if len(changed) > 9 else bytes(changed)


def check(data: bytes) -> None:
    table = read_tolerant(data)
    assert table.encode() == data
    fatal = [fault for fault in table.faults if fault.fatal]
    found = validate(data)
    for violation in found:
        assert 0 <= violation.offset <= len(data)
        assert violation.path.startswith(table.path)
    try:
        read(data)
    except DecodeError as error:
        assert fatal and error.offset == fatal[0].offset
    else:
        assert not fatal


def test_mutated_tables() -> None:
    choose = random.Random(20241105)
    blobs = list(ALL.values())
    worst = 0.0
    for _ in range(ROUNDS):
        data = mutate(choose.choice(blobs), choose)
        began = time.process_time()
        check(data)
        worst = max(worst, time.process_time() - began)
    assert worst < LONGEST


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"VIOT", b"IORT", b"DMAR", b"IVRS"]), st.binary(max_size=300))
def test_random_bodies(signature: bytes, body: bytes) -> None:
    check(w.table(signature, body))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ALL)), st.data())
def test_changed_places(name: str, data: st.DataObject) -> None:
    table = bytearray(ALL[name])
    places = st.lists(st.tuples(st.integers(4, len(table) - 1), st.integers(0, 255)), max_size=4)
    for at, value in data.draw(places):
        table[at] = value
    check(bytes(table))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.sampled_from(sorted(ALL)).map(lambda n: ALL[n][:90])))
def test_files_of_anything(data: bytes) -> None:
    for content in (data, w.acpidump(data) if data[:4].isalnum() and data.isascii() else data):
        try:
            for found in read_file(content):
                check(found.data)
        except DecodeError as error:
            assert error.offset is not None
