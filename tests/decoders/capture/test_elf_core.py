"""Memory images: what is in them, and the headers that must not be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders.capture import detect
from decoders.capture.elf_core import (
    READ_LIMIT,
    SEGMENTS_LIMIT,
    MemoryImage,
    Range,
)
from decoders.errors import DecodeError
from tests.decoders.capture.vm import Vm
from tests.writers.elf import ET_EXEC, PT_NOTE, Core, Segment

PAGE = bytes(range(256)) * 16


def image(tmp_path: Path, core: Core | bytes) -> MemoryImage:
    path = tmp_path / "core"
    path.write_bytes(core if isinstance(core, bytes) else core.bytes())
    return MemoryImage(path)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", "<>")
def test_reading(tmp_path: Path, bits: int, order: str) -> None:
    core = Core(
        [
            Segment(0, b"a note", PT_NOTE),
            Segment(0x10_0000, PAGE * 2),
            Segment(0x2000, PAGE),
            Segment(0x3000, b"x" * 100),
            Segment(0x8000, b"", memory_size=0x1000),
        ],
        bits=bits,
        order=order,
    )
    assert detect(core.bytes()) == "elf-core"
    with image(tmp_path, core) as memory:
        assert [(found.address, found.size) for found in memory.ranges] == [
            (0x2000, 0x1064),
            (0x10_0000, 0x2000),
        ]
        assert memory.read(0x10_0001, 3) == b"\x01\x02\x03"
        assert memory.read(0x2FF0, 0x20) == PAGE[0xFF0:] + b"x" * 16
        assert memory.read(0x9000, 0) == b""
        assert memory.page(0x2FFF) == PAGE
        assert memory.page(0x3000) is None
        assert 0x3063 in memory
        assert 0x3064 not in memory
        for address in (0, 0x3064, 0x8000, 0x10_2000, 2**64, -1):
            with pytest.raises(DecodeError, match="not in the image"):
                memory.read(address, 1)
        with pytest.raises(DecodeError, match="not in the image"):
            memory.read(0x3060, 8)
        for length in (-1, READ_LIMIT + 1, 1 << 60):
            with pytest.raises(DecodeError, match="are the most"):
                memory.read(0x2000, length)


def test_ranges_that_touch_but_lie_apart_in_the_file(tmp_path: Path) -> None:
    core = Core([Segment(0x1000, b"b" * 4096), Segment(0, b"a" * 4096)])
    with image(tmp_path, core) as memory:
        assert len(memory.ranges) == 2
        assert memory.read(0xFFF, 2) == b"ab"


def test_two_mappings_of_the_same_memory(tmp_path: Path) -> None:
    core = Core([Segment(0x1000, PAGE * 2), Segment(0x2000, b"", offset=64 + 112 + 4096)])
    core.segments[1].file_size = 4096
    with image(tmp_path, core) as memory:
        assert memory.ranges == (Range(0x1000, 0x2000, 64 + 112),)


BAD: dict[str, tuple[Core | bytes, str]] = {
    "empty": (b"", "not an ELF core"),
    "magic": (Core(magic=b"\x7fELG"), "not an ELF core"),
    "only the magic": (b"\x7fELF", "not an ELF core"),
    "a program": (Core(type=ET_EXEC), "not an ELF core"),
    "class": (Core().bytes()[:4] + b"\7" + Core().bytes()[5:], "not an ELF core"),
    "cut header": (Core().bytes()[:30], "not an ELF core"),
    "overlap": (
        Core([Segment(0x1000, PAGE), Segment(0x1800, PAGE)]),
        "two segments claim the memory at 0x1800",
    ),
    "same place, other bytes": (
        Core([Segment(0x1000, PAGE), Segment(0x1000, PAGE)]),
        "two segments claim the memory at 0x1000",
    ),
    "offset past the end": (
        Core([Segment(0, PAGE, offset=1 << 40)]),
        r"segment\[0\].p_offset: the segment runs past the file, at offset 0x40",
    ),
    "end past the end": (Core([Segment(0, PAGE, file_size=4097)]), "runs past the file"),
    "2^60 bytes": (Core([Segment(0, PAGE, file_size=1 << 60)]), "runs past the file"),
    "2^64 - 1 bytes": (Core([Segment(0, PAGE, file_size=2**64 - 1)]), "runs past the file"),
    "past 64 bits": (Core([Segment(2**64 - 4095, PAGE)]), "past 64 bits"),
    "smaller in memory": (Core([Segment(0, PAGE, memory_size=1)]), "more in the file"),
    "table past the end": (Core([Segment(0, PAGE)], table=1 << 62), "run past the file"),
    "table past 63 bits": (Core([Segment(0, PAGE)], table=2**64 - 1), "run past the file"),
    "too many": (Core([Segment(0, PAGE)], count=2000), "run past the file"),
    "small entries": (Core([Segment(0, PAGE)], entry_size=55), "cannot hold"),
    "no entry size": (Core([Segment(0, PAGE)], entry_size=0), "cannot hold"),
    "65535 segments": (Core([Segment(0, PAGE)], count=0xFFFF), "e_shoff"),
    "65534 segments": (
        Core([Segment(0, PAGE)], count=0xFFFE),
        f"65534 segments, more than {SEGMENTS_LIMIT}",
    ),
    "2^32 - 1 segments": (
        Core([Segment(0, PAGE)], count=0xFFFF, sections=1, extended_count=2**32 - 1),
        "4294967295 segments, more than",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_headers_that_lie(tmp_path: Path, name: str) -> None:
    core, message = BAD[name]
    with pytest.raises(DecodeError, match=message):
        image(tmp_path, core)


def test_the_count_in_the_section_header(tmp_path: Path) -> None:
    core = Core([Segment(0x5000, PAGE)], count=0xFFFF, sections=1, extended_count=1)
    with image(tmp_path, core) as memory:
        assert memory.page(0x5000) == PAGE


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    with image(tmp_path, Core([Segment(0, PAGE)])) as memory:
        memory.path.write_bytes(b"")
        with pytest.raises(DecodeError, match="shorter"):
            memory.read(0, 4096)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 2000),
)
def test_damage_is_a_decode_error_or_none(
    tmp_path: Path, edits: list[tuple[int, bytes]], length: int
) -> None:
    whole = Core(
        [Segment(0x1000, PAGE[:500]), Segment(0x9000, PAGE[:500]), Segment(0, b"n", PT_NOTE)],
        sections=1,
    )
    data = bytearray(whole.bytes())
    for at, text in edits:
        data[at : at + len(text)] = text
    del data[len(data) - length % len(data) :]
    try:
        with image(tmp_path, bytes(data)) as memory:
            for found in memory.ranges:
                assert len(memory.read(found.address, found.size)) == found.size
    except DecodeError:
        pass


@pytest.mark.qemu
def test_a_real_core(tmp_path: Path) -> None:
    path = tmp_path / "core"
    with Vm() as vm:
        vm.qtest("writeq 0x123450 0xdeadbeefcafe")
        vm.qtest("writeb 0x3ffffff 0x77")
        vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{path}")
    assert detect(path.read_bytes()[:1024]) == "elf-core"
    with MemoryImage(path) as memory:
        # 64 MiB of RAM from 0 on, and the flash that ends at 4 GiB.
        assert memory.ranges[0].address == 0
        assert memory.ranges[0].end == 0x400_0000
        assert memory.ranges[-1].end == 1 << 32
        assert memory.read(0x123450, 8) == 0xDEADBEEFCAFE.to_bytes(8, "little")
        assert memory.read(0x3FF_FFFE, 2) == b"\0\x77"
        assert 0x400_0000 not in memory
        page = memory.page(0x123456)
        assert page is not None
        assert page[0x450:0x456] == 0xDEADBEEFCAFE.to_bytes(6, "little")
