"""Who says what a trace shows: a replay on a target, two targets, or somebody else's program."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from decoders.errors import DecodeError
from decoders.events import Event, Fault, Translation
from harness.differential.pair import BUDGETS, compare
from harness.errors import HarnessError
from harness.findings import Finding
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.native import core
from harness.qemu.pc import PROGRAM, Pc
from harness.qemu.process import EndedError
from harness.replay import unit_config
from harness.signature import (
    DISAGREEMENT,
    HANG,
    Signature,
    of_crash,
    of_difference,
    of_finding,
)
from harness.signature_words import without_numbers
from harness.targets import real_target_named, target_named
from harness.targets.base import ReplayTarget
from harness.targets.qemu import machine_for
from harness.targets.qemu_runner import QemuRunner

INTERESTING: Final = Signature("test", subject="exit status 0")
"""What a script says of a trace that still shows the finding."""

SCRIPT_SECONDS: Final = 60.0
"""Seconds that a script may take for one candidate."""
_VERSION_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Say one thing that a trace shows; the finding is missing where nothing can be said of it."""

    signature: Signature
    finding: Finding | None = None


class Judge(Protocol):
    """Say what a trace shows, each signature once, in the order of the trace."""

    name: str
    repeatable: bool
    """Whether the same trace always shows the same."""

    @property
    def identity(self) -> Sequence[str]:
        """Return what its verdicts depend on beside the trace: those of another do not count."""
        ...

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return what a trace shows; nothing when it cannot be run.

        Errors: HarnessError when the judge itself cannot do its work.
        """
        ...


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of_core() -> str:
    return _digest(Path(str(core().__file__)))


def _version(program: str) -> str:
    """Return what a QEMU says of its version; a script that starts one stays the same."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_VERSION_SECONDS, check=False,
        ).stdout  # fmt: skip
    return ""


def identity_of(program: str) -> tuple[str, ...]:
    """Return what tells a QEMU from others: how it was named, its content, its version."""
    where = shutil.which(program)
    return (program,) if where is None else (program, _digest(Path(where)), _version(where))


def _fed(target: ReplayTarget, trace: Trace) -> list[Finding]:
    for block in trace.blocks():
        target.feed(block)
    target.finish()
    return target.findings()


def once(shown: list[Shown]) -> list[Shown]:
    """Return each signature once, where it comes first."""
    return list({one.signature: one for one in reversed(shown)}.values())[::-1]


def _event(trace: Trace, number: int) -> Event | None:
    return trace.events[number] if 0 <= number < len(trace.events) else None


class ReplayJudge:
    """Replay on the model or the native core and take the findings."""

    repeatable = True

    def __init__(self, target: str) -> None:
        self.name = target

    @property
    def identity(self) -> Sequence[str]:
        """Return the name, and what the core is."""
        return (self.name,) if self.name == "model" else (self.name, _digest_of_core())

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return the findings."""
        target = target_named(self.name, unit_config(trace.header))
        try:
            found = _fed(target, trace)
        except (DecodeError, *BUDGETS):
            return []
        return _shown(trace, found)


def _shown(trace: Trace, found: Sequence[Finding]) -> list[Shown]:
    return once([Shown(of_finding(one, _event(trace, one.event)), one) for one in found])


class QemuJudge:
    """Repeat traces on a real QEMU; what it does not survive is a crash, or a hang.

    Each thread has a QEMU of its own. Use as a context manager.
    """

    name = "qemu"
    repeatable = False

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program
        self._own = threading.local()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        # One that never starts has not been ended by any trace.
        try:
            Pc((), self._program).close()
        except EndedError as error:
            raise HarnessError(f"{self._program} does not start: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    @property
    def identity(self) -> Sequence[str]:
        """Return the program, its content and what it says of its version."""
        return self.name, *identity_of(self._program)

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return the findings, or how QEMU ended."""
        config = unit_config(trace.header)
        try:
            if isinstance(config, UnitConfig):
                found = self._runner().run(config, trace.events)
            else:
                machine = machine_for(trace.events, self._program)
                found = _fed(real_target_named(self.name, config, machine), trace)
        except EndedError as error:
            return [Shown(of_crash(str(error)))]
        except (DecodeError, *BUDGETS):
            return []
        except HarnessError as error:
            if isinstance(error.__cause__, TimeoutError):
                return [Shown(Signature(HANG, subject="time"))]
            raise
        return _shown(trace, found)

    def _runner(self) -> QemuRunner:
        runner: QemuRunner | None = getattr(self._own, "runner", None)
        if runner is None:
            runner = self._own.runner = self._cleanup.enter_context(QemuRunner(self._program))
        return runner


class DisagreementJudge:
    """Lead the model and the native core through the trace, and take where they part."""

    name = "model against native"
    repeatable = True

    @property
    def identity(self) -> Sequence[str]:
        """Return the name, and what the core is."""
        return self.name, _digest_of_core()

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return the first thing that the two do not say alike."""
        found = compare(unit_config(trace.header), trace.events)
        if found is None:
            return []
        event = _event(trace, found.event)
        model, native = _plain(found.model), _plain(found.native)
        what = without_numbers(found.what)
        return [Shown(of_difference(DISAGREEMENT, event, what, model, native))]


def _plain(said: object) -> object:
    """Return one answer as it is; of more than one answer the kind."""
    return said if isinstance(said, Fault | Translation | int | None) else type(said).__name__


_GUARD: Final = ("/bin/sh", "-c", "read _; kill -KILL 0")
"""Waits until whoever holds its standard input has ended, and then ends its process group."""


class ScriptJudge:
    """Ask a program: exit status 0 says that a candidate still shows the finding.

    It is run in an empty directory with the file as argument, as C-Reduce's interestingness tests
    are. write puts a candidate into a file of the form that the program wants.
    """

    repeatable = False

    def __init__(
        self,
        script: Path,
        file_name: str,
        write: Callable[[Path, Trace], None],
        seconds: float = SCRIPT_SECONDS,
    ) -> None:
        self.name = str(script)
        self._script = script.resolve()
        self._file_name = file_name
        self._write = write
        self._seconds = seconds
        if not self._script.is_file() or not os.access(self._script, os.X_OK):
            raise HarnessError(f"{script}: not a program that can be run (chmod +x)")

    @property
    def identity(self) -> Sequence[str]:
        """Return the script and its content, the form that it gets, and what it may take."""
        script = str(self._script)
        return script, _digest(self._script), self._file_name, str(self._seconds)

    def __call__(self, trace: Trace) -> list[Shown]:
        """Return INTERESTING or nothing; a script that takes too long has not said 0."""
        with tempfile.TemporaryDirectory(prefix="dmarewind-test-") as folder:
            path = Path(folder) / self._file_name
            self._write(path, trace)
            guard = subprocess.Popen(_GUARD, stdin=subprocess.PIPE, process_group=0)
            try:
                status = self._status(path, guard.pid)
            finally:
                # What the script started ends with it.
                os.killpg(guard.pid, signal.SIGKILL)
                guard.communicate()
        return [Shown(INTERESTING)] if status == 0 else []

    def _status(self, path: Path, group: int) -> int:
        process = subprocess.Popen(
            [str(self._script), str(path)],
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=group,
        )
        try:
            return process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            process.kill()
            process.wait()
