"""Kill a writer at random moments: what it had flushed is there, and writing can go on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decoders.errors import DecodeError
from decoders.events import Clock, Event, Gap
from harness.trace import TraceReader, TraceWriter

ROOT = Path(__file__).parents[3]

PROGRAM = """
import random, sys
from decoders.events import Clock, Gap
from harness.trace import Header, TraceWriter

generator = random.Random(1)
writer = TraceWriter.create(sys.argv[1], Header())
number = 0
while True:
    # Text that does not shrink, so that a block takes a while to be written.
    writer.append(Clock(number) if number % 2 else Gap(generator.randbytes(1500).hex()))
    number += 1
    if number % 50 == 0:
        writer.flush()
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


def intact(path: Path) -> list[Event]:
    found: list[Event] = []
    with TraceReader(path) as reader:
        try:
            for event in reader:
                found.append(event)
        except DecodeError as error:
            # Cut off, and nothing else.
            assert "file ends inside" in error.problem
        assert reader.index is None
    return found


@pytest.mark.parametrize("seed", range(12))
def test_kill(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "killed.trace"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.2))
        process.kill()
        said = process.stdout.read().split()
    found = intact(path)
    assert len(found) % 50 == 0
    assert len(found) >= int(said[-1] if said else 50), "what was flushed is there"
    for number, event in enumerate(found):
        assert event == Clock(number) if number % 2 else isinstance(event, Gap)
    with TraceWriter.append_to(path) as writer:
        assert writer.events == len(found)
        writer.append(Clock(1 << 40))
    with TraceReader(path) as reader:
        assert list(reader) == [*found, Clock(1 << 40)]
        assert reader.index is not None
