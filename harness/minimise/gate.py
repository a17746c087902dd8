"""The one gate that every candidate passes: repeats and larger ones cost nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from harness.errors import HarnessError
from harness.minimise.judges import Judge, Shown
from harness.minimise.trace import Trace, checked
from harness.signature import Signature

MOST_TRIES: Final = 20
"""Times that one candidate is run at most, where the finding does not always show."""
_DOUBT: Final = 0.05
"""Probability that a finding which still shows is missed in all tries."""
_JOURNAL_LIMIT: Final = 1 << 28
_MARK: Final = "dmarewind-minimise"
"""Is in the first line of a journal; a file without it is somebody's, and stays as it is."""


class BudgetSpentError(Exception):
    """Say that no more runs are allowed; the best so far is what there is."""


class Journal:
    """Keep verdicts in a file, so that a killed run goes on where it was.

    A minimiser depends on verdicts alone, so asking again in the same order leads to the same
    place. purpose names what the verdicts are about; a journal of something else is not used.
    """

    def __init__(self, path: Path | None, purpose: Sequence[str]) -> None:
        self._purpose = hashlib.sha256(json.dumps(list(purpose)).encode()).hexdigest()
        self._head = {_MARK: 1, "purpose": self._purpose}
        self.verdicts: dict[str, bool] = {}
        self.runs = 0
        self.cost: dict[str, int] = {}
        """Runs that each verdict took."""
        self._stream: TextIO | None = None
        if path is None:
            return
        whole = self._load(path)
        self._stream = path.open("r+" if whole else "w", encoding="utf-8")
        if whole:
            self._stream.truncate(whole)
            self._stream.seek(whole)
        else:
            self._write(self._head)

    def _load(self, path: Path) -> int:
        """Read what is there; return the bytes of it that are whole lines of this purpose."""
        if not path.exists():
            return 0
        if not path.is_file():
            raise self._not_one(path)
        if path.stat().st_size > _JOURNAL_LIMIT:
            raise HarnessError(f"{path}: more than {_JOURNAL_LIMIT} bytes; remove it to start anew")
        data = path.read_bytes()
        if f"{json.dumps(self._head)}\n".encode().startswith(data):
            return 0  # nothing, or a head that a kill has torn
        whole = 0
        for number, line in enumerate(data.split(b"\n")[:-1]):
            try:
                plain = json.loads(line)
            except (ValueError, RecursionError):
                plain = None
            if number == 0 and not (isinstance(plain, dict) and _MARK in plain):
                raise self._not_one(path)
            if not isinstance(plain, dict):
                break  # torn by a kill; what follows cannot be trusted
            if number == 0:
                if plain.get("purpose") != self._purpose:
                    return 0
            else:
                name, verdict, runs = plain.get("trace"), plain.get("shows"), plain.get("runs")
                if type(name) is not str or type(verdict) is not bool or type(runs) is not int:
                    break
                self.verdicts[name] = verdict
                self.cost[name] = runs
                self.runs += runs
            whole += len(line) + 1
        if not whole:
            raise self._not_one(path)
        return whole

    @staticmethod
    def _not_one(path: Path) -> HarnessError:
        return HarnessError(f"{path}: not a journal of minimise; name another --state")

    def add(self, digest: str, shows: bool, runs: int) -> None:
        """Keep a verdict."""
        self.verdicts[digest] = shows
        self.cost[digest] = runs
        self.runs += runs
        self._write({"trace": digest, "shows": shows, "runs": runs})

    def _write(self, plain: dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(plain) + "\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()


@dataclass(frozen=True, slots=True)
class Reliability:
    """Say in how many of some runs a finding showed."""

    shown: int
    runs: int

    def __str__(self) -> str:
        return f"{self.shown} of {self.runs}"

    @property
    def tries(self) -> int:
        """Runs of a candidate after which a finding that did not show is taken for gone."""
        if not 0 < self.shown < self.runs:
            return 1
        missed = 1 - self.shown / self.runs
        return min(MOST_TRIES, max(1, math.ceil(math.log(_DOUBT) / math.log(missed))))


@dataclass(slots=True)
class Gate:
    """Let through what still shows a finding, shows no other that was not there, and is smaller.

    best is the smallest trace so far, shown what it shows where it was run just now. allowed are
    the signatures that the beginning shows: a reproducer of one thing must not gain another. None
    allows any beside the target.
    """

    judge: Judge
    target: Signature
    allowed: frozenset[Signature] | None
    best: Trace
    journal: Journal
    budget: int
    tries: int = 1
    jobs: int = 1
    told: Callable[[int, int], None] = lambda runs, events: None
    shown: list[Shown] | None = None
    runs: int = 0
    """Runs behind the verdicts that were asked for, by this process or one before it."""
    _asked: set[str] = field(default_factory=set, init=False)
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have as many threads as there are jobs; they wait for programs."""
        if self.jobs == 1:
            yield
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def passes(self, candidate: Trace) -> bool:
        """Say whether a candidate becomes the best."""
        return self.first([candidate]) == 0

    def first(self, candidates: Iterable[Trace]) -> int | None:
        """Return the number of the first candidate that becomes the best, if any does.

        With several jobs they are run beside each other; the first one still counts.
        """
        coming = enumerate(candidates)
        while window := list(islice(coming, self.jobs)):
            known = [self._known(candidate) for _, candidate in window]
            # What follows one that is known to pass is not asked for.
            until = known.index(True) if True in known else len(window)
            wanted = [i for i in range(until) if known[i] is None]
            wanted = self._affordable(window, wanted)
            fresh = self._run([window[i][1] for i in wanted])
            shown: dict[int, list[Shown]] = {}
            for i, (seen, runs) in zip(wanted, fresh, strict=True):
                digest = window[i][1].digest
                known[i] = seen is not None
                if seen is not None:
                    shown[i] = seen
                if digest not in self.journal.verdicts:
                    self.journal.add(digest, seen is not None, runs)
                self._count(digest)
                self.told(self.journal.runs, len(self.best.events))
            for i, (verdict, (number, candidate)) in enumerate(zip(known, window, strict=True)):
                if verdict is None:
                    raise BudgetSpentError
                if verdict:
                    self.best, self.shown = candidate, shown.get(i)
                    return number
        return None

    def _affordable(self, window: Sequence[tuple[int, Trace]], wanted: list[int]) -> list[int]:
        left = max(0, self.budget - self.journal.runs)
        return wanted[: left // self.tries]

    def _known(self, candidate: Trace) -> bool | None:
        """Return what is known of a candidate without a run; without events nothing shows."""
        if not candidate.events or checked(candidate) is None:
            return False
        if candidate.order >= self.best.order:
            return False
        verdict = self.journal.verdicts.get(candidate.digest)
        if verdict is not None:
            self._count(candidate.digest)
        return verdict

    def _count(self, digest: str) -> None:
        if digest not in self._asked:
            self._asked.add(digest)
            self.runs += self.journal.cost[digest]

    def _run(self, traces: Sequence[Trace]) -> list[tuple[list[Shown] | None, int]]:
        if self._pool is None or len(traces) < 2:
            return [self._shows(trace) for trace in traces]
        return list(self._pool.map(self._shows, traces))

    def _shows(self, trace: Trace) -> tuple[list[Shown] | None, int]:
        for run in range(1, self.tries + 1):
            shown = self.judge(trace)
            if self.wanted(shown):
                return shown, run
        return None, self.tries

    def wanted(self, shown: Iterable[Shown]) -> bool:
        """Say whether what a trace shows is the finding, and nothing new."""
        found = {one.signature for one in shown}
        return self.target in found and (self.allowed is None or found <= self.allowed)
