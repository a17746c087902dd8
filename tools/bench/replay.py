"""Native replay against msgpack merely streaming the same events, and against the model."""

from __future__ import annotations

from pathlib import Path

import msgpack

from harness.replay import unit_config
from harness.targets import target_named
from harness.trace import TraceReader
from tools.bench.ratio import Ratio, best_of

NATIVE_OVER_STREAM = 0.5
NATIVE_OVER_MODEL = 100.0
RUNS = 5


def _events(path: Path) -> int:
    with TraceReader(path) as trace:
        return sum(block.events for block in trace.blocks())


def _stream(path: Path) -> int:
    """Decompress the blocks and let msgpack unpack every event, nothing more."""
    count = 0
    with TraceReader(path) as trace:
        for block in trace.blocks():
            unpacker = msgpack.Unpacker()
            unpacker.feed(block.raw)
            for _ in unpacker:
                count += 1
    return count


def replay(path: Path, target: str) -> int:
    """Replay a trace from file to verdict; return the number of its events."""
    with TraceReader(path) as trace:
        applied = target_named(target, unit_config(trace.header))
        for block in trace.blocks():
            applied.feed(block)
        applied.finish()
        return applied.counters().events


def run(traces: list[Path]) -> list[Ratio]:
    """Measure file to verdict over all traces."""
    events = sum(_events(path) for path in traces)
    native = best_of(RUNS, lambda: [replay(path, "native") for path in traces])
    stream = best_of(RUNS, lambda: [_stream(path) for path in traces])
    model = best_of(1, lambda: [replay(path, "model") for path in traces])

    def rate(seconds: float) -> str:
        return f"{events / seconds / 1e6:.2f} M events/s"

    return [
        Ratio(
            "replay: native over msgpack.Unpacker",
            stream / native,
            rate(native),
            rate(stream),
            NATIVE_OVER_STREAM,
            at_most=False,
        ),
        Ratio(
            "replay: native over model",
            model / native,
            rate(native),
            rate(model),
            NATIVE_OVER_MODEL,
            at_most=False,
        ),
    ]
