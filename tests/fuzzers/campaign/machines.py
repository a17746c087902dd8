"""A Dask scheduler and two workers of one thread each, as on machines of their own.

Each worker is a process with its own directory for temporary files, which nobody else looks at.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from fuzzers import instrumented

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed")

_STARTING: Final = 120


class Machine:
    """Run a process of Dask, in a session of its own."""

    def __init__(self, directory: Path, surroundings: Mapping[str, str], *words: str) -> None:
        self.directory, self._words = directory, words
        self._surroundings = {**surroundings, "TMPDIR": str(directory)}
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._words],
                cwd=instrumented.ROOT, env=self._surroundings, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Return the worker's process."""
        return self.process.pid

    def places(self) -> Iterator[Path]:
        """Yield where slices are at work, or were."""
        yield from self.directory.glob("dmarewind-campaign-*/*")

    def kill(self) -> None:
        """Kill the worker alone, as the kernel does when memory is short.

        Its fuzzers are left, but get no further: libFuzzer puts shorter inputs in the place of
        longer ones, and what is there at this moment is compared later.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGSTOP)
        self.process.kill()
        self.process.wait()

    def destroy(self) -> None:
        """Kill all that runs there; nothing of the disk is ever seen again."""
        self.off()
        shutil.rmtree(self.directory)

    def off(self) -> None:
        """Kill all that runs there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.kill()


@contextmanager
def two_machines(
    directory: Path, surroundings: Mapping[str, str]
) -> Iterator[tuple[str, list[Machine]]]:
    """Give the address of a scheduler, and its two workers."""
    note = directory / "scheduler.json"
    with ExitStack() as stack:
        scheduler = Machine(
            directory / "scheduler", surroundings, "distributed.cli.dask_scheduler",
            *("--port", "0", "--host", "127.0.0.1", "--no-dashboard"),
            *("--scheduler-file", str(note)),
        )  # fmt: skip
        stack.callback(scheduler.off)
        deadline = time.monotonic() + _STARTING
        while not note.exists() or not note.read_text():
            assert time.monotonic() < deadline, (scheduler.directory / "log").read_text()
            time.sleep(0.2)
        where = json.loads(note.read_text())["address"]
        workers = []
        for name in ("first", "second"):
            worker = Machine(
                directory / name, surroundings, "distributed.cli.dask_worker", where,
                *("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name),
                *("--local-directory", str(directory / name)),
            )  # fmt: skip
            stack.callback(worker.off)
            workers.append(worker)
        yield where, workers
