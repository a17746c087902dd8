"""Keep findings in a directory: the input, why it is one, and each signature once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from fuzzers.target import Found, FuzzTarget, Trace, Traced
from harness.errors import HarnessError
from harness.files import replacing
from harness.signature import TEXT_LIMIT, Signature, of_crash
from harness.trace import write_text

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk."""

_SIGNATURES: Final = "signatures"
_LOCK: Final = ".lock"
_TEXT_KEPT: Final = 16 << 10
EXPLANATION: Final = ".txt"
"""What an explanation's name ends with; the input has the same name without it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Describe a finding that is kept."""

    path: Path
    target: str
    signature: Signature
    text: str

    def as_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "finding": str(self.path),
            "target": self.target,
            "signature": self.signature.as_json(),
            "text": self.text,
        }


class Findings:
    """Keep findings in a directory that several processes may write to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / _SIGNATURES).mkdir(parents=True, exist_ok=True)
        self._known: set[str] = set()

    def add(
        self,
        target: FuzzTarget,
        data: bytes,
        signature: Signature,
        text: str,
        trace: Trace | None = None,
    ) -> Path | None:
        """Keep an input; None when there is one of its signature already.

        The signature is written last: a writer that is killed before has kept nothing, and whoever
        finds the same keeps it.
        """
        if self._has(self._claim(target, signature)):
            return None
        if trace is None and isinstance(target, Traced):
            trace = target.events(data)
        return self.adopt(target, data, signature, _explain(target, signature, text, trace))

    def adopt(
        self, target: FuzzTarget, data: bytes, signature: Signature, explanation: str
    ) -> Path | None:
        """Keep an input with the explanation that it has elsewhere; None as of add()."""
        name = f"{target.name}-{hashlib.sha1(data).hexdigest()}"
        path = self.directory / name
        claim = self._claim(target, signature)
        if self._has(claim):
            return None
        plain = {"input": name, "signature": signature.as_json()}
        with self._alone():
            if self._has(claim):
                return None
            _write(path, data)
            _write(path.with_name(name + EXPLANATION), explanation.encode())
            _write(claim, f"{json.dumps(plain)}\n".encode())
        return path

    def _claim(self, target: FuzzTarget, signature: Signature) -> Path:
        return self.directory / _SIGNATURES / f"{target.name}-{signature.key}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one of all processes that adds; a lock does not outlive who holds it."""
        with (self.directory / _SIGNATURES / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def leave(self, target: FuzzTarget, artifact: Path) -> None:
        """Take an input over whose signature is to be found out later. Errors: OSError."""
        name = f"{target.name}-{hashlib.sha1(artifact.read_bytes()).hexdigest()}"
        shutil.move(artifact, self.directory / name)

    def unclaimed(self) -> Iterator[bytes]:
        """Yield whole inputs whose signature nobody has written."""
        claimed = {kept.path.name for kept in self}
        for path in sorted(self.directory.glob("*-*")):
            if path.name not in claimed and not path.name.startswith("."):
                data = path.read_bytes()
                if path.name.endswith(hashlib.sha1(data).hexdigest()):
                    yield data

    def _has(self, claim: Path) -> bool:
        """Say whether a signature is kept, with its input; fuzzers ask that all the time."""
        if claim.name not in self._known and _kept(claim) is None:
            return False
        self._known.add(claim.name)
        return True

    def __iter__(self) -> Iterator[Kept]:
        """Yield what is kept, by name."""
        claims = sorted((self.directory / _SIGNATURES).iterdir())
        yield from filter(None, map(_kept, claims))


def _kept(claim: Path) -> Kept | None:
    """Return what a file of a signature tells of; None for a draft, or what a power cut left."""
    if claim.name.startswith("."):
        return None
    try:
        plain = json.loads(claim.read_text())
        signature = Signature.from_json(plain["signature"])
        path = claim.parents[1] / Path(plain["input"]).name
        text = path.with_name(path.name + EXPLANATION).read_text(errors="replace")
    except (ValueError, KeyError, TypeError, OSError, DecodeError):
        return None
    return Kept(path, claim.name.rpartition("-")[0], signature, text)


def signature_of(error: BaseException, report: str) -> tuple[Signature, str]:
    """Return the signature and the text of what a runner raised, report being its traceback."""
    if isinstance(error, Found):
        return error.signature, error.text
    return of_crash(report[-TEXT_LIMIT:]), report


def _explain(target: FuzzTarget, signature: Signature, text: str, trace: Trace | None) -> str:
    """Say what was found: the signature, what was said, and the events that lead to it."""
    parts = [f"{target.name}: {signature}", f"signature {signature.key}", "", text[:_TEXT_KEPT]]
    if trace is not None:
        parts += ["", "as a trace:", "", _written(trace)]
    return "\n".join(parts) + "\n"


def _written(trace: Trace) -> str:
    out = io.StringIO()
    try:
        write_text(out, *trace)
    except (DecodeError, HarnessError) as error:
        out.write(f"# the rest cannot be written: {error}\n")
    return out.getvalue()


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as draft:
        draft.write_bytes(data)
