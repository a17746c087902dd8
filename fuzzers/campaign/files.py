"""The files of a campaign: inputs named by their content, and what is said about findings.

A file is whole and on the disk before a row of the database mentions it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from fuzzers.campaign.places import Seen, name_of
from fuzzers.findings import NO_ROOM
from harness.files import replacing
from harness.signature import Signature

CORPUS: Final = "corpus"
"""The directory with one of inputs for each target."""

PAGE: Final = "status.html"

_DRAFT: Final = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""How harness.files.replacing names a file until it is whole."""

_NO_RECORD: Final = (OSError, ValueError, KeyError, TypeError, RecursionError, DecodeError)
"""What comes of reading a record that is none."""

_FULL_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)
"""A page of the shared index that cannot be made is an I/O error, a log that cannot be no file."""


@dataclass(frozen=True, slots=True)
class Record:
    """Say what a finding is: all of a row that cannot be found out again."""

    target: str
    signature: Signature
    input: str


def is_full(error: BaseException) -> bool:
    """Say whether an error means that the disk has no room."""
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _FULL_SQLITE
    return isinstance(error, OSError) and error.errno in NO_ROOM


class Files:
    """Keep the files below a campaign's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.corpus, self.findings = directory / CORPUS, directory / "findings"
        self.records, self.reports = directory / "records", directory / "reports"
        self.work, self.damaged = directory / "work", directory / "damaged"
        self.make()

    def make(self) -> None:
        """Make the directories."""
        for one in (self.corpus, self.findings, self.records, self.reports, self.work):
            one.mkdir(parents=True, exist_ok=True)

    def add_inputs(self, target: str, inputs: tuple[bytes, ...]) -> None:
        """Write inputs of a corpus. Errors: OSError."""
        folder = self.corpus / target
        folder.mkdir(exist_ok=True)
        for data in inputs:
            _write(folder / name_of(data), data)
        _settle(folder)

    def add_finding(self, target: str, seen: Seen, against: str) -> None:
        """Write the input of a finding, then what is said about it. Errors: OSError.

        against is what its target was compared with.
        """
        folder = self.findings / target
        folder.mkdir(exist_ok=True)
        name = name_of(seen.data)
        _write(folder / name, seen.data)
        _settle(folder)
        stem = f"{target}-{seen.signature.key}"
        _write(self.reports / f"{stem}.txt", seen.text.encode(), again=True)
        _settle(self.reports)
        plain = {
            "target": target, "against": against, "input": name,
            "signature": seen.signature.as_json(),
        }  # fmt: skip
        _write(self.records / f"{stem}.json", json.dumps(plain).encode() + b"\n", again=True)
        _settle(self.records)

    def add_trace(self, target: str, key: str, trace: str) -> None:
        """Write the smallest trace of a finding. Errors: OSError."""
        _write(self.reports / f"{target}-{key}.trace.txt", trace.encode(), again=True)
        _settle(self.reports)

    def all_records(self) -> Iterator[Record]:
        """Yield what is known of findings by files alone."""
        for path in sorted(self.records.glob("*.json")):
            with contextlib.suppress(*_NO_RECORD):
                if not path.is_file():
                    continue
                plain = json.loads(path.read_text())
                signature = Signature.from_json(plain["signature"])
                if _is_name(plain["target"]) and _is_name(plain["input"]):
                    yield Record(plain["target"], signature, plain["input"])

    def all_inputs(self, target: str) -> Iterator[tuple[str, int]]:
        """Yield name and size of each input of a corpus; what is damaged is put aside."""
        if _is_name(target):
            yield from self._whole(self.corpus / target)

    def targets(self) -> list[str]:
        """Return the targets that have a corpus."""
        return sorted(path.name for path in self.corpus.iterdir() if path.is_dir())

    def input(self, target: str, name: str) -> bytes | None:
        """Return an input of a corpus; None when it is not there, or damaged."""
        return _read(self.corpus / target / name)

    def finding(self, target: str, name: str) -> bytes | None:
        """Return the input of a finding; None when it is not there, or damaged."""
        return _read(self.findings / target / name)

    def tidy(self) -> None:
        """Remove drafts that a killed campaign has left, where it writes and nowhere else."""
        for draft in self.directory.glob(f".{PAGE}.*.tmp"):
            _remove_draft(draft)
        below = [*self.corpus.glob("*"), *self.findings.glob("*")]
        for folder in (self.records, self.reports, *below):
            for draft in folder.glob(".*.tmp"):
                _remove_draft(draft)

    def _whole(self, folder: Path) -> Iterator[tuple[str, int]]:
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_file():
                continue
            data = path.read_bytes()
            if name_of(data) == path.name:
                yield path.name, len(data)
            else:
                self.damaged.mkdir(exist_ok=True)
                path.replace(self.damaged / f"{folder.name}-{path.name}")


def _is_name(text: str) -> bool:
    """Say whether it names a file in a directory, and leads nowhere else."""
    return Path(text).name == text and text not in ("", "..")


def _remove_draft(path: Path) -> None:
    if _DRAFT.fullmatch(path.name) and path.is_file() and not path.is_symlink():
        path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """Return what a regular file holds: a pipe would be waited for."""
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError:
        return None
    return data if data is not None and name_of(data) == path.name else None


def _write(path: Path, data: bytes, *, again: bool = False) -> None:
    """Write a file; one that is named by its content is written once."""
    if not again and _read(path) is not None:
        return
    with replacing(path) as draft, draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _settle(folder: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
