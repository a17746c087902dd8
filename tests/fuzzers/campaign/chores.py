"""A campaign whose slices take no fuzzer: they make up inputs and findings, slowly.

`python -m tests.fuzzers.campaign.chores DIR SECONDS` runs one as the command does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random

from fuzzers.campaign.engine import Campaign, Options
from fuzzers.campaign.executors import Local
from fuzzers.campaign.places import Seen, name_of, working_place
from fuzzers.campaign.slices import FUZZ, Result, Slice, Stopped, worker_name
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


def make_up(task: Slice, parent: Path, stopped: Stopped) -> tuple[Result, ...]:
    """Write inputs and findings as fuzzers do, and return them."""
    chance = Random()
    with working_place(parent) as place:
        place.fill({"kind": task.kind, "target": task.target}, task.inputs[:10])
        findings = Findings(place.findings)
        for _ in range(chance.randrange(1, 12)):
            if stopped():
                break
            data = chance.randbytes(chance.randrange(1, 3000))
            (place.corpus / name_of(data)).write_bytes(data)
            if chance.random() < 0.2:
                number = chance.randrange(SIGNATURES)
                findings.add(target_named(task.target), data, signature(number), "it said no")
            time.sleep(chance.random() * 0.02)
        new = place.new_inputs() if task.kind == FUZZ else ()
        return (
            Result(
                task.kind, task.target, place.name, worker_name(), new, place.seen(), 1.0, 100,
                len(new), len(new), wanted=task.wanted,
            ),
        )  # fmt: skip


def main(directory: Path, seconds: float) -> int:
    args = argparse.Namespace(json=True, quiet=False, color="never")
    with alone(directory):
        state = State(directory)
        executor = Local(state.files.work, 2, make_up)
        options = Options({TARGET: "none"}, 1.0, time.monotonic() + seconds)
        teller = Teller(args, directory, [TARGET])
        campaign = Campaign(state, executor, options, teller)
        campaign.run()
        teller.end(state, len(campaign.found))
        state.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
