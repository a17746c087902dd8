"""Formats are recognised by how a file begins, and a capture is read as it streams."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from decoders.capture import CHUNK, FORMATS, HEAD, detect, open_capture
from decoders.errors import DecodeError
from decoders.events import RegWrite, Reset
from tests.writers.elf import Core

GOLDEN = Path(__file__).parents[2] / "golden"


def test_detection() -> None:
    for path in GOLDEN.glob("q*.log"):
        name = detect(path.read_bytes()[:HEAD])
        assert name == ("qtest-log" if path.name == "qtest.log" else "qemu-log")
    assert detect(Core().bytes()) == "elf-core"
    assert detect(b"") is None
    assert detect(b"\x7fELF") is None
    assert detect(bytes(range(256)) * 256) is None
    assert len({known.name for known in FORMATS}) == len(FORMATS)


def test_a_file_of_no_known_format(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    with pytest.raises(DecodeError, match="in no known format"):
        open_capture(path)
    path.write_bytes(Core().bytes())
    with pytest.raises(DecodeError, match="memory image"):
        open_capture(path)
    with pytest.raises(FileNotFoundError):
        open_capture(tmp_path / "none")


def test_a_capture(tmp_path: Path) -> None:
    capture = open_capture(GOLDEN / "qemu-legacy-strict.log")
    hints = {"format": "qemu-log", "time": "none", "recorder": "1", "dialect": "qemu-10.0"}
    assert capture.header_hints == hints
    assert capture.lines == 0
    first = list(capture.events())
    counts = capture.counts
    assert capture.lines == 263 == counts.total() + capture.blank
    assert list(capture.events()) == first
    assert capture.counts == counts
    assert capture.header_hints == hints
    assert capture.internal["vtd_inv_qi_head"] == counts["vtd_inv_qi_head"]
    assert open_capture(str(GOLDEN / "qtest.log")).header_hints == {
        "format": "qtest-log",
        "dialect": "qemu",
    }


def test_hints_improve_with_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"vtd_inv_qi_fetch \n" * (HEAD // 16) + b"vtd_pasid_cache_reset \n")
    capture = open_capture(path)
    assert capture.header_hints["dialect"] == "qemu"
    assert list(capture.events()) == []
    assert capture.header_hints["dialect"] == "qemu-11.0"


def test_what_was_not_understood_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"vtd_reset_exit \nnoise\nvtd_frr_new index\nmore\n")
    capture = open_capture(path)
    assert len(list(capture.events())) == 2
    assert [(sample.line, sample.text) for sample in capture.samples] == [
        (2, "noise"),
        (3, "vtd_frr_new index"),
        (4, "more"),
    ]
    assert (capture.unknown, capture.malformed) == ({"noise": 1, "more": 1}, {"vtd_frr_new": 1})


def test_events_stream(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"vtd_reg_write addr 0x20 size 0x8 value 0x1\n"
    path.write_bytes(b"vtd_reset_exit \n" + line * (4 * CHUNK // len(line)))
    capture = open_capture(path)
    events = capture.events()
    assert list(islice(events, 2)) == [Reset(), RegWrite(0x20, 8, 1)]
    assert capture.lines < CHUNK // len(line)
    events.close()  # type: ignore[attr-defined]
