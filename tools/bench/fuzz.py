"""Executions per second of the fuzz targets, over callbacks that do nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzzers import instrumented
from fuzzers.command import plant, write_dictionary
from fuzzers.target import NONE, target_named
from tools.bench.ratio import Ratio

RUNS: Final = 400_000
"""So many that what a worker of Atheris takes to start, seconds, varies by less."""
ROUNDS: Final = 3
_TIMEOUT: Final = 900
_ATHERIS: Final = ("descriptors", "pasid", "pagetables", "viot")
_TWINS: Final = ("descriptors", "pasid", "pagetables", "acpi", "virtio", "trace", "reader")
_LIMIT: Final = 0.5
_EMPTY: Final = "empty"
_ALONE: Final = "alone"
"""Has no counters that libFuzzer would look at, but its own."""

_CORPUS_OF: Final = {_EMPTY: "pagetables", _ALONE: "pagetables", "reader": "trace"}
"""What does nothing is given inputs, too: taking them from the corpus and changing them costs."""


def run(traces: list[Path]) -> list[Ratio]:
    """Measure all in turns, so that a change of the machine's load meets all alike."""
    built = instrumented.build(
        ("_core", *(f"twin_{name}" for name in (*_TWINS, _EMPTY, _ALONE))),
        "-DDMAREWIND_LIBFUZZER=ON",
    )
    environment = instrumented.environment(built)
    plain = {name: value for name, value in environment.items() if name != "LD_PRELOAD"}
    best: dict[str, float] = {}
    with TemporaryDirectory(prefix="dmarewind-bench-") as scratch:
        for _ in range(ROUNDS):
            for name in (_EMPTY, *_ATHERIS):
                command = [sys.executable, "-m", "fuzzers.worker", name, NONE, f"{scratch}/found"]
                rate = _rate(command, name, environment, Path(scratch))
                best[f"atheris {name}"] = max(rate, best.get(f"atheris {name}", 0.0))
            for name in (_EMPTY, _ALONE, *_TWINS):
                command = [str(instrumented.BUILD / f"fuzz/twin_{name}")]
                rate = _rate(command, name, plain, Path(scratch))
                best[f"twin {name}"] = max(rate, best.get(f"twin {name}", 0.0))
    return [
        _ratio(best, kind, name, floor)
        for kind, names, floor in (
            ("atheris", _ATHERIS, _EMPTY),
            ("twin", _TWINS, _EMPTY),
            ("twin", _TWINS, _ALONE),
        )
        for name in names
    ]


def _ratio(best: Mapping[str, float], kind: str, name: str, least: str) -> Ratio:
    rate, floor = best[f"{kind} {name}"], best[f"{kind} {least}"]
    what = "does nothing" if least == _EMPTY else "does nothing and has no counters"
    return Ratio(
        f"{kind} {name} over one that {what}",
        rate / floor,
        f"{rate / 1000:.0f}k/s",
        f"{floor / 1000:.0f}k/s",
        _LIMIT,
        at_most=False,
    )


def _rate(
    command: Sequence[str], name: str, environment: Mapping[str, str], scratch: Path
) -> float:
    """Return executions in a second of processor time, without what starting takes."""
    target = target_named(_CORPUS_OF.get(name, name))
    corpus = scratch / "corpus" / name
    plant(target, corpus)
    words = write_dictionary(target, scratch / "words")
    # Names of functions that are reached for the first time are looked up in another process.
    flags = ["-seed=1", f"-max_len={target.max_size}", "-print_funcs=0", *words, str(corpus)]
    first = len(list(corpus.iterdir())) + 1
    start = _seconds([*command, f"-runs={first}", *flags], environment)
    return RUNS / max(
        1e-6, _seconds([*command, f"-runs={first + RUNS}", *flags], environment) - start
    )


def _seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the processor time that a process took; others on the machine do not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{command[:3]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
