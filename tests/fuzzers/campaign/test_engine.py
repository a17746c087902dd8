"""The loop goes on whatever becomes of slices, but for when nothing does any more."""

from __future__ import annotations

import argparse
import errno
import json
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from fuzzers.campaign import engine
from fuzzers.campaign.engine import Campaign, Options
from fuzzers.campaign.executors import Local, Work
from fuzzers.campaign.slices import CHECK, FUZZ, HANDED, SHRINK, Look, Result, Slice, Stopped
from fuzzers.campaign.state import State
from fuzzers.campaign.status import Teller
from harness.errors import HarnessError
from tests.fuzzers.campaign.chores import TARGET, make_up, seen, signature

FULL = OSError(errno.ENOSPC, "No space left on device")


class Failing(Local):
    """Let slices fail, so many times, before one is done; hand something over."""

    def __init__(self, work: Path, error: Exception, times: int) -> None:
        super().__init__(work, 1, make_up)
        self._error, self._left = error, times
        self.over: list[Result] = []
        self.kept: list[str] = []

    def submit(self, task: Slice) -> Any:
        if self._left == 0:
            return super().submit(task)
        self._left -= 1
        made: Future[Any] = Future()
        made.set_exception(self._error)
        return made

    def handed(self) -> list[Result]:
        over, self.over = self.over, []
        return over

    def acknowledge(self, result: Result) -> None:
        self.kept.append(result.place)
        super().acknowledge(result)


class Noting(Local):
    """Note what it is asked to do."""

    def __init__(self, work: Path, workers: int, do: Work) -> None:
        super().__init__(work, workers, do)
        self.tasks: list[Slice] = []

    def submit(self, task: Slice) -> Any:
        self.tasks.append(task)
        return super().submit(task)


def run(
    directory: Path, executor: Failing, capsys: pytest.CaptureFixture[str], seconds: float = 5
) -> list[dict[str, Any]]:
    """Run a campaign; return what it has told."""
    state = State(directory)
    try:
        args = argparse.Namespace(json=True, quiet=False, color="never")
        options = Options({TARGET: "none"}, 0.5, time.monotonic() + seconds)
        Campaign(state, executor, options, Teller(args, directory, [TARGET])).run()
    finally:
        executor.close()
        state.close()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_slice_without_room_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "_RETRY", 0.01)
    monkeypatch.setattr(engine, "_PAUSE", 0.01)
    events = run(tmp_path, Failing(tmp_path / "work", FULL, engine._LOST_MOST + 5), capsys)
    told = [event["event"] for event in events]
    assert told.index("full") < told.index("room") < told.index("slice")
    assert "lost" not in told


def test_when_no_slice_comes_back_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "_PAUSE", 0.01)
    executor = Failing(tmp_path / "work", RuntimeError("it died"), engine._LOST_MOST)
    with pytest.raises(HarnessError, match="no slice comes back any more: it died"):
        run(tmp_path, executor, capsys, 60)


def test_what_is_handed_over_is_kept_while_its_slice_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = Failing(tmp_path / "work", FULL, 0)
    executor.over = [Result(HANDED, TARGET, "elsewhere", "worker", (b"early",), (seen(99),))]
    events = run(tmp_path, executor, capsys, 0.5)
    (found,) = (event for event in events if event["event"] == "finding"
                and event["signature"]["key"] == signature(99).key)  # fmt: skip
    assert found["target"] == TARGET
    assert "elsewhere" not in executor.kept, "its place would be removed before the slice ended"
    assert {event["kind"] for event in events if event["event"] == "slice"} <= {FUZZ, "shrink"}
    state = State(tmp_path)
    assert b"early" in state.corpus(TARGET)
    state.close()


def cut_short(task: Slice, parent: Path, stopped: Stopped, look: Look) -> Result:
    """Do nothing of a slice."""
    return Result(task.kind, task.target, "place", "worker", executions=1, wanted=task.wanted)


def test_shrinking_that_never_ends_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_PAUSE", 0.001)
    state = State(tmp_path)
    state.begin(TARGET, "none", ())
    findings = tuple(seen(number, bytes([number])) for number in range(3))
    state.take(Result(FUZZ, TARGET, "place", "worker", (), findings))
    executor = Noting(tmp_path / "work", 1, cut_short)
    args = argparse.Namespace(json=True, quiet=True, color="never")
    options = Options({TARGET: "none"}, 0.01, time.monotonic() + 2, shrink_seconds=1)
    Campaign(state, executor, options, Teller(args, tmp_path, [TARGET])).run()
    assert {row["state"] for row in state.findings()} == {"new"}, "what was cut short counted"
    state.close()
    tried = [task.wanted for task in executor.tasks if task.kind == SHRINK]
    assert len({*tried[:3]}) == 3, "one was tried again before all others"
    assert set(Counter(tried).values()) == {engine._TRIES}


def test_checks_take_turns_with_fuzzing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "_PAUSE", 0.01)
    names = [TARGET, "planted", "viot"]
    for name in names:
        state = State(tmp_path)
        state.begin(name, "none", ())
        state.take(Result(FUZZ, name, "place", "worker", (), (seen(1),), 1.0, 100))
        state.close()
    executor = Failing(tmp_path / "work", FULL, 0)
    state = State(tmp_path)
    args = argparse.Namespace(json=True, quiet=False, color="never")
    options = Options(dict.fromkeys(names, "none"), 0.5, time.monotonic() + 5)
    Campaign(state, executor, options, Teller(args, tmp_path, names)).run()
    state.close()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["kind"] for event in events if event["event"] == "slice"]
    assert kinds.count(CHECK) == len(names), "not all that is kept was checked"
    last = len(kinds) - 1 - kinds[::-1].index(CHECK)
    assert kinds[:last].count(FUZZ) >= len(names) - 1, f"checks came first: {kinds}"
