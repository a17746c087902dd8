"""What a slice that was cut short did not see, is still there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzzers import jobs
from fuzzers.campaign import slices
from fuzzers.campaign.slices import CHECK, FUZZ, MERGE, SHRINK, Result, Slice, Stopped, run_slice
from fuzzers.campaign.state import State
from fuzzers.findings import Findings
from fuzzers.jobs import Job
from fuzzers.target import target_named
from harness.errors import HarnessError
from tests.fuzzers.campaign.chores import TARGET, seen, signature

A, B = signature(1).key, signature(2).key
SECONDS = 30.0


class Fuzzer:
    """Stand for a fuzzer, which shows B, and either comes to its end or goes on for ever."""

    coverage = features = 0
    executions = 1

    def __init__(self, ends: bool, *words: Any) -> None:
        self._target, _, _, self._findings, *_ = words
        self.complete, self._ends = False, ends

    def start(self, deadline: float) -> None:
        pass

    def poll(self, deadline: float) -> bool:
        self._findings.add(self._target, b"b", signature(2), "it said no")
        self.complete = self._ends
        return not self._ends and time.monotonic() < deadline

    def stop(self) -> None:
        pass


class Unfit(Fuzzer):
    def poll(self, deadline: float) -> bool:
        raise HarnessError("it does not begin")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Return one with A and B, of which the fuzzer shows B."""
    made = State(tmp_path)
    made.begin(TARGET, "none", (b"seed",))
    made.take(Result(FUZZ, TARGET, "place", "worker", (), (seen(1, b"a"), seen(2, b"b"))))
    yield made
    made.close()


Do = Callable[..., dict[str, str]]


@pytest.fixture
def do(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """Do a slice with such a fuzzer; return the states of findings."""
    monkeypatch.setattr(slices, "environment", dict)
    monkeypatch.setattr(slices, "_PAUSE", 0.001)

    def run(
        task: Slice, *, ends: bool, fuzzer: type[Fuzzer] = Fuzzer, stopped: Stopped = lambda: False
    ) -> dict[str, str]:
        monkeypatch.setattr(slices, "Job", lambda *words: fuzzer(ends, *words))
        state.take(run_slice(task, tmp_path / "work", stopped), task)
        return {row["key"]: row["state"] for row in state.findings()}

    return run


def check(seconds: float = SECONDS) -> Slice:
    return Slice(CHECK, TARGET, "none", seconds, (b"a", b"b"))


def shrinking(key: str, seconds: float = SECONDS) -> Slice:
    return Slice(SHRINK, TARGET, "none", seconds, (b"a" if key == A else b"b",), key)


def test_a_whole_check_tells_what_is_gone(do: Do) -> None:
    assert do(check(), ends=True) == {A: "gone", B: "new"}


@pytest.mark.parametrize(
    ("seconds", "stopped"), [(SECONDS, True), (0.05, False)], ids=["stopped", "out of time"]
)
def test_what_was_cut_short_says_nothing(do: Do, seconds: float, stopped: bool) -> None:
    for task in (check(seconds), shrinking(A, seconds)):
        assert do(task, ends=False, stopped=lambda: stopped) == {A: "new", B: "new"}, task.kind


def test_what_does_not_show_is_unstable_until_it_does(do: Do, state: State) -> None:
    assert do(shrinking(A), ends=True) == {A: "unstable", B: "new"}
    assert do(shrinking(B), ends=True) == {A: "unstable", B: "minimised"}
    showing = Result(CHECK, TARGET, "place", "worker", (), (seen(1, b"a"),), complete=True)
    state.take(showing, Slice(CHECK, TARGET, "none", 1, (b"a",)))
    assert {row["key"]: row["state"] for row in state.findings()}[A] == "new"


def test_shrinking_that_is_stopped_is_done_again(do: Do) -> None:
    assert do(shrinking(B), ends=False, stopped=lambda: True) == {A: "new", B: "new"}


def test_a_fuzzer_that_does_not_begin_says_nothing_of_a_finding(do: Do, state: State) -> None:
    assert do(shrinking(A), ends=False, fuzzer=Unfit) == {A: "new", B: "new"}
    assert state.targets()[0]["trouble"] == "it does not begin"


def test_a_merge_that_was_cut_short_is_not_believed(state: State) -> None:
    state.take(Result(FUZZ, TARGET, "place", "worker", (b"one", b"two")))
    task = Slice(MERGE, TARGET, "none", 1, state.corpus(TARGET))
    state.take(Result(MERGE, TARGET, "place", "worker", (b"one",)), task)
    assert set(state.corpus(TARGET)) == {b"seed", b"one", b"two"}


# --- which processes have done all there is to do ------------------------------------------------


@pytest.mark.parametrize(("code", "complete"), [("", True), ("import time; time.sleep(60)", False)])
def test_a_job_is_complete_when_it_ended_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complete: bool
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(jobs, "with_hooks", lambda environment, *_: environment)
    target = target_named(TARGET)
    made = Job(target, "none", tmp_path, Findings(tmp_path / "f"), (), {}, tmp_path / "job")
    deadline = time.monotonic() + (60 if complete else 0)
    monkeypatch.setattr(jobs, "_GRACE", 0.1)
    made.start(deadline)
    while made.poll(deadline):
        time.sleep(0.01)
    assert made.complete == complete
