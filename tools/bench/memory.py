"""Peak memory of a replay, of one trace and of the same ten times over."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.trace import TraceReader, TraceWriter
from tools.bench.ratio import Ratio

LONGER = 10
LIMIT = 1.1

_CHILD = """
import sys
from pathlib import Path
from tools.bench.replay import replay
replay(Path(sys.argv[1]), sys.argv[2])
# Not ru_maxrss: that one is inherited from the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def lengthen(path: Path, out: Path, times: int) -> None:
    """Write a trace that holds the events of another one several times over."""
    with TraceReader(path) as trace, TraceWriter.create(out, trace.header) as writer:
        for _ in range(times):
            for event in trace.events():
                writer.append(event)


def _peak(path: Path, target: str) -> int:
    """Return the peak resident size in KiB of replaying a trace in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), target],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(json.loads(done.stdout))


def run(traces: list[Path]) -> list[Ratio]:
    """Measure on the first trace, for both targets."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "long.trace"
        lengthen(traces[0], long, LONGER)
        for target in ("native", "model"):
            once, ten = _peak(traces[0], target), _peak(long, target)
            ratios.append(
                Ratio(
                    f"memory: {target}, a trace {LONGER} times longer",
                    ten / once,
                    f"{ten / 1024:.1f} MiB",
                    f"{once / 1024:.1f} MiB",
                    LIMIT,
                    at_most=True,
                )
            )
    return ratios
