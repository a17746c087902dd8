"""The gate: repeats and larger traces cost nothing, a killed run goes on, doubt is counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from decoders.events import Clock
from harness.errors import HarnessError
from harness.minimise.deletion import applied, deleted
from harness.minimise.gate import BudgetSpentError, Gate, Journal, Reliability
from harness.minimise.judges import Shown
from harness.minimise.trace import Trace
from harness.signature import Signature
from harness.trace import Header

TARGET = Signature("divergence", "Access")
OTHER = Signature("stale-use", "Access")


class Numbers:
    """A judge of traces of clocks, which counts what it is asked."""

    name = "numbers"
    identity = ("numbers",)
    repeatable = True

    def __init__(self, shows: Callable[[set[int]], bool], *more: Signature) -> None:
        self._shows = shows
        self._more = more
        self._lock = threading.Lock()
        self.asked = 0

    def __call__(self, trace: Trace) -> list[Shown]:
        with self._lock:
            self.asked += 1
        found = {e.microseconds for e in trace.events if isinstance(e, Clock)}
        shown = [TARGET, *self._more] if self._shows(found) else []
        return [Shown(one) for one in shown]


def clocks(*numbers: int) -> Trace:
    return Trace(Header(), tuple(Clock(number) for number in numbers))


def gate(judge: Numbers, count: int, budget: int = 10_000, journal: Journal | None = None) -> Gate:
    return Gate(
        judge, TARGET, frozenset({TARGET}), clocks(*range(count)),
        journal or Journal(None, []), budget,
    )  # fmt: skip


def shrink(one: Gate, count: int) -> list[int]:
    def make(gone: object) -> Trace:
        assert isinstance(gone, set | frozenset)
        return clocks(*(n for n in range(count) if n not in gone))

    return deleted(range(count), make, one)


@pytest.mark.parametrize("needed", [{0}, {599}, {0, 1, 2}, {17, 300, 301, 550}, set(range(40, 60))])
@pytest.mark.parametrize("jobs", [1, 3])
def test_what_is_needed_is_left_in_few_runs(needed: set[int], jobs: int) -> None:
    judge = Numbers(needed.issubset)
    one = gate(judge, 600)
    one.jobs = jobs
    with one.open():
        assert set(shrink(one, 600)) == needed
    assert judge.asked <= (25 * len(needed) + 40) * jobs
    assert one.journal.runs == judge.asked


def test_a_chunk_that_only_goes_as_a_whole_is_found() -> None:
    # A request and its end: one without the other does not show it.
    judge = Numbers(lambda found: 5 in found and (7 in found) == (8 in found))
    assert shrink(gate(judge, 16), 16) in ([5], [5, 7, 8])


def test_repeats_and_larger_ones_are_not_run() -> None:
    judge = Numbers({1}.issubset)
    one = gate(judge, 3)
    assert not one.passes(clocks(0, 1, 2))  # not smaller
    assert not one.passes(clocks(0, 1, 9))  # larger values
    assert judge.asked == 0
    assert not one.passes(clocks(0, 2))
    assert not one.passes(clocks(0, 2))
    assert judge.asked == 1
    assert one.passes(clocks(0, 1))
    assert one.best == clocks(0, 1)


def test_what_shows_something_new_does_not_pass() -> None:
    one = gate(Numbers({1}.issubset, OTHER), 3)
    assert not one.passes(clocks(1))
    one = gate(Numbers({1}.issubset, OTHER), 3)
    one.allowed = frozenset({TARGET, OTHER})
    assert one.passes(clocks(1))


def test_the_budget_ends_it_and_the_best_remains() -> None:
    judge = Numbers({3}.issubset)
    one = gate(judge, 64, budget=4)
    with pytest.raises(BudgetSpentError):
        shrink(one, 64)
    assert judge.asked == 4
    assert 1 < len(one.best.events) < 64


def test_edits_that_work_together_take_one_run() -> None:
    judge = Numbers(lambda found: len(found) == 8 and 17 in found)
    one = Gate(judge, TARGET, frozenset({TARGET}), clocks(*range(10, 18)), Journal(None, []), 100)

    def make(chosen: object) -> Trace:
        assert isinstance(chosen, set | frozenset)
        return clocks(*(n - 10 if n - 10 in chosen else n for n in range(10, 18)))

    assert applied(range(7), make, one) == set(range(7))
    assert judge.asked == 1
    # The one that must not change is found among the others.
    one = Gate(judge, TARGET, frozenset({TARGET}), clocks(*range(10, 18)), Journal(None, []), 100)
    assert applied(range(8), make, one) == set(range(7))


# --- going on ------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_without_repeating_anything(tmp_path: Path) -> None:
    path, needed = tmp_path / "state", {3, 77}
    judge = Numbers(needed.issubset)
    whole = gate(judge, 100)
    shrink(whole, 100)
    total = judge.asked
    judge = Numbers(needed.issubset)
    with Journal(path, ["a"]) as journal, pytest.raises(BudgetSpentError):
        shrink(gate(judge, 100, 7, journal), 100)
    torn = path.read_bytes() + b'{"trace": "12'
    path.write_bytes(torn)
    with Journal(path, ["a"]) as journal:
        assert journal.runs == 7
        assert shrink(gate(judge, 100, 1000, journal), 100) == sorted(needed)
    assert judge.asked == total == journal.runs
    # What was torn is gone, and what followed is whole.
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_of_something_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Journal(path, ["a"]) as journal:
        journal.add("00", True, 1)
    with Journal(path, ["a"]) as journal:
        assert journal.verdicts == {"00": True}
    with Journal(path, ["b"]) as journal:
        assert journal.verdicts == {}


@pytest.mark.parametrize(
    "data",
    [b'{"precious": 1}\n', b"precious", b"dmarewind-text 1\nheader {}\n", b"[1]\n", b"\0\n\xff",
     b"[" * 9999 + b"\n"],
)  # fmt: skip
def test_a_file_that_is_no_journal_is_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(data)
    with pytest.raises(HarnessError, match="not a journal"):
        Journal(path, ["a"])
    assert path.read_bytes() == data


def test_a_head_that_was_torn_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Journal(path, ["a"]):
        pass
    head = path.read_bytes()
    path.write_bytes(head[:30])
    with Journal(path, ["a"]):
        pass
    assert path.read_bytes() == head


# --- doubt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shown", "runs", "tries"), [(5, 5, 1), (4, 5, 2), (1, 2, 5), (1, 10, 20)])
def test_the_less_reliable_the_more_often_a_candidate_is_run(
    shown: int, runs: int, tries: int
) -> None:
    assert Reliability(shown, runs).tries == tries


def test_a_finding_that_shows_every_second_time_is_minimised() -> None:
    turns = [0]

    def sometimes(found: set[int]) -> bool:
        turns[0] += 1
        return 5 in found and turns[0] % 2 == 0

    one = gate(Numbers(sometimes), 30)
    one.tries = Reliability(1, 2).tries
    assert shrink(one, 30) == [5]
