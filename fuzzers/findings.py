"""Keep findings in a directory: the input, why it is one, and each signature once."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from decoders.errors import DecodeError
from fuzzers.target import Found, FuzzTarget, Trace, Traced
from harness.errors import HarnessError
from harness.files import replacing
from harness.signature import TEXT_LIMIT, Signature, of_crash
from harness.trace import write_text

_SIGNATURES: Final = "signatures"
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

    def add(
        self,
        target: FuzzTarget,
        data: bytes,
        signature: Signature,
        text: str,
        trace: Trace | None = None,
    ) -> Path | None:
        """Keep an input; None when there is one of its signature already."""
        name = f"{target.name}-{hashlib.sha1(data).hexdigest()}"
        path = self.directory / name
        claim = self.directory / _SIGNATURES / f"{target.name}-{signature.key}"
        try:
            claimed = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(claimed, "w") as stream:
            stream.write(json.dumps({"input": name, "signature": signature.as_json()}) + "\n")
        _write(path, data)
        if trace is None and isinstance(target, Traced):
            trace = target.events(data)
        explanation = _explain(target, signature, text, trace)
        _write(path.with_name(name + EXPLANATION), explanation.encode())
        return path

    def __iter__(self) -> Iterator[Kept]:
        """Yield what is kept, by name."""
        for claim in sorted((self.directory / _SIGNATURES).iterdir()):
            try:
                plain = json.loads(claim.read_text())
                signature = Signature.from_json(plain["signature"])
                path = self.directory / Path(plain["input"]).name
                text = path.with_name(path.name + EXPLANATION).read_text(errors="replace")
            except (ValueError, KeyError, TypeError, OSError, DecodeError):
                continue  # of a writer that was killed, or is at it
            yield Kept(path, claim.name.rpartition("-")[0], signature, text)


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
