"""Cut a trace at every byte and alter every byte: only DecodeError, and nothing intact is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from decoders.errors import DecodeError
from decoders.events import Event
from harness.trace import TraceReader
from tests.harness.trace.samples import BLOCKS, EVENTS, write

ALTERATIONS: dict[str, Callable[[int], int]] = {
    "xor 1": lambda b: b ^ 1,
    "xor 0x80": lambda b: b ^ 0x80,
    "set 0xff": lambda b: 0xFF,
}


def read(path: Path) -> tuple[list[Event], DecodeError | None]:
    """Read as far as a file goes; any other exception than DecodeError is a failure."""
    found: list[Event] = []
    try:
        with TraceReader(path) as reader:
            try:
                for event in reader:
                    found.append(event)
            except DecodeError as error:
                assert reader.damage is error
                raise
            assert reader.damage is None
            # What the index says must not change what is read.
            assert list(reader.events(12)) == found[12:]
            assert list(reader.events(3, 9)) == found[3:9]
    except DecodeError as error:
        return found, error
    return found, None


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    write(tmp_path / "whole.trace")
    return (tmp_path / "whole.trace").read_bytes()


@pytest.fixture
def ends(tmp_path: Path, content: bytes) -> list[int]:
    """Give where the header and each block ends."""
    with TraceReader(tmp_path / "whole.trace") as reader:
        return [reader._start, *(place.end for place in reader._places())]


def events_before(offset: int, ends: list[int]) -> int:
    """Count the events in blocks that end at or before an offset."""
    return max(
        (count for end, count in zip(ends[1:], BLOCKS, strict=True) if end <= offset), default=0
    )


def test_cut_at_every_byte(tmp_path: Path, content: bytes, ends: list[int]) -> None:
    path = tmp_path / "cut.trace"
    outcomes = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found, error = read(path)
        assert found == EVENTS[: events_before(length, ends)], length
        if length < ends[0]:
            assert error is not None
            assert error.path.startswith(("trace.header", "trace.magic"))
        elif length >= ends[-1] or any(0 <= length - end <= 2 for end in ends):
            # Between blocks, or in the index, which is not needed ("D" and "DM" begin both).
            assert error is None
        else:
            assert error is not None
            number = sum(end <= length for end in ends) - 1
            assert error.path.startswith(f"trace.block[{number}]")
            assert error.offset == ends[number]
        outcomes.add(error and error.path)
    assert len(outcomes) > 5


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_alter_every_byte(
    tmp_path: Path, content: bytes, ends: list[int], alter: Callable[[int], int]
) -> None:
    path = tmp_path / "altered.trace"
    unnoticed = []
    for offset, byte in enumerate(content):
        changed = bytearray(content)
        changed[offset] = alter(byte)
        if changed == content:
            continue
        path.write_bytes(changed)
        found, error = read(path)
        assert found == EVENTS[: len(found)], offset
        if offset < ends[0]:
            assert error is not None
            assert found == []
        elif offset < ends[-1]:
            # Every event before the altered block, none of it, and the block is named.
            number = sum(end <= offset for end in ends) - 1
            assert found == EVENTS[: events_before(offset, ends)], offset
            assert error is not None
            assert error.path.startswith(f"trace.block[{number}]")
        else:
            assert found == EVENTS, offset
            if error is None:
                unnoticed.append(offset)
    # An altered index costs no event; only its magic makes it something unknown.
    assert len(content) - ends[-1] - 4 <= len(unnoticed) + 4


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_altered_index_is_noticed(
    tmp_path: Path, content: bytes, ends: list[int], alter: Callable[[int], int]
) -> None:
    path = tmp_path / "altered.trace"
    for offset in range(ends[-1], len(content)):
        changed = bytearray(content)
        changed[offset] = alter(content[offset])
        if changed == content:
            continue
        path.write_bytes(changed)
        with TraceReader(path) as reader:
            assert reader.index is None
            # An altered end magic looks like a file that was never closed.
            assert reader.index_problem is not None or offset >= len(content) - 8


def test_garbage_behind_the_blocks(tmp_path: Path, content: bytes, ends: list[int]) -> None:
    path = tmp_path / "garbage.trace"
    for garbage in (b"\0" * 100, b"\xff", b"DMBKxxxx", b"DMBK" + b"\xff" * 100, content):
        path.write_bytes(content[: ends[-1]] + garbage)
        found, error = read(path)
        assert found == EVENTS
        assert error is not None
        assert error.offset == ends[-1]
