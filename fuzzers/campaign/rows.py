"""Change rows of a campaign's database; the caller holds a transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from fuzzers.campaign.files import Record
from fuzzers.campaign.places import Seen, name_of
from fuzzers.campaign.schedule import rest
from fuzzers.campaign.slices import FUZZ, HANDED, Result, Slice
from harness.signature import CRASH, HANG

LIVE, COVERED, LOST = "live", "covered", "lost"
"""States of an input: handed out; kept, but others reach what it reaches; its file is missing."""

NEW, MINIMISED, UNSTABLE = "new", "minimised", "unstable"
KNOWN, GONE, REGRESSED = "known", "gone", "regressed"
"""States of a finding. UNSTABLE did not show again when it was to be minimised; KNOWN is listed in
known.txt; GONE did not show in a later run of what is kept; REGRESSED came back."""

OPEN: Final = (NEW, MINIMISED, UNSTABLE, REGRESSED)


def reconcile_inputs(
    database: sqlite3.Connection, target: str, there: dict[str, int], done: dict[str, int]
) -> None:
    """Take files in that have no row, and mark rows whose file is missing."""
    rows = database.execute("SELECT name, state FROM inputs WHERE target = ?", (target,))
    known = {row["name"]: row["state"] for row in rows.fetchall()}
    for name in there.keys() - known.keys():
        done["taken"] += 1
        database.execute(
            "INSERT INTO inputs VALUES (?, ?, ?, ?, ?)",
            (target, name, there[name], time.time(), LIVE),
        )
    for name, state in known.items():
        now = LOST if name not in there else LIVE if state == LOST else state
        done["lost"] += int(now == LOST)
        if now != state:
            database.execute(
                "UPDATE inputs SET state = ? WHERE target = ? AND name = ?", (now, target, name)
            )


def insert_inputs(database: sqlite3.Connection, target: str, inputs: Sequence[bytes]) -> int:
    """Insert inputs; return how many are new."""
    now = time.time()
    added = 0
    for data in inputs:
        added += database.execute(
            "INSERT INTO inputs VALUES (?, ?, ?, ?, ?) ON CONFLICT (target, name)"
            " DO UPDATE SET state = excluded.state WHERE state = 'lost'",
            (target, name_of(data), len(data), now, LIVE),
        ).rowcount
    return added


def keep_merged(database: sqlite3.Connection, task: Slice, result: Result) -> None:
    """Hand out what a merge left; what was found meanwhile is not touched.

    A merge that was cut short, or left nothing, is not believed.
    """
    if not result.complete or not result.inputs:
        return
    stay = {name_of(data) for data in result.inputs}
    for name in {name_of(data) for data in task.inputs} - stay:
        database.execute(
            "UPDATE inputs SET state = ? WHERE target = ? AND name = ?",
            (COVERED, result.target, name),
        )
    database.execute("UPDATE targets SET merged = ? WHERE name = ?", (len(stay), result.target))


def insert_finding(database: sqlite3.Connection, record: Record, size: int, times: int) -> int:
    """Insert a finding; return 0 when its signature is there."""
    now = time.time()
    signature = json.dumps(record.signature.as_json())
    return database.execute(
        "INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
        (record.target, record.signature.key, signature, record.input, size, times, now, now, NEW),
    ).rowcount


def see(database: sqlite3.Connection, result: Result, seen: Seen, now: float) -> bool:
    """Count a finding; say whether it is new, or came back.

    What a slice has handed over is new once more at its end, and counts from then on.
    """
    record = Record(result.target, seen.signature, name_of(seen.data))
    key = (result.target, seen.signature.key)
    if seen.signature.kind in (CRASH, HANG):
        # Each slice that were given it would begin with a crash.
        database.execute(
            "UPDATE inputs SET state = ? WHERE target = ? AND name = ?",
            (COVERED, result.target, record.input),
        )
    if insert_finding(database, record, len(seen.data), int(result.kind != HANDED)):
        return True
    row = database.execute("SELECT * FROM findings WHERE target = ? AND key = ?", key).fetchone()
    back = row["state"] == GONE
    if row["lost"] or len(seen.data) < row["size"]:
        database.execute(
            "UPDATE findings SET input = ?, size = ?, lost = 0 WHERE target = ? AND key = ?",
            (record.input, len(seen.data), *key),
        )
    database.execute(
        "UPDATE findings SET times = times + ?, last = ?, state = ? WHERE target = ? AND key = ?",
        (int(result.kind == FUZZ), now, REGRESSED if back else row["state"], *key),
    )
    return bool(back) or (row["times"] == 0 and result.kind == FUZZ)


def note_shrunk(database: sqlite3.Connection, result: Result) -> None:
    """Say what came of making a finding smaller; what was cut short says nothing."""
    if not result.complete:
        return
    shows = any(seen.signature.key == result.wanted for seen in result.findings)
    row = database.execute(
        "SELECT state FROM findings WHERE target = ? AND key = ?", (result.target, result.wanted)
    ).fetchone()
    if row is not None and row["state"] in (NEW, REGRESSED):
        set_state(database, result.target, result.wanted, MINIMISED if shows else UNSTABLE)


def note_checked(database: sqlite3.Connection, task: Slice, result: Result) -> None:
    """Mark what does not show any more; what came back was marked when it was seen.

    A check that was cut short says nothing.
    """
    if not result.complete:
        return
    run = {name_of(data) for data in task.inputs}
    shown = {seen.signature.key for seen in result.findings}
    for row in database.execute(
        "SELECT * FROM findings WHERE target = ?", (result.target,)
    ).fetchall():
        if row["input"] not in run or row["state"] not in OPEN:
            continue
        if row["key"] not in shown:
            set_state(database, result.target, row["key"], GONE)
        elif row["state"] == UNSTABLE:
            # It is worth another try, at each beginning of a campaign.
            set_state(database, result.target, row["key"], NEW)


def set_state(database: sqlite3.Connection, target: str, key: str, state: str) -> None:
    """Change the state of a finding."""
    database.execute(
        "UPDATE findings SET state = ? WHERE target = ? AND key = ?", (state, target, key)
    )


def account(
    database: sqlite3.Connection, result: Result, added: int, told: Sequence[Seen], now: float
) -> None:
    """Write down a run, and what it says of its target and worker."""
    target = database.execute("SELECT * FROM targets WHERE name = ?", (result.target,)).fetchone()
    if target is None or result.kind == HANDED:
        return
    reached = result.kind == FUZZ and (
        result.features > target["features"] or result.coverage > target["coverage"]
    )
    database.execute(
        "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            result.kind, result.target, result.place, result.worker, now, result.seconds,
            result.executions, added, len(told), int(reached or bool(told)), result.trouble,
        ),
    )  # fmt: skip
    database.execute(
        "INSERT INTO workers VALUES (?, ?, 1) ON CONFLICT (name)"
        " DO UPDATE SET seen = excluded.seen, runs = runs + 1",
        (result.worker, now),
    )
    failures = target["failures"] + 1 if result.trouble and not result.executions else 0
    database.execute(
        "UPDATE targets SET executions = executions + ?, seconds = seconds + ?,"
        " coverage = max(coverage, ?), features = max(features, ?), failures = ?, trouble = ?,"
        " resting_until = ? WHERE name = ?",
        (
            result.executions, result.seconds, result.coverage, result.features, failures,
            result.trouble, now + rest(failures), result.target,
        ),
    )  # fmt: skip
    if result.kind == FUZZ and result.seconds:
        database.execute(
            "INSERT INTO samples SELECT ?, name, executions, ?, coverage, features,"
            " (SELECT count(*) FROM inputs WHERE target = targets.name AND state = ?),"
            " (SELECT count(*) FROM findings WHERE target = targets.name)"
            " FROM targets WHERE name = ?",
            (now, result.executions / result.seconds, LIVE, result.target),
        )
