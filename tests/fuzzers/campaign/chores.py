"""A campaign whose slices take no fuzzer: they make up inputs and findings, slowly.

`python -m tests.fuzzers.campaign.chores DIR SECONDS [SCHEDULER]` runs one as the command does.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import IO

from fuzzers.campaign.engine import Campaign, Options
from fuzzers.campaign.executors import Cluster, Executor, Local
from fuzzers.campaign.places import Seen, name_of, working_place
from fuzzers.campaign.slices import FUZZ, Look, Result, Slice, Stopped, worker_name
from fuzzers.campaign.state import State, alone
from fuzzers.campaign.status import Teller
from fuzzers.findings import Findings
from fuzzers.target import target_named
from harness.signature import Signature

TARGET = "empty"
SIGNATURES = 40


def signature(number: int) -> Signature:
    return Signature("crash", "", "sanitizer", f"kind {chr(97 + number % 26)}", "frame" * number)


def seen(number: int, data: bytes = b"an input", text: str = "it said no") -> Seen:
    return Seen(signature(number), data, text)


def make_up(task: Slice, parent: Path, stopped: Stopped, look: Look) -> Result:
    """Write inputs and findings as fuzzers do; return them."""
    chance = Random()
    with working_place(parent) as place:
        place.fill(task.kind, task.target, task.inputs[:10])
        findings = Findings(place.findings)
        for _ in range(chance.randrange(1, 12)):
            if stopped():
                break
            data = chance.randbytes(chance.randrange(1, 3000))
            (place.corpus / name_of(data)).write_bytes(data)
            if chance.random() < 0.2:
                number = chance.randrange(SIGNATURES)
                findings.add(target_named(task.target), data, signature(number), "it said no")
            look(place)
            time.sleep(chance.random() * 0.02)
        new = place.new_inputs() if task.kind == FUZZ else ()
        return Result(
            task.kind, task.target, place.name, worker_name(), new, place.seen(), 1.0, 100,
            len(new), len(new), wanted=task.wanted, complete=not stopped(),
        )  # fmt: skip


def main(directory: Path, seconds: float, scheduler: str = "") -> int:
    args = argparse.Namespace(json=True, quiet=False, color="never")
    with alone(directory):
        state = State(directory)
        executor: Executor = Local(state.files.work, 2, make_up)
        if scheduler:
            executor = Cluster(scheduler, directory, 0, make_up)
        options = Options({TARGET: "none"}, 1.0, time.monotonic() + seconds)
        teller = Teller(args, directory, [TARGET])
        campaign = Campaign(state, executor, options, teller)
        campaign.run()
        teller.end(state, len(campaign.found))
        state.close()
    return 0


class Forked:
    """Run one in a copy of this process, which has loaded everything: it begins at once."""

    def __init__(self, directory: Path, seconds: float) -> None:
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(read)
                sys.stdout = os.fdopen(write, "w")
                code = main(directory, seconds)
                sys.stdout.flush()
            finally:
                os._exit(code)
        os.close(write)
        self.stdout: IO[str] | None = os.fdopen(read)
        self.returncode: int | None = None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what else it prints until it ends; timeout is as good as none."""
        del timeout
        assert self.stdout is not None
        with self.stdout as stream:
            out = stream.read()
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return out, ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
