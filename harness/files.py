"""Write files so that a reader sees the old content or the new, and nothing between."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the name of an empty file that takes path's place when the body ends.

    An exception leaves path as it was. What path was allowed (its mode) stays. Errors: OSError.
    """
    final = Path(path).resolve()
    draft = final.with_name(f".{final.name[:200]}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield draft
        if final.exists():
            draft.chmod(stat.S_IMODE(final.stat().st_mode))
            _refuse_locked(final)
        draft.replace(final)
    finally:
        draft.unlink(missing_ok=True)


def _refuse_locked(path: Path) -> None:
    """Raise HarnessError when another program is writing a file that is to be replaced."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = f"{path}: another program is writing this file; wait for its end"
            raise HarnessError(problem) from error


def is_same(one: Path, other: Path) -> bool:
    """Say whether two paths name one file, which need not exist."""
    linked = one.exists() and other.exists() and one.samefile(other)
    return linked or one.resolve() == other.resolve()
