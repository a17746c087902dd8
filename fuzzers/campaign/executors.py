"""Who does slices: threads here, or workers of a Dask cluster; both give futures of results."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from fuzzers.campaign.handing import EVERY, Courier
from fuzzers.campaign.places import Place, remove
from fuzzers.campaign.slices import (
    Look,
    Result,
    Slice,
    Stopped,
    environment,
    run_slice,
    salvage_all,
)
from harness.errors import HarnessError

HOW_TO_INSTALL: Final = "pip install 'dmarewind[cluster]'"
_CONNECTING: Final = 20
_ACKNOWLEDGED_KEPT: Final = 10_000
_RETRIES: Final = 3
_QUEUED: Final = 64
"""Results that wait on the scheduler until they are taken."""

_SENDING: Final = 2


class Future(Protocol):
    """Stand for what a slice will bring; that of concurrent.futures does, and Dask's."""

    def done(self) -> bool:
        """Say whether it ended."""
        ...

    def result(self) -> Any:
        """Return it, or raise."""
        ...


Work = Callable[[Slice, Path, Stopped, Look], Result]
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

    def handed(self) -> list[Result]:
        """Return what slices that still run have found, and not handed over before."""
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
        return self._pool.submit(self._run, task)

    def _run(self, task: Slice) -> tuple[Result, ...]:
        return (self._do(task, self._work, self._stopped.is_set, _no_look),)

    def acknowledge(self, result: Result) -> None:
        """Remove a place."""
        remove(self._work / result.place)

    def handed(self) -> list[Result]:
        """Return nothing: a place here outlives whoever is at work in it."""
        return []

    def stop(self) -> None:
        """Have slices end early."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for the threads."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)


def _no_look(place: Place) -> None:
    del place


class Cluster:
    """Do slices on the workers of a Dask scheduler; each machine has a checkout and a clang."""

    def __init__(self, address: str, campaign: Path, workers: int, do: Work = run_slice) -> None:
        try:
            distributed: Any = import_module("distributed")
        except ImportError as error:
            raise HarnessError(f"--scheduler needs Dask: {HOW_TO_INSTALL} ({error})") from error
        _refuse_odd(address)
        try:
            self._client = distributed.Client(address, timeout=_CONNECTING, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise HarnessError(f"{address}: no Dask scheduler answers ({error})") from error
        self._workers, self._do = workers, do
        # Campaigns that share machines must not take what is another's.
        name = hashlib.sha1(str(campaign.resolve()).encode()).hexdigest()[:12]
        self._folder = f"dmarewind-campaign-{name}"
        self._acknowledged: dict[str, None] = {}
        self._queue = distributed.Queue(self._folder, client=self._client, maxsize=_QUEUED)
        self._asked = 0.0

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

    def handed(self) -> list[Result]:
        """Return what has come in; nothing while the scheduler does not answer."""
        now = time.monotonic()
        if now < self._asked + EVERY or self._client.status != "running":
            return []
        self._asked = now
        try:
            return [pickle.loads(one) for one in self._queue.get(timeout=_CONNECTING, batch=True)]
        except (OSError, KeyError):
            return []  # It begins anew, or is gone, which capacity() says.

    def stop(self) -> None:
        """Leave slices alone: what they find is taken by the next campaign that runs there."""

    def close(self) -> None:
        """Disconnect; a scheduler that is gone is not waited for, nor told of again."""
        with contextlib.suppress(OSError):
            self._client.close(timeout=_CONNECTING)


def _refuse_odd(address: str) -> None:
    """Raise HarnessError for what names no scheduler: a client of it would not end quietly."""
    comm: Any = import_module("distributed.comm")
    try:
        resolved: str = comm.resolve_address(address)
    except (OSError, ValueError) as error:
        problem = str(error)
    else:
        if not resolved.startswith("inproc:"):
            return
        problem = "inproc is for one process"
    raise HarnessError(f"{address}: not the address of a Dask scheduler: {problem}")


def run_remotely(
    do: Work, task: Slice, folder: str, acknowledged: frozenset[str]
) -> tuple[Result, ...]:
    """Do a slice on this machine, in its directory for temporary files.

    What slices have left there that were killed comes first.
    """
    parent = Path(tempfile.gettempdir()) / folder
    salvaged = salvage_all(parent, acknowledged)
    courier = Courier(functools.partial(_send, folder))
    return (do(task, parent, lambda: False, courier), *salvaged)


def _send(name: str, result: Result) -> bool:
    """Put a result into a queue of the scheduler; say whether there was room."""
    distributed: Any = import_module("distributed")
    try:
        client = distributed.get_client(timeout=_SENDING)
        queue = distributed.Queue(name, client=client, maxsize=_QUEUED)
        queue.put(pickle.dumps(result), timeout=_SENDING)
    except (OSError, ValueError, KeyError):
        return False  # It stays in its place, and comes with the result.
    return True


def executor_for(
    scheduler: str | None, directory: Path, work: Path, workers: int | None
) -> Executor:
    """Return what the command line asks for. Errors: HarnessError."""
    if scheduler is not None:
        return Cluster(scheduler, directory, workers or 0)
    environment()
    return Local(work, workers or 1)
