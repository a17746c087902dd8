"""Files that lie about themselves: refused, and without the memory they ask for."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
import zstandard

from decoders.errors import DecodeError
from decoders.events import Clock, Event, Reset
from harness.trace import Header, TraceReader, TraceWriter
from harness.trace.format import EVENTS_LIMIT, RAW_LIMIT, STORED_LIMIT
from harness.trace.header import HEADER_LIMIT
from harness.trace.text import LINE_LIMIT
from tests.harness.trace.samples import HEADER
from tests.writers.trace import PLAIN_HEADER, block, bomb, index, preamble, raw_events

ROOT = Path(__file__).parents[3]
HUGE = (1 << 32) - 1
GROWTH = 64 << 20
"""Bytes by which reading any file may grow a process."""

GOOD = block(raw_events([[11], [12, 5]]), 0, 2)
START = len(preamble())


def nested_header() -> bytes:
    """Build a header of arrays in arrays, each claiming the most members that are allowed."""
    return b"\xdc\x10\x00" * (HEADER_LIMIT // 3)


def wide_header() -> bytes:
    """Build a header as long as allowed, of the smallest values."""
    return b"\xdc\x10\x00" + (b"\xdc\x10\x00" + b"\x90" * 4096) * 255


def header_of_maps() -> bytes:
    """Build a header of maps with one member each, which take the most memory for their size."""
    return b"\xdc\x10\x00" + (b"\xdc\x10\x00" + b"\x81\xa0\x00" * 4096) * 84


def header_of_names() -> bytes:
    """Build a header of maps with as many short names as allowed."""
    names = b"".join(msgpack.packb(f"{number:03x}") + b"\0" for number in range(4096))
    maps = b"".join(msgpack.packb(str(n)) + b"\xde\x10\x00" + names for n in range(50))
    return b"\xde\x00\x32" + maps


FORGED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "header length": (lambda: preamble(length=HUGE), 0, "header.length: 4294967295 exceeds"),
    "header one too long": (lambda: preamble(length=HEADER_LIMIT + 1), 0, "header.length"),
    "header past the end": (lambda: preamble(length=HEADER_LIMIT), 0, "the file ends before"),
    "header nested": (lambda: preamble(stored=nested_header()), 0, "trace.header"),
    "header wide": (lambda: preamble(stored=wide_header()), 0, "lists and maps"),
    "header of maps": (lambda: preamble(stored=header_of_maps()), 0, "lists and maps"),
    "header of names": (lambda: preamble(stored=header_of_names()), 0, "version: is missing"),
    "version": (lambda: preamble(version=2), 0, "trace.version: 2"),
    "stored": (lambda: preamble() + GOOD + block(b"", 2, 1, stored=HUGE), 2, "stored: 4294967295"),
    "stored past the end": (
        lambda: preamble() + GOOD + block(b"\x91\x0b", 2, 1, stored=STORED_LIMIT),
        2,
        "file ends inside",
    ),
    "raw": (
        lambda: preamble() + GOOD + block(b"\x91\x0b", 2, 1, claimed_raw=HUGE),
        2,
        "raw: 42949",
    ),
    "raw too small": (
        lambda: preamble() + GOOD + block(raw_events([[11], [11]]), 2, 1, claimed_raw=2),
        2,
        "frame does not hold 2 bytes",
    ),
    "events": (lambda: preamble() + GOOD + block(b"\x91\x0b", 2, HUGE), 2, "events: 4294967295"),
    "events that cannot fit": (
        lambda: preamble() + GOOD + block(b"\x91\x0b", 2, EVENTS_LIMIT),
        2,
        "do not fit into 2 bytes",
    ),
    "no events": (lambda: preamble() + GOOD + block(b"\x91\x0b", 2, 0), 2, "events: 0"),
    "fewer events": (
        lambda: preamble() + GOOD + block(raw_events([[11], [11], [11]]), 2, 2),
        4,
        "2 claimed, the block holds more",
    ),
    "more events": (
        lambda: preamble() + GOOD + block(raw_events([[11], [12, 1 << 40]]), 2, 3),
        4,
        "3 claimed, the block holds 2",
    ),
    "first event": (
        lambda: preamble() + GOOD + block(b"\x91\x0b", 1 << 60, 1),
        2,
        "first_event: 1152921504606846976 does not follow",
    ),
    "bomb": (
        lambda: preamble() + GOOD + block(b"", 2, 1, payload=bomb(1 << 30), claimed_raw=RAW_LIMIT),
        2,
        "frame does not hold 4194304 bytes",
    ),
    "bomb of unsaid size": (
        lambda: preamble() + GOOD + block(b"", 2, 1, payload=unsized(), claimed_raw=RAW_LIMIT),
        2,
        "frame does not hold",
    ),
    "bomb in the second frame": (
        lambda: (
            preamble()
            + GOOD
            + block(b"\x91\x0b", 2, 1, payload=zstandard.compress(b"\x91\x0b") + bomb(1 << 28))
        ),
        2,
        "does not decompress",
    ),
    "window": (
        lambda: preamble() + GOOD + block(b"", 2, 1, payload=wide_window(), claimed_raw=RAW_LIMIT),
        2,
        "payload",
    ),
    "content nested": (
        lambda: preamble() + GOOD + block(b"\x9f" * RAW_LIMIT, 2, 1),
        2,
        "not a message within bounds",
    ),
    "text of 4 GiB": (
        lambda: preamble() + GOOD + block(b"\x92\x0d\xdb\xff\xff\xff\xff", 2, 1),
        2,
        r"event\[2\]",
    ),
    "array of 2^32": (
        lambda: preamble() + GOOD + block(b"\xdd\xff\xff\xff\xff", 2, 1),
        2,
        "exceeds max_array_len",
    ),
    "bytes behind the events": (
        lambda: preamble() + GOOD + block(b"\x91\x0b\x93\x01", 2, 1),
        3,
        "runs past the block",
    ),
}


def unsized() -> bytes:
    """Build a frame that does not say how much it holds."""
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    return compressor.compress(bytes(256 << 20))


def wide_window() -> bytes:
    """Build the head of a frame of the right size that wants a window of gigabytes."""
    descriptor, window = 0x80, 0xB0  # 4 bytes of content size; 2^(10 + 22) bytes of window
    head = struct.pack("<IBBI", 0xFD2FB528, descriptor, window, RAW_LIMIT)
    return head + b"\x01\x00\x00"


def read(path: Path) -> tuple[list[Event], DecodeError | None]:
    found: list[Event] = []
    try:
        with TraceReader(path) as reader:
            for event in reader:
                found.append(event)
    except DecodeError as error:
        return found, error
    return found, None


@pytest.mark.parametrize(("build", "intact", "problem"), FORGED.values(), ids=FORGED.keys())
def test_refused(tmp_path: Path, build: Callable[[], bytes], intact: int, problem: str) -> None:
    path = tmp_path / "forged.trace"
    path.write_bytes(build())
    found, error = read(path)
    assert found[:2] == [Reset(), Clock(5)][: min(intact, 2)]
    assert len(found) == intact
    with pytest.raises(DecodeError, match=problem):
        raise error or AssertionError("not refused")


# Not ru_maxrss: that outlives an exec, so a child of a large process would never seem to grow.
PROGRAM = """
import sys
from pathlib import Path
from decoders.errors import DecodeError
from harness.trace import open_events

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def read(path):
    try:
        with open_events(path) as reader:
            for event in reader:
                pass
            for event in reader.events(1):
                pass
    except DecodeError as error:
        return str(error)
    return "no damage"

read(sys.argv[1])  # what any file costs
before = peak()
said = read(sys.argv[2])
print(peak() - before, said)
"""


def growth(good: Path, path: Path) -> tuple[int, str]:
    """Read a file in a fresh process; return the bytes it grew by, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(good), str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    number, _, said = done.stdout.partition(" ")
    return int(number), said


def forged_index(entries: object) -> bytes:
    blocks = preamble() + GOOD
    return blocks + index(entries, len(blocks))


INDEXES: dict[str, Callable[[], bytes]] = {
    "2^60 events": lambda: forged_index([[START, 0, 1 << 60, 0]]),
    "2^60 offset": lambda: forged_index([[1 << 60, 0, 2, 0]]),
    "2^32 entries": lambda: (
        preamble() + GOOD + index(None, START + len(GOOD), content=b"\xdd\xff\xff\xff\xff")
    ),
    "many entries": lambda: forged_index([[START, 0, 2, 0]] * 100_000),
    "deep entries": lambda: (
        preamble() + GOOD + index(None, START + len(GOOD), content=b"\x91" * (1 << 20))
    ),
    "not numbers": lambda: forged_index([["x", 0, 2, 0]]),
    "backwards": lambda: forged_index([[START, 0, 2, 9], [START + 40, 2, 2, 3]]),
    "bytes behind": lambda: preamble() + GOOD + index(None, START + len(GOOD), content=b"\x90\x90"),
    "too long": lambda: preamble() + GOOD + index(None, START + len(GOOD), content=bytes(5 << 20)),
}


@pytest.mark.parametrize("build", INDEXES.values(), ids=INDEXES.keys())
def test_forged_index_is_not_used(tmp_path: Path, build: Callable[[], bytes]) -> None:
    path = tmp_path / "forged.trace"
    path.write_bytes(build())
    with TraceReader(path) as reader:
        assert reader.index is None
        assert reader.index_problem is not None
        assert list(reader) == [Reset(), Clock(5)]
        assert list(reader.events(1)) == [Clock(5)]


def test_index_that_lies_within_bounds_is_dropped(tmp_path: Path) -> None:
    """Point into the middle of a block: entries pass every check, but no block is there."""
    path = tmp_path / "forged.trace"
    big = block(raw_events([[12, number * 7919] for number in range(60)]), 2, 60)
    blocks = preamble() + GOOD + big
    lies = [[START, 0, 2, 0], [START + len(GOOD) + 8, 2, 60, 5]]
    path.write_bytes(blocks + index(lies, len(blocks)))
    with TraceReader(path) as reader:
        assert reader.index is not None
        assert list(reader.events(30, 31)) == [Clock(28 * 7919)]
        assert reader.index is None
        assert reader.index_problem is not None


@pytest.mark.parametrize(
    "build", [build for build, _, _ in FORGED.values()] + list(INDEXES.values()),
    ids=[*FORGED, *(f"index of {name}" for name in INDEXES)],
)  # fmt: skip
def test_memory_stays_bounded(tmp_path: Path, build: Callable[[], bytes]) -> None:
    good, path = tmp_path / "good.trace", tmp_path / "forged.trace"
    good.write_bytes(preamble() + GOOD)
    path.write_bytes(build())
    grown, said = growth(good, path)
    assert grown < GROWTH, said


TITLE = b"dmarewind-text 1\n"
PLAIN = Header.from_map(PLAIN_HEADER).to_json().encode()
TEXTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "lists": (lambda: TITLE + b"header [" + b"[]," * 300_000 + b"[]]\n", "lists and maps"),
    "maps": (lambda: TITLE + b"header [" + b'{"":0},' * 140_000 + b"0]\n", "lists and maps"),
    "values": (lambda: TITLE + b"header [" + b"0," * 500_000 + b"0]\n", "or values"),
    "nested": (lambda: TITLE + b"header " + b"[" * 1_000_000 + b"\n", "lists and maps"),
    "wide": (
        lambda: TITLE + b'header {"a": "' + "\U0001f600".encode() * 250_000 + b'"}\n',
        "version: is missing",
    ),
    "quote": (lambda: TITLE + b'header "' + b"\\" * 1_000_000 + b"\n", "not JSON"),
    "quotes": (lambda: TITLE + b"header " + b'"\\' * 500_000 + b"\n", "not JSON"),
    "endless header": (lambda: TITLE + b"header " + b" " * (96 << 20), "more than"),
    "endless title": (lambda: b"dmarewind-text" + b"1" * (96 << 20), "more than"),
    "endless event": (
        lambda: TITLE + b"header " + PLAIN + b"\nreset\n" + b"x" * (96 << 20),
        f"more than {LINE_LIMIT}",
    ),
    "endless comment": (
        lambda: TITLE + b"header " + PLAIN + b"\n#" + b"x" * (96 << 20),
        f"more than {LINE_LIMIT}",
    ),
}


@pytest.mark.parametrize(("build", "problem"), TEXTS.values(), ids=TEXTS.keys())
def test_memory_stays_bounded_for_text(
    tmp_path: Path, build: Callable[[], bytes], problem: str
) -> None:
    good, path = tmp_path / "good.trace", tmp_path / "forged.txt"
    good.write_bytes(preamble() + GOOD)
    path.write_bytes(build())
    grown, said = growth(good, path)
    assert problem in said
    assert grown < GROWTH


def test_memory_is_measured(tmp_path: Path) -> None:
    """The largest legal block shows up in what is measured, so growth would."""
    good, path = tmp_path / "good.trace", tmp_path / "large.trace"
    good.write_bytes(preamble() + GOOD)
    raw = raw_events([[13, "x" * 4000]] * 1047)
    assert RAW_LIMIT - 8192 < len(raw) <= RAW_LIMIT
    path.write_bytes(preamble() + block(raw, 0, 1047))
    grown, said = growth(good, path)
    assert said.strip() == "no damage"
    assert RAW_LIMIT < grown < GROWTH


def test_ten_times_the_length_takes_no_more_memory(tmp_path: Path) -> None:
    paths = [tmp_path / "short.trace", tmp_path / "long.trace"]
    for path, blocks in zip(paths, (3, 30), strict=True):
        with TraceWriter.create(path, HEADER) as writer:
            for number in range(blocks * 20_000):
                writer.append(Clock(number * 4_000_000_000))
    program = PROGRAM.replace("print(", "print(peak(),")
    peaks = []
    for path in paths:
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert done.stdout.endswith("no damage\n")
        peaks.append(int(done.stdout.split()[0]))
    assert peaks[1] <= 1.1 * peaks[0]


def test_limit_of_address_space(tmp_path: Path) -> None:
    """Where the system gives no more, the bomb is refused all the same."""
    path = tmp_path / "forged.trace"
    path.write_bytes(FORGED["bomb"][0]())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True, preexec_fn=limit,
    )  # fmt: skip
    assert "frame does not hold" in done.stdout
