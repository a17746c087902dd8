"""Who does slices: threads here, or workers of a Dask cluster; both give futures of results."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from fuzzers.campaign.places import remove
from fuzzers.campaign.slices import Result, Slice, Stopped, environment, run_slice
from harness.errors import HarnessError

HOW_TO_INSTALL: Final = "pip install 'dmarewind[cluster]'"
_CONNECTING: Final = 20
_ACKNOWLEDGED_KEPT: Final = 10_000
_RETRIES: Final = 3


class Future(Protocol):
    """Stand for what a slice will bring; that of concurrent.futures does, and Dask's."""

    def done(self) -> bool:
        """Say whether it ended."""
        ...

    def result(self) -> Any:
        """Return it, or raise."""
        ...


Work = Callable[[Slice, Path, Stopped], tuple[Result, ...]]
"""Does a slice in a directory of places."""


class Executor(Protocol):
    """Do slices elsewhere."""

    def capacity(self) -> int:
        """Return how many slices can run at the same time. Errors: HarnessError."""
        ...

    def submit(self, task: Slice) -> Future:
        """Have a slice done."""
        ...

    def acknowledge(self, result: Result) -> None:
        """Say that a result is kept: its place is not needed any more."""
        ...

    def stop(self) -> None:
        """Have slices end early."""
        ...

    def close(self) -> None:
        """Let go of workers."""
        ...


class Local:
    """Do slices in threads, each with a fuzzer's process."""

    def __init__(self, work: Path, workers: int, do: Work = run_slice) -> None:
        self._work, self._workers, self._do = work, workers, do
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slice")

    def capacity(self) -> int:
        """Return how many slices can run at the same time."""
        return self._workers

    def submit(self, task: Slice) -> Future:
        """Have a slice done."""
        return self._pool.submit(self._do, task, self._work, self._stopped.is_set)

    def acknowledge(self, result: Result) -> None:
        """Remove a place."""
        remove(self._work / result.place)

    def stop(self) -> None:
        """Have slices end early."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for the threads."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)


class Cluster:
    """Do slices on the workers of a Dask scheduler; each machine has a checkout and a clang."""

    def __init__(self, address: str, campaign: Path, workers: int, do: Work = run_slice) -> None:
        try:
            distributed: Any = import_module("distributed")
        except ImportError as error:
            raise HarnessError(f"--scheduler needs Dask: {HOW_TO_INSTALL} ({error})") from error
        try:
            self._client = distributed.Client(address, timeout=_CONNECTING, set_as_default=False)
        except (OSError, ValueError) as error:
            raise HarnessError(f"{address}: no Dask scheduler answers ({error})") from error
        self._workers, self._do = workers, do
        # Campaigns that share machines must not take what is another's.
        name = hashlib.sha1(str(campaign.resolve()).encode()).hexdigest()[:12]
        self._folder = f"dmarewind-campaign-{name}"
        self._acknowledged: dict[str, None] = {}

    def capacity(self) -> int:
        """Return how many threads the workers have, or --workers when that is less.

        Errors: HarnessError when the scheduler is gone.
        """
        if self._client.status not in ("running", "connecting"):
            raise HarnessError("the Dask scheduler is gone; the same command goes on later")
        threads: int = sum(self._client.nthreads().values())
        return min(self._workers, threads) if self._workers else threads

    def submit(self, task: Slice) -> Future:
        """Have a slice done; on another worker where one dies."""
        future: Future = self._client.submit(
            run_remotely, self._do, task, self._folder, frozenset(self._acknowledged),
            pure=False, retries=_RETRIES,
        )  # fmt: skip
        return future

    def acknowledge(self, result: Result) -> None:
        """Remember a place: the next slice on that machine removes it."""
        self._acknowledged[result.place] = None
        while len(self._acknowledged) > _ACKNOWLEDGED_KEPT:
            del self._acknowledged[next(iter(self._acknowledged))]

    def stop(self) -> None:
        """Leave slices alone: what they find is taken by the next campaign that runs there."""

    def close(self) -> None:
        """Disconnect."""
        self._client.close(timeout=_CONNECTING)


def run_remotely(
    do: Work, task: Slice, folder: str, acknowledged: frozenset[str]
) -> tuple[Result, ...]:
    """Do a slice on this machine, in its directory for temporary files."""
    known = Slice(
        task.kind, task.target, task.against, task.seconds, task.inputs, task.wanted, acknowledged
    )
    return do(known, Path(tempfile.gettempdir()) / folder, lambda: False)


def executor_for(
    scheduler: str | None, directory: Path, work: Path, workers: int | None
) -> Executor:
    """Return what the command line asks for. Errors: HarnessError."""
    if scheduler is not None:
        return Cluster(scheduler, directory, workers or 0)
    environment()
    return Local(work, workers or 1)
