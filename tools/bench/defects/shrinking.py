"""Make the input that found a defect small, in a process with the defect planted.

`python -m tools.bench.defects.shrinking DEFECT TARGET INPUT FORKS` prints one JSON object.
Inputs that are events go through `harness.minimise`, model against core; the others, and what only
the target's own judgement sees, lose bytes. Where a defect crashes the core, or hangs, each
candidate is run in a forked child, which is much cheaper than a process of libFuzzer's for each.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from fuzzers.campaign.shrinking import candidates
from fuzzers.findings import signature_of
from fuzzers.target import FuzzTarget, Traced, target_named
from harness.errors import HarnessError
from harness.minimise.engine import Options, minimise
from harness.minimise.judges import DisagreementJudge, Judge, Shown
from harness.minimise.trace import Trace
from harness.native.loading import core
from harness.signature import CRASH, HANG, Signature

_RUNS: Final = 1500
_SECONDS: Final = 60.0
_HANG_SECONDS: Final = 3

T = TypeVar("T")


def main(argv: Sequence[str]) -> int:
    """Minimise one input; print its size in events or bytes."""
    defect, name, path, forked = argv
    core().plant(defect)
    target = target_named(name)
    data = Path(path).read_bytes()
    forks = forked == "1"
    least = _fewest_events(target, data, forks) if isinstance(target, Traced) else None
    unit = "events"
    if least is None:
        least, unit = len(_fewest_bytes(target, data, forks)), "bytes"
    print(json.dumps({"least": least, "unit": unit}))
    return 0


def _fewest_events(target: Traced, data: bytes, forks: bool) -> int | None:
    """Return how many events are left; None where the judge of traces sees nothing."""
    header, events = target.events(data)
    judge: Judge = _ForkingJudge(DisagreementJudge()) if forks else DisagreementJudge()
    try:
        result = minimise(Trace(header, tuple(events)), judge, Options(budget=_RUNS, loose=True))
    except HarnessError:
        return None
    return len(result.trace.events)


def _fewest_bytes(target: FuzzTarget, data: bytes, forks: bool) -> bytes:
    """Return the smallest input that still shows what the first one does."""
    runner = target.runner(target.against[0])

    def shown(one: bytes) -> Signature | None:
        try:
            runner(one)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
            return signature_of(error, "")[0]
        return None

    def ask(one: bytes) -> Signature | None:
        return _forked(lambda: shown(one), lambda ended: ended) if forks else shown(one)

    wanted, best, left = ask(data), data, _RUNS
    deadline = time.process_time() + _SECONDS
    while wanted is not None:
        smaller = None
        for one in candidates(best):
            left -= 1
            if left < 0 or time.process_time() > deadline:
                return best
            if ask(one) == wanted:
                smaller = one
                break
        if smaller is None:
            break
        best = smaller
    return best


class _ForkingJudge:
    """Let a judge work in a child that may crash or hang."""

    repeatable = True

    def __init__(self, judge: Judge) -> None:
        self.name, self._judge = judge.name, judge

    @property
    def identity(self) -> Sequence[str]:
        """Return that of the judge."""
        return self._judge.identity

    def __call__(self, trace: Trace) -> list[Shown]:
        return _forked(lambda: self._judge(trace), lambda ended: [Shown(ended)])


def _forked(work: Callable[[], T], ended: Callable[[Signature], T]) -> T:
    """Return what work returns, done in a child; or what `ended` makes of a child's end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_HANG_SECONDS)
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(work(), stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        answer: T = pickle.loads(said)  # of our own child
        return answer
    hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return ended(Signature(HANG if hung else CRASH))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
