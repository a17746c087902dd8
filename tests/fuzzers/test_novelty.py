"""What a twin says that it has reached, the corpus that it keeps reaches again."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fuzzers import instrumented
from fuzzers.command import plant
from fuzzers.target import target_named
from fuzzers.worker import WHOLE

_REACHED = re.compile(rb"(INITED|DONE)\s+cov: (\d+) ft: (\d+)")


def _reached(corpus: Path, runs: int, novelty: str = "1") -> tuple[int, int]:
    """Return counters and features that libFuzzer has seen at the end."""
    done = subprocess.run(
        [
            str(instrumented.BUILD / "fuzz/twin_acpi"),
            *(f"-runs={runs}", "-seed=1", "-print_funcs=0"),
            *(f"-max_len={target_named('acpi').max_size}", str(corpus)),
        ],
        env=os.environ | {"DMAREWIND_NOVELTY": novelty, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        check=True,
        timeout=300,
    )
    _, counters, features = _REACHED.findall(done.stderr)[-1]
    return int(counters), int(features)


@pytest.mark.clang
def test_what_is_shown_is_kept(tmp_path: Path) -> None:
    instrumented.build(("_core", "twin_acpi"), "-DDMAREWIND_LIBFUZZER=ON")
    corpus = tmp_path / "corpus"
    plant(target_named("acpi"), corpus)
    first = _reached(corpus, 0)
    last = _reached(corpus, 30_000)
    assert last > first, "nothing was found in 30,000 runs"
    # libFuzzer uses strings, too, and so do its own copies of what is counted: what it left there
    # between two runs is none of an input's.
    again = _reached(corpus, 0)
    assert again[0] == last[0]
    assert abs(again[1] - last[1]) <= 3
    # Looking at the counters itself, it sees what the filter shows, and some of its own.
    itself = _reached(corpus, 0, novelty="0")
    assert again[0] <= itself[0] <= again[0] + 5
    assert again[1] <= itself[1] + 3


def test_twins_and_workers_know_the_same_flags() -> None:
    text = (instrumented.SOURCES / "fuzz/entry.cpp").read_text()
    (words,) = re.findall(r"whole\{(.*?)\};", text, re.S)
    assert tuple(re.findall(r'"([^"]+)"', words)) == WHOLE
