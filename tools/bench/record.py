"""Recording a boot against booting alone, and the trace's size against the packed QEMU log."""

from __future__ import annotations

import lzma
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.bench.ratio import Ratio
from tools.guest.__main__ import prepare

CONFIGURATIONS = ("legacy-strict", "scalable-first-stage")
SLOWDOWN = 2.5
SIZE = 4.0
RUNS = 2


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _one(name: str, folder: Path) -> list[Ratio]:
    guest = prepare(name, run="bench")
    trace, log = folder / f"{name}.trace", folder / f"{name}.log"
    recorder = [sys.executable, "-m", "harness", "-q", "record", "-o", str(trace)]
    plain = min(_seconds(guest) for _ in range(RUNS))
    recorded = min(_seconds([*recorder, "--", *guest]) for _ in range(RUNS))
    # Once more with its log. What is packed are QEMU's own lines, without the recorder's.
    _seconds([*recorder, "--keep-log", str(log), "--", *guest])
    lines = (line for line in log.read_bytes().splitlines(True) if not line.startswith(b"dmr "))
    packed = len(lzma.compress(b"".join(lines), preset=9))
    size = trace.stat().st_size
    return [
        Ratio(
            f"record: {name} over plain TCG",
            recorded / plain,
            f"{recorded:.1f} s",
            f"{plain:.1f} s",
            SLOWDOWN,
            at_most=True,
        ),
        Ratio(
            f"record: {name} trace over xz -9 of the log",
            size / packed,
            f"{size} bytes",
            f"{packed} bytes",
            SIZE,
            at_most=True,
        ),
    ]


def run(traces: list[Path]) -> list[Ratio]:
    """Measure on guests of its own; traces are not used."""
    del traces
    with tempfile.TemporaryDirectory() as folder:
        return [ratio for name in CONFIGURATIONS for ratio in _one(name, Path(folder))]
