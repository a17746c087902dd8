"""Run each input of a directory once, counting lines and branches of the Python code.

`python -m fuzzers.coverage.inputs TARGET AGAINST DIRECTORY SECONDS DATA` leaves what coverage.py
counted in the file DATA, and prints one JSON object. Nothing of the project is loaded before it is
counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
COUNTED: Final = ("decoders", "harness")
"""Packages whose lines count."""


def main(argv: Sequence[str]) -> int:
    """Run inputs until there are no more, or the seconds are over."""
    name, against, directory, seconds, data = argv
    counter: Any = import_module("coverage").Coverage(
        data_file=data, branch=True, config_file=False,
        include=[str(ROOT / package / "*") for package in COUNTED],
    )  # fmt: skip
    counter.start()
    try:
        paths = sorted(path for path in Path(directory).iterdir() if path.is_file())
        said = _run(name, against, paths, float(seconds))
    finally:
        counter.stop()
        counter.save()
    print(json.dumps(said))
    return 0


def _run(name: str, against: str, paths: Sequence[Path], seconds: float) -> dict[str, int]:
    runner = import_module("fuzzers.target").target_named(name).runner(against)
    deadline = time.monotonic() + seconds
    run = raised = 0
    for path in paths:
        if run and time.monotonic() >= deadline:
            break
        run += 1
        try:
            runner(path.read_bytes())
        except Exception:  # noqa: BLE001 -- what it says of the input is not asked here
            raised += 1
    return {"run": run, "inputs": len(paths), "raised": raised}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
