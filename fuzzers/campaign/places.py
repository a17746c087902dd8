"""Keep what a slice works on in a directory, from which it can be taken after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from fuzzers.findings import Findings
from harness.signature import Signature

INPUT_LIMIT: Final = 1 << 20
"""Bytes of the longest input that is taken in."""

ROUND: Final = "round"
"""What names of directories begin with in which candidates are run."""

_NOTE: Final = "slice.json"
_LOCK: Final = "lock"
_WRITES_TO: Final = re.compile(rb"(?:\0-artifact_prefix=|\0-o\0)([^\0]+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold a finding as a worker saw it: the input, and its explanation."""

    signature: Signature
    data: bytes
    text: str


def name_of(data: bytes) -> str:
    """Return the name of an input's file, which is libFuzzer's."""
    return hashlib.sha1(data).hexdigest()


class Place:
    """Hold a directory that one slice uses; whoever has its lock is at work there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.corpus, self.findings = path / "corpus", path / "findings"

    @property
    def name(self) -> str:
        """Return what tells it from all others."""
        return self.path.name

    def fill(self, kind: str, target: str, inputs: tuple[bytes, ...]) -> None:
        """Put inputs into the corpus, and on record what this is about."""
        self.corpus.mkdir()
        for data in inputs:
            (self.corpus / name_of(data)).write_bytes(data)
        note = {"kind": kind, "target": target, "given": [*map(name_of, inputs)]}
        with (self.path / _NOTE).open("w") as stream:
            stream.write(json.dumps(note))
            stream.flush()
            os.fsync(stream.fileno())

    def about(self) -> tuple[str, str, frozenset[str]]:
        """Return kind, target and the names of inputs that were given, as far as is on record."""
        try:
            plain = json.loads((self.path / _NOTE).read_text())
            return str(plain["kind"]), str(plain["target"]), frozenset(map(str, plain["given"]))
        except (OSError, ValueError, KeyError, TypeError):
            return "", "", frozenset()

    def new_inputs(self) -> tuple[bytes, ...]:
        """Return inputs that were not given."""
        return tuple(inputs_in(self.corpus, self.about()[2]))

    def unsettled(self) -> tuple[bytes, ...]:
        """Return inputs that may be findings: who found them did not get to say what they show."""
        return tuple(data for folder in self._folders() for data in Findings(folder).unclaimed())

    def left(self) -> tuple[Seen, ...]:
        """Return findings, also those of rounds of shrinking."""
        return tuple(seen for folder in self._folders() for seen in findings_in(folder))

    def _folders(self) -> list[Path]:
        folders = [self.findings, *sorted(self.path.glob(f"{ROUND}*/findings"))]
        return [folder for folder in folders if folder.is_dir()]

    def seen(self) -> tuple[Seen, ...]:
        """Return findings whose inputs are whole."""
        return tuple(findings_in(self.findings)) if self.findings.is_dir() else ()


def inputs_in(directory: Path, known: frozenset[str] = frozenset()) -> Iterator[bytes]:
    """Yield inputs that are whole: a file is named by its content."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name in known:
            continue
        with contextlib.suppress(OSError):
            if path.stat().st_size > INPUT_LIMIT:
                continue
            data = path.read_bytes()
            # One that a full disk or a kill cut off has another name.
            if name_of(data) == path.name:
                yield data


def findings_in(directory: Path) -> Iterator[Seen]:
    """Yield the findings of a directory whose inputs are whole."""
    for kept in Findings(directory):
        with contextlib.suppress(OSError, DecodeError):
            data = kept.path.read_bytes()
            if kept.path.name.endswith(name_of(data)):
                yield Seen(kept.signature, data, kept.text)


@contextmanager
def working_place(parent: Path) -> Iterator[Place]:
    """Make a place and hold its lock; the place stays until it is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    path = parent / secrets.token_hex(8)
    with ExitStack() as stack:
        with _alone(parent):
            path.mkdir()
            lock = stack.enter_context((path / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield Place(path)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Have no other process or thread make places: one is nobody's until its lock is held."""
    with (parent / f".{_LOCK}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def left_places(parent: Path) -> Iterator[Place]:
    """Yield places at which nobody is at work any more, after their fuzzers were ended."""
    if not parent.is_dir():
        return
    for path in sorted(parent.glob("[!.]*")):
        with _alone(parent):
            try:
                with (path / _LOCK).open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
        end_orphans(path)
        yield Place(path)


def end_orphans(path: Path) -> None:
    """Kill what writes to a place, fuzzers and minimisers: whoever started them is gone."""
    here = Path(os.path.realpath(path))
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            written = _WRITES_TO.findall((entry / "cmdline").read_bytes())
            # They may have been started with another name of the same directory, and elsewhere.
            if written and any(
                here in Path(os.path.realpath(entry.joinpath("cwd", os.fsdecode(one)))).parents
                for one in written
            ):
                os.kill(int(entry.name), signal.SIGKILL)


def remove(path: Path) -> None:
    """Remove a place, however full the disk is."""
    shutil.rmtree(path, ignore_errors=True)
