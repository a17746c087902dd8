"""The tables of a campaign's database, and how it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from harness.errors import HarnessError

VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE targets (
    name TEXT PRIMARY KEY, against TEXT NOT NULL, clock REAL NOT NULL DEFAULT 0,
    executions INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,
    coverage INTEGER NOT NULL DEFAULT 0, features INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, trouble TEXT NOT NULL DEFAULT '',
    resting_until REAL NOT NULL DEFAULT 0, merged INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE workers (name TEXT PRIMARY KEY, seen REAL NOT NULL, runs INTEGER NOT NULL);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, target TEXT NOT NULL, place TEXT NOT NULL,
    worker TEXT NOT NULL, ended REAL NOT NULL, seconds REAL NOT NULL, executions INTEGER NOT NULL,
    inputs INTEGER NOT NULL, findings INTEGER NOT NULL, news INTEGER NOT NULL, trouble TEXT NOT NULL
);
CREATE INDEX runs_of_target ON runs (target, kind, number);
CREATE TABLE inputs (
    target TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, added REAL NOT NULL,
    state TEXT NOT NULL, PRIMARY KEY (target, name)
);
CREATE TABLE findings (
    target TEXT NOT NULL, key TEXT NOT NULL, signature TEXT NOT NULL, input TEXT NOT NULL,
    size INTEGER NOT NULL, times INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
    state TEXT NOT NULL, lost INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (target, key)
);
CREATE TABLE samples (
    at REAL NOT NULL, target TEXT NOT NULL, executions INTEGER NOT NULL, per_second REAL NOT NULL,
    coverage INTEGER NOT NULL, features INTEGER NOT NULL, corpus INTEGER NOT NULL,
    findings INTEGER NOT NULL
);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database, made where it is missing; one that is damaged is put aside.

    Errors: HarnessError for one of another version, sqlite3.OperationalError on a full disk.
    """
    try:
        return _opened(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
            number += 1
        path.rename(aside)
        for tail in ("-wal", "-shm"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA journal_mode = WAL")
        # A commit is on the disk when it is acknowledged.
        made.execute("PRAGMA synchronous = FULL")
        (found,) = made.execute("PRAGMA user_version").fetchone()
        if found == 0:
            made.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                made.execute(statement)
            made.execute(f"PRAGMA user_version = {VERSION}")
            made.execute("COMMIT")
        elif found != VERSION:
            raise HarnessError(f"{path}: of version {found}; this dmarewind knows {VERSION}")
        (health,) = made.execute("PRAGMA quick_check(1)").fetchone()
        if health != "ok":
            raise sqlite3.DatabaseError(health)
    except BaseException:
        made.close()
        raise
    return made
