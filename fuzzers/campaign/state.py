"""What a campaign knows, in a database that has one writer; files come first, then their rows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from fuzzers.campaign.files import Files
from fuzzers.campaign.places import Seen
from fuzzers.campaign.rows import (
    KNOWN,
    LIVE,
    NEW,
    account,
    insert_finding,
    insert_inputs,
    keep_merged,
    note_checked,
    note_shrunk,
    reconcile_inputs,
    see,
    set_state,
)
from fuzzers.campaign.schedule import REMEMBERED, Turn, energy
from fuzzers.campaign.slices import CHECK, FUZZ, MERGE, SHRINK, Result, Slice
from fuzzers.campaign.tables import open_database
from harness.errors import HarnessError

DATABASE: Final = "state.db"
KNOWN_FILE: Final = "known.txt"
"""Lists keys of findings that are known, one a line; what follows # is a comment."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock of a campaign's directory. Errors: HarnessError when another has it."""
    directory.mkdir(parents=True, exist_ok=True)
    stream: IO[str]
    with (directory / "lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            who = stream.read(64).strip() or "another process"
            raise HarnessError(
                f"{directory}: a campaign is running there (process {who}); one is enough"
            ) from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        # On a full disk: who it is, is not worth more.
        with contextlib.suppress(OSError):
            stream.flush()
        yield


class State:
    """Keep targets, corpora, findings and what was measured."""

    def __init__(self, directory: Path) -> None:
        self.files = Files(directory)
        self.database = open_database(directory / DATABASE)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield self.database
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    # --- beginning -------------------------------------------------------------------------------

    def reconcile(self) -> dict[str, int]:
        """Let rows say what the files are: take files in, mark rows whose file is missing."""
        self.files.tidy()
        done = {"taken": 0, "lost": 0}
        with self._transaction() as database:
            names = {row["target"] for row in database.execute("SELECT target FROM inputs")}
            for target in sorted(names.union(self.files.targets())):
                reconcile_inputs(database, target, dict(self.files.all_inputs(target)), done)
            for record in self.files.all_records():
                data = self.files.finding(record.target, record.input)
                if data is not None:
                    done["taken"] += insert_finding(database, record, len(data), 0)
            for row in database.execute("SELECT * FROM findings").fetchall():
                lost = self.files.finding(row["target"], row["input"]) is None
                done["lost"] += int(lost)
                database.execute(
                    "UPDATE findings SET lost = ? WHERE target = ? AND key = ?",
                    (int(lost), row["target"], row["key"]),
                )
        return done

    def begin(self, target: str, against: str, seeds: tuple[bytes, ...]) -> None:
        """Take a target in, with inputs to begin with."""
        self.files.add_inputs(target, seeds)
        with self._transaction() as database:
            # One that comes later does not catch up on all the others had.
            (clock,) = database.execute("SELECT coalesce(min(clock), 0) FROM targets").fetchone()
            database.execute(
                "INSERT INTO targets (name, against, clock) VALUES (?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET against = excluded.against, failures = 0, resting_until = 0",
                (target, against, clock),
            )
            insert_inputs(database, target, seeds)

    def apply_known(self) -> None:
        """Mark the findings that known.txt lists, and no others."""
        path = self.files.directory / KNOWN_FILE
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        keys = {line.partition("#")[0].strip() for line in lines} - {""}
        with self._transaction() as database:
            for row in database.execute("SELECT target, key, state FROM findings").fetchall():
                state = KNOWN if row["key"] in keys else row["state"]
                if state == KNOWN and row["key"] not in keys:
                    state = NEW
                set_state(database, row["target"], row["key"], state)

    # --- what workers bring ----------------------------------------------------------------------

    def take(self, result: Result, task: Slice | None = None) -> list[Seen]:
        """Keep a result, all of it or nothing; return the findings that are new or came back.

        Errors: OSError, sqlite3.OperationalError (a full disk: try again later).
        """
        if not result.target:
            return []
        if result.kind != MERGE:
            self.files.add_inputs(result.target, result.inputs)
        before = {row["key"]: row for row in self.findings(result.target)}
        against = {row["name"]: row["against"] for row in self.targets()}
        for seen in result.findings:
            old = before.get(seen.signature.key)
            if old is None or old["lost"] or len(seen.data) < old["size"]:
                self.files.add_finding(result.target, seen, against.get(result.target, ""))
        if result.kind == SHRINK and result.trace:
            self.files.add_trace(result.target, result.wanted, result.trace)
        now = time.time()
        with self._transaction() as database:
            added = 0
            if result.kind != MERGE:
                added = insert_inputs(database, result.target, result.inputs)
            elif task is not None:
                keep_merged(database, task, result)
            told = [seen for seen in result.findings if see(database, result, seen, now)]
            if result.kind == SHRINK:
                note_shrunk(database, result)
            if result.kind == CHECK and task is not None:
                note_checked(database, task, result)
            account(database, result, added, told, now)
        return told

    def charge(self, target: str, seconds: float) -> None:
        """Advance the clock of a target that gets a slice."""
        cost = seconds / energy(self._news(target))
        with self._transaction() as database:
            database.execute("UPDATE targets SET clock = clock + ? WHERE name = ?", (cost, target))

    # --- what is known ---------------------------------------------------------------------------

    def turns(self, targets: Sequence[str]) -> list[Turn]:
        """Return what decides which target is next."""
        rows = {row["name"]: row for row in self.database.execute("SELECT * FROM targets")}
        return [
            Turn(name, rows[name]["clock"], self._news(name), rows[name]["resting_until"])
            for name in targets
        ]

    def _news(self, target: str) -> list[bool]:
        rows = self.database.execute(
            "SELECT news FROM runs WHERE target = ? AND kind = ? ORDER BY number DESC LIMIT ?",
            (target, FUZZ, REMEMBERED),
        )
        return [bool(row["news"]) for row in rows]

    def corpus(self, target: str) -> tuple[bytes, ...]:
        """Return the inputs that are handed out."""
        rows = self.database.execute(
            "SELECT name FROM inputs WHERE target = ? AND state = ? ORDER BY size, name",
            (target, LIVE),
        )
        found = (self.files.input(target, row["name"]) for row in rows.fetchall())
        return tuple(data for data in found if data is not None)

    def count(self, target: str) -> int:
        """Return how many inputs are handed out."""
        (found,) = self.database.execute(
            "SELECT count(*) FROM inputs WHERE target = ? AND state = ?", (target, LIVE)
        ).fetchone()
        return int(found)

    def findings(self, target: str | None = None) -> list[sqlite3.Row]:
        """Return the findings, of one target or of all."""
        where, values = ("WHERE target = ?", (target,)) if target else ("", ())
        return self.database.execute(
            f"SELECT * FROM findings {where} ORDER BY first, key", values
        ).fetchall()

    def targets(self) -> list[sqlite3.Row]:
        """Return the targets that were ever begun."""
        return self.database.execute("SELECT * FROM targets ORDER BY name").fetchall()

    def last_sample(self, target: str) -> sqlite3.Row | None:
        """Return what was measured of a target last."""
        found: sqlite3.Row | None = self.database.execute(
            "SELECT * FROM samples WHERE target = ? ORDER BY at DESC LIMIT 1", (target,)
        ).fetchone()
        return found

    def samples(self, target: str) -> list[sqlite3.Row]:
        """Return what was measured of a target, in order."""
        return self.database.execute(
            "SELECT * FROM samples WHERE target = ? ORDER BY at", (target,)
        ).fetchall()
