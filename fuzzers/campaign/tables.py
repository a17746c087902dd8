"""The tables of a campaign's database, and how it is opened."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from harness.errors import HarnessError
from harness.signature import Signature

VERSION: Final = 1
_TAILS: Final = ("-wal", "-shm")

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


_TYPES: Final = {"TEXT": str, "INTEGER": int, "REAL": float}

_ELSEWHERE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
    }
)  # fmt: skip
"""What the disk, or another program, is the cause of, and not what the file says."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database, made where it is missing; one that is damaged is put aside.

    Errors: HarnessError for one of another version, or that nobody may write;
    sqlite3.OperationalError on a full disk.
    """
    _refuse_unwritable(path)
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _ELSEWHERE:
            raise
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
            number += 1
        path.rename(aside)
        for tail in _TAILS:
            path.with_name(path.name + tail).unlink(missing_ok=True)
        return _opened(path)


def _refuse_unwritable(path: Path) -> None:
    """Raise HarnessError for what SQLite cannot open, whatever room there is."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise HarnessError(f"{path.parent}: a campaign may not write there")
    for one in (path, *(path.with_name(path.name + tail) for tail in _TAILS)):
        if one.is_symlink() and not one.exists():
            raise HarnessError(f"{one}: a link that leads nowhere; move it away")
        if one.exists() and not one.is_file():
            raise HarnessError(f"{one}: not a regular file; move it away")
        if one.exists() and not os.access(one, os.R_OK | os.W_OK):
            raise HarnessError(f"{one}: a campaign may not write it")


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
        _read_all(made)
    except BaseException:
        made.close()
        raise
    return made


def _read_all(database: sqlite3.Connection) -> None:
    """Read each row as it will be read later. Errors: sqlite3.DatabaseError.

    SQLite takes any statement about tables, and any value in a column, for sound.
    """
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(_TABLES)
        names = empty.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (name,) in names:
            wanted = _columns(empty, name)
            if _columns(database, name) != wanted:
                raise sqlite3.DatabaseError(f"the table {name} is another one")
            types = [_TYPES[str(column[1])] for column in wanted]
            for row in database.execute(f"SELECT * FROM {name}"):
                if not all(map(isinstance, row, types)):
                    raise sqlite3.DatabaseError(f"a row of {name} holds what it may not")
    for row in database.execute("SELECT key, signature FROM findings"):
        try:
            signature = Signature.from_json(json.loads(row["signature"]))
        except (ValueError, RecursionError, DecodeError) as error:
            raise sqlite3.DatabaseError(f"the finding {row['key']}: {error}") from error
        if signature.key != row["key"]:
            raise sqlite3.DatabaseError(f"the finding {row['key']} is {signature.key}")


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """Return name, type, and what else is declared of each column."""
    return [tuple(row)[1:] for row in database.execute(f"PRAGMA table_info({table})")]
