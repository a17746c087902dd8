"""Make the input of a finding smaller, whatever it consists of, and its trace where it has one.

Any process may crash at any candidate, so that a round is one of libFuzzer's runs over a directory
of candidates, of which the smallest is run first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from fuzzers.campaign.places import Seen
from fuzzers.target import BARE, QEMU
from harness.minimise.command import DIFFERING, DISAGREEING
from harness.signature import DISAGREEMENT, Signature
from harness.trace import VIRTIO, Header, open_events

CANDIDATES: Final = 128
"""Candidates of one round."""
TRACE_BUDGET: Final = {DISAGREEING: 1000, DIFFERING: 100, QEMU: 100}
"""Runs of the judge that minimises a trace."""
_PAUSE: Final = 0.2
_ENDING: Final = 5.0
_PROBLEM_KEPT: Final = 500
_HEAD: Final = 2
"""Lines of a trace's text in front of its events."""

_HEADING: Final = "as a trace:\n\n"
_UNJUDGED: Final = "no judge of `dmarewind minimise` sees this finding"

Shown = Callable[[Sequence[bytes]], Seen | None]


def shrink(data: bytes, shown: Shown, over: Callable[[], bool]) -> Seen | None:
    """Return the smallest input that was found to show the finding; None when none does."""
    best = shown([data])
    while best is not None and not over():
        smaller = None
        todo = candidates(best.data)
        while smaller is None and (some := list(islice(todo, CANDIDATES))) and not over():
            smaller = shown(some)
        if smaller is None:
            break
        best = smaller
    return best


def candidates(data: bytes) -> Iterator[bytes]:
    """Yield inputs that are smaller: without a part, the largest first, or with zeros in it."""
    tried = {data}
    for zeros in (False, True):
        size = len(data)
        while size:
            for start in range(0, len(data), size):
                part = data[start : start + size]
                one = data[:start] + (bytes(len(part)) if zeros else b"") + data[start + size :]
                if one not in tried:
                    tried.add(one)
                    yield one
            size //= 2


def smallest_trace(
    seen: Seen, against: str, scratch: Path, seconds: float, environment: Mapping[str, str],
    over: Callable[[], bool],
) -> str:  # fmt: skip
    """Return the trace of a finding, minimised where something can judge traces; may be empty.

    What fuzzers run in is given: the core that they ran is the one that has to show it. Where it
    cannot be minimised, or that is over first, a remark says why.
    """
    _, _, trace = seen.text.partition(_HEADING)
    if not trace:
        return ""
    before, after = scratch / "found.txt", scratch / "small.txt"
    # A real unit is a program of its own, which does not run in that.
    where = {**os.environ, "PYTHONPATH": environment["PYTHONPATH"]}
    try:
        before.write_text(trace.rstrip("\n") + "\n")
        with open_events(before) as source:
            judge = judge_of(seen.signature, against, source.header)
        if not judge:
            return _remarked(trace, f"not minimised: {_UNJUDGED}")
        if judge[0] == DISAGREEING:
            where = dict(environment)
        words = [
            *(sys.executable, "-m", "harness", "--json", "minimise", str(before)),
            *("-o", str(after), "--target", *judge, "--budget", str(TRACE_BUDGET[judge[0]])),
            # A pair parts once; how, is put into coarser words there.
            *(() if judge[0] == DISAGREEING else ("--signature", seen.signature.key)),
        ]
        done = _run(words, where, seconds, over)
        if done is None:
            problem = "stopped" if over() else f"not done after {seconds:.0f} s"
        elif done.returncode == 0:
            cause = json.loads(done.stdout.splitlines()[-1])["cause"]
            return _remarked(after.read_text(), cause)
        else:
            problem = done.stderr.strip()[-_PROBLEM_KEPT:]
    except (DecodeError, OSError, ValueError, KeyError, IndexError) as error:
        problem = str(error)
    return _remarked(trace, f"not minimised: {problem}")


def _run(
    words: Sequence[str], environment: Mapping[str, str], seconds: float, over: Callable[[], bool]
) -> subprocess.CompletedProcess[str] | None:
    """Run a program; None when it was ended, because that is over or it takes too long."""
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while time.monotonic() < deadline and not over():
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=_PAUSE)
                return subprocess.CompletedProcess(words, process.returncode, out, err)
        process.terminate()  # It ends its QEMU.
        try:
            process.communicate(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
    return None


def _remarked(trace: str, remark: str) -> str:
    """Return a trace with a remark behind its title and header, where one may stand."""
    lines = trace.splitlines(keepends=True)
    said = [f"# {line}\n" for line in remark.splitlines()]
    return "".join([*lines[:_HEAD], *said, *lines[_HEAD:]])


def judge_of(signature: Signature, against: str, header: Header) -> tuple[str, ...]:
    """Return which judge of `dmarewind minimise` sees a finding, and its options; () for none."""
    if against in (QEMU, BARE) and any(unit.kind == VIRTIO for unit in header.units):
        return (QEMU,)
    if against == QEMU:
        return (DIFFERING,)
    if against == BARE:
        return DIFFERING, "--no-deviations"
    return (DISAGREEING,) if signature.kind == DISAGREEMENT else ()
