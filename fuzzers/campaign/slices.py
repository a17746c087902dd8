"""Do one slice of a campaign's work: fuzz a target, merge its corpus, check or shrink findings.

A slice goes to its worker as bytes and names, and comes back as bytes and numbers: the worker may
be a thread here or a process elsewhere (fuzzers.campaign.executors).
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fuzzers import instrumented
from fuzzers.campaign import shrinking
from fuzzers.campaign.files import is_full
from fuzzers.campaign.places import (
    ROUND,
    Place,
    Seen,
    findings_in,
    inputs_in,
    left_places,
    name_of,
    remove,
    working_place,
)
from fuzzers.command import write_dictionary
from fuzzers.findings import Findings
from fuzzers.jobs import Job, salvage_crashes
from fuzzers.target import FuzzTarget, target_named
from harness.errors import HarnessError

FUZZ, MERGE, CHECK, SHRINK = "fuzz", "merge", "check", "shrink"
"""What a slice does. CHECK runs inputs once; SHRINK makes the input of a finding smaller."""

HANDED: Final = "handed"
"""Kind of a result that a slice hands over before its end."""

_JOB, _FINDINGS = "job", "findings"
_PAUSE: Final = 0.1
_TROUBLE_KEPT: Final = 2000


@dataclass(frozen=True, slots=True)
class Slice:
    """Say what a worker has to do.

    wanted is the key of the finding to shrink.
    """

    kind: str
    target: str
    against: str
    seconds: float
    inputs: tuple[bytes, ...] = ()
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what came of a slice; of a merge, inputs are those that stay."""

    kind: str
    target: str
    place: str
    worker: str
    inputs: tuple[bytes, ...] = ()
    findings: tuple[Seen, ...] = ()
    seconds: float = 0.0
    executions: int = 0
    coverage: int = 0
    features: int = 0
    trouble: str = ""
    wanted: str = ""
    trace: str = ""
    """Of a finding that was shrunk, its smallest trace."""
    complete: bool = False
    """Whether all that was given was run, and the fuzzer ended by itself: only then does it mean
    something that a finding was not seen. Of SHRINK the first round does, if not stopped."""


@dataclass
class _Done:
    """Add up what jobs have done."""

    seconds: float = 0.0
    executions: int = 0
    coverage: int = 0
    features: int = 0
    trouble: list[str] = field(default_factory=list)
    complete: bool = False


Stopped = Callable[[], bool]
Look = Callable[[Place], None]


@functools.cache
def environment() -> dict[str, str]:
    """Return what fuzzers run in, after the instrumented core was built where it is stale."""
    instrumented.atheris_runtime()
    if instrumented.stale():
        instrumented.build()
    built = instrumented.module()
    assert built is not None
    return instrumented.environment(built)


def worker_name() -> str:
    """Return what names this process on any machine."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_slice(
    task: Slice, parent: Path, stopped: Stopped = lambda: False, look: Look = lambda _: None
) -> Result:
    """Do a slice in a place of its own, which stays until the result is kept.

    look is called all the time with the place.
    """
    with working_place(parent) as place:

        def over() -> bool:
            look(place)
            return stopped()

        return _work(task, place, over)


def salvage_all(parent: Path, acknowledged: frozenset[str]) -> list[Result]:
    """Return what slices that were killed have left; remove the places of those that are kept."""
    salvaged = []
    for place in left_places(parent):
        if place.name in acknowledged:
            remove(place.path)
            continue
        # Another slice may remove it meanwhile.
        with contextlib.suppress(OSError):
            salvaged.append(salvage(place))
    return salvaged


def salvage(place: Place) -> Result:
    """Return what a slice that did not come to its end has left; no target where it says little.

    A crash that nobody has looked at is looked at now.
    """
    kind, target, _ = place.about()
    if not target or kind == MERGE:
        return Result(CHECK, "", place.name, worker_name())
    for scratch in (place.path, *place.path.glob(f"{ROUND}*")):
        with contextlib.suppress(HarnessError, OSError):
            salvage_crashes(scratch / _JOB, target_named(target), Findings(scratch / _FINDINGS))
    inputs = place.new_inputs() if kind == FUZZ else ()
    inputs += place.unsettled()
    return Result(CHECK, target, place.name, worker_name(), inputs, place.left())


def _work(task: Slice, place: Place, stopped: Stopped) -> Result:
    done = _Done()
    merged = place.path / "merged"
    smallest: Seen | None = None
    trace = ""
    try:
        target = target_named(task.target)
        place.fill(task.kind, task.target, task.inputs)
        flags = [f"-max_len={target.max_size}", *write_dictionary(target, place.path / "words")]
        if task.kind == MERGE:
            merged.mkdir()
            flags += ["-merge=1", str(merged)]
        elif task.kind == CHECK:
            flags.append("-runs=0")
        if task.kind == SHRINK:
            smallest = _shrink(task, target, place, done, stopped)
            done.complete &= not stopped()
            if smallest is not None and done.complete:
                trace = shrinking.smallest_trace(
                    smallest, task.against, place.path, task.seconds, environment(), stopped
                )
                # What was cut short is done again.
                done.complete = not stopped()
                trace = trace if done.complete else ""
        else:
            done.complete = run_job(target, task.against, place.path, place.corpus, flags,
                                    task.seconds, done, stopped)  # fmt: skip
    except (HarnessError, OSError) as error:
        if is_full(error) and not done.seconds:
            raise  # It has not begun.
        done.trouble.append(str(error))
    inputs: Sequence[bytes] = ()
    if task.kind == FUZZ:
        inputs = place.new_inputs()
    elif task.kind == MERGE:
        inputs = tuple(inputs_in(merged))
        # A merge that went wrong is silent about it.
        if done.complete and task.inputs and not inputs:
            done.trouble.append("the merge kept nothing, and was not believed")
    if task.kind != MERGE:
        inputs = (*inputs, *place.unsettled())
    findings = (*([smallest] if smallest else ()), *place.seen())
    return Result(
        task.kind, task.target, place.name, worker_name(), tuple(inputs), findings,
        round(done.seconds, 3), done.executions, done.coverage, done.features,
        "; ".join(done.trouble)[:_TROUBLE_KEPT], task.wanted, trace, done.complete,
    )  # fmt: skip


def run_job(
    target: FuzzTarget, against: str, scratch: Path, corpus: Path, flags: Sequence[str],
    seconds: float, done: _Done, stopped: Stopped,
) -> bool:  # fmt: skip
    """Run a fuzzer until its time is over, it ends, or it is stopped; say whether it has done all.

    Errors: HarnessError when fuzzing cannot go on.
    """
    began = time.monotonic()
    deadline = began + seconds
    temporary = scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    job = Job(
        target, against, corpus, Findings(scratch / _FINDINGS), flags,
        environment() | {"TMPDIR": str(temporary)}, scratch / _JOB,
    )  # fmt: skip
    try:
        job.start(deadline)
        while job.poll(deadline) and not stopped():
            time.sleep(_PAUSE)
    finally:
        try:
            job.stop()
        finally:
            done.seconds += time.monotonic() - began
            done.executions += job.executions
            done.coverage = max(done.coverage, job.coverage)
            done.features = max(done.features, job.features)
    return job.complete


def _shrink(
    task: Slice, target: FuzzTarget, place: Place, done: _Done, stopped: Stopped
) -> Seen | None:
    """Return a smaller input with the wanted signature, None when it was not seen.

    Whether the first round came to its end says what that means.
    """
    deadline = time.monotonic() + task.seconds

    def shown(candidates: Sequence[bytes]) -> Seen | None:
        """Run candidates; return the first that shows what is wanted."""
        scratch = place.path / f"{ROUND}{next(rounds)}"
        scratch.mkdir()
        corpus = scratch / "corpus"
        corpus.mkdir()
        for data in candidates:
            (corpus / name_of(data)).write_bytes(data)
        left = deadline - time.monotonic()
        if left <= 0:
            return None

        def found() -> bool:
            return stopped() or _wanted(scratch / _FINDINGS, task.wanted) is not None

        flags = [f"-max_len={target.max_size}", "-runs=0"]
        ended = False
        try:
            ended = run_job(target, task.against, scratch, corpus, flags, left, done, found)
        except HarnessError as error:
            # Where it goes round in circles, or does not begin, what it found counts.
            troubles.append(str(error))
        others = Findings(place.findings)
        for seen in findings_in(scratch / _FINDINGS):
            if seen.signature.key != task.wanted:
                others.adopt(target, seen.data, seen.signature, seen.text)
        best = _wanted(scratch / _FINDINGS, task.wanted)
        done.complete |= ended or best is not None
        return best

    rounds: Iterator[int] = iter(range(1 << 20))
    troubles: list[str] = []
    best = shrinking.shrink(task.inputs[0], shown, lambda: stopped() or time.monotonic() > deadline)
    if not done.complete:
        done.trouble += troubles
    return best


def _wanted(directory: Path, key: str) -> Seen | None:
    if not directory.is_dir():
        return None
    return next((one for one in findings_in(directory) if one.signature.key == key), None)
