"""The loop of a campaign: hand out slices, keep what comes back, go on whatever happens."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fuzzers.campaign.executors import Executor, Future
from fuzzers.campaign.files import is_full
from fuzzers.campaign.places import left_places, remove
from fuzzers.campaign.rows import NEW, OPEN, REGRESSED
from fuzzers.campaign.schedule import choose, merge_due
from fuzzers.campaign.slices import CHECK, FUZZ, HANDED, MERGE, SHRINK, Result, Slice, salvage
from fuzzers.campaign.state import State
from fuzzers.campaign.status import Teller
from fuzzers.target import target_named
from harness.errors import HarnessError

_PAUSE: Final = 0.2
_RETRY: Final = 5.0
"""Seconds until a full disk is tried again."""
_SHOWN_EVERY: Final = 5.0
_MERGE_SECONDS: Final = 300.0
_SHRINK_SECONDS: Final = 60.0
_CHECK_SECONDS: Final = 120.0
_GRACE: Final = 90.0
"""Seconds behind the deadline until slices that still run are ended."""
_LOST_MOST: Final = 20
"""Slices in a row that do not come back: nothing does any more."""
_TRIES: Final = 3
"""How often a campaign begins to make a finding smaller, where that never comes to its end."""
_SHORTEST: Final = 2.0
_INPUTS_MOST: Final = 20_000
"""Inputs handed out with a slice; the smallest ones."""


@dataclass(frozen=True, slots=True)
class Options:
    """Say how a campaign goes on: targets with what they are compared with, and for how long."""

    targets: dict[str, str]
    seconds: float
    deadline: float
    shrink_seconds: float = _SHRINK_SECONDS


@dataclass
class _Backlog:
    """Hold results that could not be written yet."""

    results: list[tuple[Result, Slice | None]] = field(default_factory=list)
    tried: float = 0.0


class Campaign:
    """Run slices on an executor and keep their results."""

    def __init__(self, state: State, executor: Executor, options: Options, teller: Teller) -> None:
        self._state, self._executor = state, executor
        self._options, self._teller = options, teller
        self._running: dict[Future, Slice] = {}
        self._backlog = _Backlog()
        self._checks: list[Slice] = []
        self._check_next = self._shrink_next = False
        self._tries: Counter[tuple[str, str]] = Counter()
        self._lost = 0
        self.found: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Go on until the deadline. Errors: HarnessError when no slice can be done any more."""
        self._begin()
        shown = 0.0
        try:
            while True:
                now = time.monotonic()
                over = now >= self._options.deadline
                self._collect()
                if not over and not self._backlog.results and now >= self._backlog.tried:
                    self._hand_out(now)
                if over and (not self._running or now >= self._options.deadline + _GRACE):
                    break
                if now - shown >= _SHOWN_EVERY:
                    shown = now
                    self._show()
                time.sleep(_PAUSE)
        finally:
            self._end()

    # --- beginning and end -----------------------------------------------------------------------

    def _begin(self) -> None:
        """Take in what a campaign that was killed has left, and run all that is kept once."""
        self._insist(self._reconcile)
        for name, against in self._options.targets.items():
            target = target_named(name)
            seeds = () if self._state.count(name) else tuple(target.seeds())
            self._insist(functools.partial(self._state.begin, name, against, seeds))
            kept = self._kept(name)
            if kept:
                self._checks.append(Slice(CHECK, name, against, _CHECK_SECONDS, kept))

    def _reconcile(self) -> None:
        self._teller.reconciled(self._state.reconcile())
        self._state.apply_known()
        for place in left_places(self._state.files.work):
            result = salvage(place)
            self._state.take(result)
            self._tell(result)
            remove(place.path)

    def _insist(self, do: Callable[[], None]) -> None:
        """Do something; where the disk is full, wait and try again."""
        while True:
            try:
                do()
            except Exception as error:
                if not is_full(error):
                    raise
                self._teller.full(str(error))
                time.sleep(_RETRY)
                if time.monotonic() >= self._options.deadline:
                    raise HarnessError(f"the disk is still full: {error}") from error
            else:
                self._teller.room()
                return

    def _kept(self, target: str) -> tuple[bytes, ...]:
        rows = self._state.findings(target)
        found = (self._state.files.finding(target, row["input"]) for row in rows)
        return tuple(data for data in found if data is not None)

    def _end(self) -> None:
        """Let slices end, and keep what they bring. What a full disk refuses stays in its place."""
        self._executor.stop()
        self._backlog.results += [(one, None) for one in self._executor.handed()]
        self._executor.close()
        self._collect()
        self._retry()
        self._show()

    # --- work ------------------------------------------------------------------------------------

    def _hand_out(self, now: float) -> None:
        free = self._executor.capacity() - len(self._running)
        left = self._options.deadline - now
        while free > 0 and left >= min(_SHORTEST, self._options.seconds):
            task = self._next(left)
            if task is None:
                return
            self._running[self._executor.submit(task)] = task
            free -= 1

    def _next(self, left: float) -> Slice | None:
        busy = {(task.kind, task.target) for task in self._running.values()}
        # Checks come one at a time, and every second time at most: where campaigns are killed often
        # they would be all that is ever done.
        self._check_next = not self._check_next
        if self._check_next and self._checks and not any(kind == CHECK for kind, _ in busy):
            return self._checks.pop()
        # Findings are made smaller one at a time, and every second time at most.
        self._shrink_next = not self._shrink_next
        if self._shrink_next and not any(kind == SHRINK for kind, _ in busy):
            task = self._to_shrink(left)
            if task is not None:
                return task
        turn = choose(self._state.turns(list(self._options.targets)), time.time())
        if turn is None:
            return None
        name, against = turn.target, self._options.targets[turn.target]
        rows = {row["name"]: row for row in self._state.targets()}
        count = self._state.count(name)
        inputs = self._state.corpus(name)[:_INPUTS_MOST]
        grown = left > _MERGE_SECONDS and merge_due(count, rows[name]["merged"])
        if grown and (MERGE, name) not in busy:
            return Slice(MERGE, name, against, _MERGE_SECONDS, inputs)
        seconds = min(self._options.seconds, left)
        self._insist(lambda: self._state.charge(name, seconds))
        return Slice(FUZZ, name, against, seconds, inputs)

    def _to_shrink(self, left: float) -> Slice | None:
        # There is little to gain in less.
        if left < self._options.shrink_seconds / 3:
            return None
        now = time.time()
        rests = {row["name"] for row in self._state.targets() if row["resting_until"] > now}
        # Whatever is cut short each time does not keep the others waiting.
        tries = self._tries
        for row in sorted(self._state.findings(), key=lambda one: tries[one["target"], one["key"]]):
            name = row["target"]
            if row["state"] not in (NEW, REGRESSED) or row["lost"] or name in rests:
                continue
            if tries[name, row["key"]] >= _TRIES:
                break
            data = self._state.files.finding(name, row["input"])
            if name in self._options.targets and data is not None:
                seconds = min(self._options.shrink_seconds, left)
                against = self._options.targets[name]
                tries[name, row["key"]] += 1
                return Slice(SHRINK, name, against, seconds, (data,), row["key"])
        return None

    # --- results ---------------------------------------------------------------------------------

    def _collect(self) -> None:
        for future in [one for one in self._running if one.done()]:
            task = self._running.pop(future)
            try:
                results = future.result()
            except Exception as error:
                if is_full(error):
                    self._wait(error)
                    continue
                self._teller.lost_worker(task, error)
                self._lost += 1
                if self._lost >= _LOST_MOST:
                    raise HarnessError(f"no slice comes back any more: {error}") from error
                continue
            self._lost = 0
            self._backlog.results += [(one, task if n == 0 else None)
                                      for n, one in enumerate(results)]  # fmt: skip
        if not self._backlog.results:
            self._backlog.results += [(one, None) for one in self._executor.handed()]
        if time.monotonic() >= self._backlog.tried:
            self._retry()

    def _retry(self) -> None:
        """Write what waits; on a full disk wait for room, with what there is in memory."""
        full = self._backlog.tried > 0
        while self._backlog.results:
            result, task = self._backlog.results[0]
            try:
                self._state.take(result, task)
            except Exception as error:
                if not is_full(error):
                    raise
                self._wait(error)
                return
            del self._backlog.results[0]
            if result.kind != HANDED:
                self._executor.acknowledge(result)
            self._tell(result)
        self._backlog.tried = 0.0
        if full:
            self._teller.room()

    def _wait(self, error: Exception) -> None:
        """Do nothing for some time, on a full disk."""
        self._backlog.tried = time.monotonic() + _RETRY
        self._teller.full(str(error))

    def _tell(self, result: Result) -> None:
        known = {row["key"]: row for row in self._state.findings(result.target or None)}
        for seen in result.findings:
            row = known.get(seen.signature.key)
            key = (result.target, seen.signature.key)
            if row is not None and row["state"] in OPEN and key not in self.found:
                self.found.add(key)
                self._teller.finding(row, self._report(result.target, seen.signature.key))
        if result.kind != HANDED:
            self._teller.slice(result)

    def _report(self, target: str, key: str) -> Path:
        return self._state.files.reports / f"{target}-{key}.txt"

    def _show(self) -> None:
        """Write the page; on a full disk it is the first thing to do without."""
        try:
            self._teller.show(self._state, list(self._running.values()))
        except Exception as error:
            if not is_full(error):
                raise
