"""A campaign of real fuzzers, of which some have something to find: the core makes a mistake.

That core is the one of `python -m tools.bench defects`; processes learn of the mistake from their
environment, so that all else is what the command does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fuzzers import instrumented
from fuzzers.target import target_named
from tools.bench.defects.search import BUILD, built

ROOT = instrumented.ROOT
DEFECT = "domain_invalidation_keeps_tables"
"""Soon found by descriptors and stateful, which tell several signatures of it."""

PATIENCE = 300.0
TARGETS = "planted,descriptors,stateful"

needs_fuzzers = pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed")


@functools.cache
def surroundings() -> dict[str, str]:
    """Return what makes a process one with the mistake, after the core was built."""
    built()
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "DMAREWIND_FUZZ_BUILD": str(BUILD),
        "DMAREWIND_PLANT": DEFECT,
    }


def command(directory: Path, *words: str, targets: str = TARGETS) -> list[str]:
    """Return a campaign's command."""
    return [
        *(sys.executable, "-m", "harness", "--json", "campaign", str(directory)),
        *("--targets", targets, *words),
    ]


@dataclass
class Told:
    """Hold what a campaign has said so far that it keeps."""

    findings: set[str] = field(default_factory=set)
    slices: int = 0
    kinds: set[str] = field(default_factory=set)

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event in."""
        self.kinds.add(event["event"])
        if event["event"] == "finding":
            self.findings.add(f"{event['target']}-{event['signature']['key']}")
        self.slices += int(event["event"] == "slice" and bool(event["target"]))


def hear_ctrl_c() -> None:
    """Have a process end at Ctrl-C, also where the tests run in the background, which ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """Run a campaign in a session of its own; what it says goes to a file, which survives it."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stream, log.with_suffix(".errors").open("wb") as errors:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=surroundings(), stdin=subprocess.DEVNULL, stdout=stream,
                stderr=errors, start_new_session=True, preexec_fn=hear_ctrl_c,
            )  # fmt: skip

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what it has said so far; what a kill cut off is not said."""
        for line in self._log.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def told(self) -> Told:
        """Return what it has said so far."""
        told = Told()
        for event in self.events():
            told.hear(event)
        return told

    def errors(self) -> str:
        """Return what it has complained about."""
        return self._log.with_suffix(".errors").read_text()[-4000:]

    def kill(self, *, everything: bool) -> None:
        """Kill the campaign alone, or its fuzzers with it, as a reboot does.

        Fuzzers that are left get no further: libFuzzer puts shorter inputs in the place of longer
        ones, and what is there at this moment is compared later.
        """
        os.killpg(self.process.pid, signal.SIGKILL if everything else signal.SIGSTOP)
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it end as with Ctrl-C, and what it has started with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def until(running: Running, reached: Callable[[Told], bool], what: str) -> Told:
    """Wait until a campaign has said something."""
    deadline = time.monotonic() + PATIENCE
    while not reached(told := running.told()):
        assert running.process.poll() is None, running.errors()
        assert time.monotonic() < deadline, f"{what}: {told}"
        time.sleep(0.2)
    return told


def reached(directory: Path, name: str, inputs: set[str], scratch: Path) -> int:
    """Return how many edges of the core some inputs of a target reach."""
    target = target_named(name)
    corpus = scratch / "corpus"
    corpus.mkdir(parents=True)
    for one in inputs:
        path = directory / "corpus" / one
        if path.parent.name == target.name:
            (corpus / path.name).write_bytes(path.read_bytes())
    environment = instrumented.with_hooks(
        instrumented.environment(built()), target, target.against[0]
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzzers.worker", target.name, target.against[0]),
            *(str(scratch / "findings"), "-runs=0", f"-max_len={target.max_size}", str(corpus)),
        ],
        env=environment | {"DMAREWIND_PLANT": DEFECT}, capture_output=True, text=True,
        timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return max(int(one) for one in re.findall(r" cov: (\d+) ", done.stderr))
