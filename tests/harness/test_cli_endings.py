"""A request to end the program leaves no unfinished file behind; what is damaged is named alike."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import zstandard

from decoders.events import Clock
from harness import cli
from harness.trace import TraceWriter
from harness.trace.codec import Encoder
from tests.harness.trace.samples import EVENTS, HEADER, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_draft(tmp_path: Path, number: int) -> None:
    source, output = tmp_path / "long.trace", tmp_path / "out.txt"
    with TraceWriter.create(source, HEADER) as writer:
        for moment in range(400_000):
            writer.append(Clock(moment))
    command = [sys.executable, "-m", "harness", "convert", str(source), "-o", str(output)]
    # Under nohup the signal would be ignored, which a child inherits and has to respect.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, cwd=ROOT)
    finally:
        signal.signal(number, before)
    with process:
        while len(list(tmp_path.iterdir())) == 1 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.fixture(params=["content", "more", "fewer"])
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """Make a trace whose only block is damaged within; return it with what is said of that."""
    whole, path = tmp_path / "whole.trace", tmp_path / "damaged.trace"
    write(whole)
    content = whole.read_bytes()
    start = content.index(b"DMBK")
    encoder = Encoder()
    raw = b"".join(map(encoder.encode, EVENTS[:3]))
    claimed, said = 3, f"trace.block[0].event[3]: |, at offset {start:#x}"
    if request.param == "content":
        raw, claimed = raw + b"\xc1\xc1", 4
    elif request.param == "more":
        claimed, said = (
            2,
            f"trace.block[0].events: |2 claimed, the block holds more, at offset {start:#x}",
        )
    else:
        claimed, said = (
            4,
            f"trace.block[0].events: |4 claimed, the block holds 3, at offset {start:#x}",
        )
    payload = zstandard.ZstdCompressor().compress(raw)
    head = b"DMBK" + struct.pack("<IIQI", len(payload), len(raw), 0, claimed)
    crc = struct.pack("<I", zlib.crc32(head + payload))
    path.write_bytes(content[:start] + head + crc + payload)
    return path, said


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        ("check",),
        ("stats",),
        ("replay", "--target", "model"),
        ("replay", "--target", "native"),
    ],
    ids="-".join,
)
def test_damage_inside_a_block_is_named_alike(
    damaged: tuple[Path, str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path, said = damaged
    assert cli.main([*words, str(path)]) == 2
    error = capsys.readouterr().err
    where, what = said.split("|")
    assert error.startswith(f"error: {path}: {where}"), error
    assert what in error and "`dmarewind convert` keeps the events before it" in error
