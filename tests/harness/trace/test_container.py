"""Tests of writing trace files and reading them back."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders.errors import DecodeError
from decoders.events import Clock, Event, Gap, RegWrite, Reset
from harness.errors import HarnessError
from harness.trace import (
    Header,
    TextReader,
    TraceReader,
    TraceWriter,
    compact,
    open_events,
    write_text,
)
from harness.trace.codec import decode
from harness.trace.format import EVENTS_LIMIT
from harness.trace.writer import BLOCK_RAW, COMPACT_RAW
from tests.harness.trace.samples import BLOCKS, EVENTS, HEADER, write
from tests.harness.trace.strategies import events, headers


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "small.trace"
    write(path)
    return path


def events_of(path: Path) -> list[Event]:
    with TraceReader(path) as reader:
        return list(reader)


def without_index(path: Path) -> None:
    with TraceReader(path) as reader:
        assert reader.index is not None
        places = list(reader._places())
    os.truncate(path, places[-1].end)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50
)
@given(headers, st.lists(events | st.none(), max_size=20))
def test_round_trip(tmp_path: Path, header: Header, written: list[Event | None]) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter.create(path, header) as writer:
        for event in written:
            if event is None:
                writer.flush()
            else:
                writer.append(event)
    with TraceReader(path) as reader:
        assert reader.header == header
        assert list(reader) == [event for event in written if event is not None]
        assert reader.damage is None
        assert reader.index_problem is None


def test_empty_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    TraceWriter.create(path, HEADER).close()
    with TraceReader(path) as reader:
        assert list(reader) == []
        assert list(reader.blocks()) == []
        assert list(reader.events(5)) == []
        assert reader.first_event_at(0) == 0


def test_blocks_decode_alone(trace: Path) -> None:
    with TraceReader(trace) as reader:
        blocks = list(reader.blocks())
    assert [block.first_event + block.events for block in blocks] == list(BLOCKS)
    for block in reversed(blocks):
        decoded = list(decode(block.raw, "block", block.first_event))
        assert decoded == EVENTS[block.first_event : block.first_event + block.events]


def test_index(trace: Path) -> None:
    with TraceReader(trace) as reader:
        assert reader.index is not None
        assert [entry.first_event for entry in reader.index] == [0, *BLOCKS[:-1]]
        assert [entry.first_microseconds for entry in reader.index] == [0, 1_500_000, 2_500_000]
        assert reader.index.events == len(EVENTS)
        assert list(reader.index[1:]) == [reader.index[1], reader.index[2]]


@pytest.mark.parametrize("indexed", [True, False])
def test_ranges(trace: Path, indexed: bool) -> None:
    if not indexed:
        without_index(trace)
    with TraceReader(trace) as reader:
        assert (reader.index is not None) is indexed
        for start in range(len(EVENTS) + 2):
            for stop in (None, *range(len(EVENTS) + 2)):
                assert list(reader.events(start, stop)) == EVENTS[start:stop]
            reader.seek(start)
            assert list(reader) == EVENTS[start:]
            numbers = [block.first_event for block in reader.blocks(start)]
            assert numbers == [
                f for f, end in zip((0, *BLOCKS), BLOCKS, strict=False) if start < end
            ]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("microseconds", "event"),
    [(0, 1), (1_500_000, 1), (1_500_001, 7), (2_500_000, 7), (2_500_001, 17)],
)
def test_times(trace: Path, indexed: bool, microseconds: int, event: int) -> None:
    if not indexed:
        without_index(trace)
    with TraceReader(trace) as reader:
        assert reader.first_event_at(microseconds) == event


def test_times_over_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    times = sorted(random.Random(1).randrange(50) for _ in range(200))
    with TraceWriter.create(path, HEADER) as writer:
        for time in times:
            writer.append(Clock(time))
            writer.append(Reset())
            writer.flush()
    with TraceReader(path) as reader:
        for wanted in range(52):
            expected = next((2 * i for i, time in enumerate(times) if time >= wanted), 400)
            assert reader.first_event_at(wanted) == expected


def test_time_that_runs_backwards_does_not_spoil_the_index(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter.create(path, HEADER) as writer:
        for time in (50, 10, 60):
            writer.append(Clock(time))
            writer.flush()
    with TraceReader(path) as reader:
        assert reader.index is not None
        assert reader.first_event_at(55) == 2


def test_iterations_do_not_disturb_each_other(trace: Path) -> None:
    with TraceReader(trace) as reader:
        one, two = iter(reader), iter(reader)
        assert [next(one) for _ in range(8)] == EVENTS[:8]
        assert list(two) == EVENTS
        assert list(one) == EVENTS[8:]


def test_full_blocks_are_written_as_they_fill(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    event = Gap("x" * 4000)
    writer = TraceWriter.create(path, HEADER)
    for _ in range(BLOCK_RAW // 4000 + 1):
        writer.append(event)
    with TraceReader(path) as reader:  # while the writer is open
        sizes = [len(block.raw) for block in reader.blocks()]
    writer.close()
    assert len(sizes) == 1
    assert BLOCK_RAW <= sizes[0] < BLOCK_RAW + 4100


def test_block_never_has_too_many_events(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter.create(path, HEADER) as writer:
        writer.block_raw = 1 << 30
        writer._count = EVENTS_LIMIT - 1
        writer._raw = bytearray(b"\x91\x0b" * (EVENTS_LIMIT - 1))
        writer.append(Reset())
        writer.append(Reset())
    with TraceReader(path) as reader:
        assert [block.events for block in reader.blocks()] == [EVENTS_LIMIT, 1]


def test_bad_event_leaves_the_writer_usable(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter.create(path, HEADER) as writer:
        writer.append(Reset())
        with pytest.raises(DecodeError, match=r"RegWrite\.size: 3"):
            writer.append(RegWrite(0, 3, 0))
        writer.append(Clock(1))
        assert writer.events == 2
    assert events_of(path) == [Reset(), Clock(1)]


def test_close_twice_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with pytest.raises(KeyError), TraceWriter.create(path, HEADER) as writer:
        writer.append(Reset())
        raise KeyError
    writer.close()
    assert events_of(path) == [Reset()]


def test_append_to_a_closed_trace(trace: Path) -> None:
    with TraceWriter.append_to(trace) as writer:
        assert writer.header == HEADER
        assert (writer.events, writer.dropped) == (17, 0)
        writer.append(Reset())
    assert events_of(trace) == [*EVENTS, Reset()]
    with TraceReader(trace) as reader:
        assert reader.index is not None
        assert [entry.first_microseconds for entry in reader.index][-1] == 2_500_000


def test_append_nothing_gives_the_same_file(trace: Path) -> None:
    before = trace.read_bytes()
    TraceWriter.append_to(trace).close()
    assert trace.read_bytes() == before


def test_append_after_every_truncated_tail(trace: Path, tmp_path: Path) -> None:
    content = trace.read_bytes()
    path = tmp_path / "cut.trace"
    with TraceReader(trace) as reader:
        ends = {reader._start: 0} | {place.end: BLOCKS[place.number] for place in reader._places()}
    for length in range(min(ends), max(ends) + 1):
        path.write_bytes(content[:length])
        whole = max(end for end in ends if end <= length)
        with TraceWriter.append_to(path) as writer:
            assert writer.events == ends[whole]
            # One or two bytes may as well be the beginning of an index.
            assert writer.dropped == (length - whole if length - whole > 2 else 0)
            writer.append(Gap("more"))
        assert events_of(path) == [*EVENTS[: ends[whole]], Gap("more")]


def test_append_refuses_damage_that_is_no_torn_tail(trace: Path) -> None:
    content = trace.read_bytes()
    with TraceReader(trace) as reader:
        places = list(reader._places())
    refused = 0
    for offset in range(places[0].offset, places[-1].end):
        for indexed in (True, False):
            changed = bytearray(content if indexed else content[: places[-1].end])
            changed[offset] ^= 0x80
            trace.write_bytes(changed)
            try:
                TraceWriter.append_to(trace).close()
            except DecodeError:
                refused += 1
                assert trace.read_bytes() == changed, "left alone"
            else:
                # Only the last block's length, in a file without an end, can pass for a torn tail.
                assert not indexed
                assert offset >= places[-1].offset
    assert refused > 1.9 * (places[-1].end - places[0].offset)


def test_one_writer_at_a_time(trace: Path) -> None:
    with TraceWriter.append_to(trace):
        for attempt in (
            lambda: TraceWriter.append_to(trace),
            lambda: TraceWriter.create(trace, HEADER),
            lambda: compact(trace),
        ):
            with pytest.raises(HarnessError, match="another program is writing"):
                attempt()
    assert events_of(trace) == EVENTS


def test_full_disk_leaves_whole_blocks(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if len(data) <= 7:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data[: len(data) // 2], offset)

    writer = TraceWriter.append_to(trace)
    writer.append(Reset())
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        writer.flush()
    with pytest.raises(OSError, match="No space"):
        writer.close()
    monkeypatch.undo()
    with TraceReader(trace) as reader:
        assert list(reader) == EVENTS
    TraceWriter.append_to(trace).close()
    assert events_of(trace) == EVENTS


def test_compact_merges_blocks_and_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    written: list[Event] = []
    with TraceWriter.create(path, HEADER) as writer:
        for number in range(20_000):
            written.append(RegWrite(0x88, 8, number % 256 << 4))
            writer.append(written[-1])
            if number % 100 == 0:
                writer.flush()
    path.chmod(0o640)
    before, after = compact(path)
    assert after == path.stat().st_size
    assert after < before / 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with TraceReader(path) as reader:
        assert list(reader) == written
        assert reader.index is not None
        assert all(len(block.raw) <= COMPACT_RAW + 16 for block in reader.blocks())
    assert [item.name for item in tmp_path.iterdir()] == ["a.trace"]


def test_compact_leaves_a_damaged_trace_alone(trace: Path, tmp_path: Path) -> None:
    content = bytearray(trace.read_bytes())
    content[-200] ^= 1
    trace.write_bytes(content)
    with pytest.raises(DecodeError):
        compact(trace)
    assert trace.read_bytes() == content
    assert [item.name for item in tmp_path.iterdir()] == [trace.name]


def test_both_forms_are_told_apart_by_content(trace: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.trace"
    write_text(text, HEADER, EVENTS)
    with open_events(trace) as stored, open_events(text) as written:
        assert isinstance(stored, TraceReader)
        assert isinstance(written, TextReader)
        assert list(stored) == list(written)
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF")
    with pytest.raises(DecodeError, match="neither a trace nor its text form"):
        open_events(other)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for name in (fifo, tmp_path, Path(os.devnull)):
        with pytest.raises(HarnessError, match="not a regular file"):
            open_events(name)
    with pytest.raises(FileNotFoundError):
        open_events(tmp_path / "absent")
