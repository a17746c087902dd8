"""Run one QEMU that ends with us, and say how it ended when it does."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Final

from harness.errors import HarnessError

PATIENCE: Final = 5.0
"""Seconds that a process which closed its socket may take to end."""

LINES_SHOWN: Final = 5
_TAIL: Final = 4096
_LOG_LIMIT: Final = 1 << 20

_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_THP_DISABLE: Final = 41


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies (runs between fork and exec)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _before_exec() -> None:
    """Also keep RAM in small pages: which of them exist tells what was touched (qemu.residency)."""
    die_with_parent()
    _LIBC.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


class EndedError(HarnessError):
    """Report that QEMU ended by itself; status is its exit status, or minus the signal."""

    def __init__(self, how: str, status: int) -> None:
        super().__init__(how)
        self.status = status


class HungError(HarnessError):
    """Report that a QEMU that still runs does not answer."""


LOST: Final = (EndedError, HungError)
"""Errors behind which a QEMU has to be started anew."""


class Process:
    """Own a QEMU and what it prints."""

    def __init__(self, command: Sequence[str], inherited: Sequence[int]) -> None:
        self._cleanup = contextlib.ExitStack()
        # Appending, so that the file can be emptied while QEMU writes.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._cleanup.callback(self._log.close)
        self._name = command[0]
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                preexec_fn=_before_exec,
            )
        except OSError as error:
            self._cleanup.close()
            raise HarnessError(f"cannot run {command[0]}: {error}") from error

    @property
    def running(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def printed(self) -> str:
        """Return the last lines that QEMU printed."""
        self._log.seek(0, 2)
        self._log.seek(max(0, self._log.tell() - _TAIL))
        lines = self._log.read(_TAIL).decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-LINES_SHOWN:])

    def bound_log(self) -> None:
        """Forget what was printed once it is much."""
        if self._log.seek(0, 2) > _LOG_LIMIT:
            self._log.truncate(0)

    def ended(self) -> EndedError | None:
        """Describe the end of a process that closed its socket; None when it still runs."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return None
        how = f"exit status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-status).name
        printed = self.printed()
        said = f"; it printed: {printed}" if printed else ""
        return EndedError(f"{self._name} ended ({how}){said}", status)

    def close(self) -> None:
        """Kill what still runs and free everything."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._cleanup.close()
