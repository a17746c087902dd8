"""Fuzzing finds what is planted, and refuses to run where it would find nothing.

The instrumented core is built when it is stale, which takes a minute or two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fuzzers import instrumented
from fuzzers.worker import UNFIT
from harness.native.loading import CORE_VARIABLE

pytestmark = [
    pytest.mark.clang,
    pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed"),
]

TIMEOUT = 900


@pytest.fixture(scope="module")
def built() -> Path:
    if instrumented.stale():
        instrumented.build()
    found = instrumented.module()
    assert found is not None
    return found


def work(environment: dict[str, str], directory: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzzers.worker", "planted", "none", str(directory), *arguments],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        cwd=directory,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("mistake", "said", "flags"),
    [
        ("o", "AddressSanitizer: heap-buffer-overflow", ()),
        ("uuu", "runtime error: signed integer overflow", ()),
        ("hhh", "libFuzzer: timeout", ("-timeout=3",)),
    ],
)
def test_a_planted_mistake_is_seen(
    built: Path, tmp_path: Path, mistake: str, said: str, flags: tuple[str, ...]
) -> None:
    (tmp_path / "input").write_bytes(b"DMR" + mistake.encode())
    environment = instrumented.environment(built)
    code, report = work(environment, tmp_path, *flags, str(tmp_path / "input"))
    assert code != 0
    assert said in report
    assert "dmarewind::planted" in report


def test_without_the_cures_an_overrun_is_not_looked_for(built: Path, tmp_path: Path) -> None:
    whole = instrumented.environment(built)
    plain = {name: value for name, value in whole.items() if name != "PYTHONMALLOC"}
    code, report = work(plain, tmp_path, "-runs=1")
    assert (code, "PYTHONMALLOC is not malloc" in report) == (UNFIT, True)
    uninstrumented = {name: value for name, value in whole.items() if name != CORE_VARIABLE}
    code, report = work(uninstrumented, tmp_path, "-runs=1")
    assert code == UNFIT
    assert "not instrumented" in report or "not built" in report
    unloaded = {name: value for name, value in whole.items() if name != "LD_PRELOAD"}
    code, report = work(unloaded, tmp_path, "-runs=1")
    assert code != 0
    assert "Done" not in report


def fuzz(directory: Path, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "harness", "--json", "fuzz", "planted", "--against", "none"),
            *("--findings", "found", "--corpus", "corpus", *words),
        ],
        env=os.environ | {"PYTHONPATH": str(instrumented.ROOT)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=directory,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_an_overrun_is_found_and_kept(built: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    # One bit from the overrun, and too short for the other mistakes: however slow the machine is,
    # the same few runs lead to the same finding, long before the minutes are over.
    (tmp_path / "corpus" / "seed").write_bytes(b"DMRn")
    code, lines, errors = fuzz(
        tmp_path, "--minutes", "10", "--until-found", "--", "-max_len=4", "-seed=1"
    )
    assert code == 1, errors
    (found,) = (line for line in lines if line["event"] == "finding")
    assert "heap-buffer-overflow" in found["text"]
    assert "dmarewind::planted" in found["text"]
    kept = tmp_path / found["finding"]
    assert kept.read_bytes() == b"DMRo"
    assert "heap-buffer-overflow" in kept.with_name(f"{kept.name}.txt").read_text()
    (end,) = (line for line in lines if line["event"] == "end")
    assert end["executions"] > 0


def test_an_input_that_crashes_does_not_end_a_job(built: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / sha1(b"DMRo").hexdigest()).write_bytes(b"DMRo")
    words = ("--minutes", "10", "--", "-max_len=4", "-seed=1", "-runs=50")
    code, lines, errors = fuzz(tmp_path, *words)
    assert code == 1, errors
    (end,) = (line for line in lines if line["event"] == "end")
    assert (end["findings"], end["crashes"]) == (1, 1)
    assert end["executions"] >= 50, "it was not started again"
    code, lines, errors = fuzz(tmp_path, *words)
    assert code == 0, errors
    assert [line["event"] for line in lines if line["event"] != "status"] == ["end"]


def test_a_worker_ends_with_who_started_it(built: Path, tmp_path: Path) -> None:
    words = ("fuzz", "viot", "--minutes", "5", "--findings", str(tmp_path / "here"))
    fuzzing = subprocess.Popen(
        [sys.executable, "-m", "harness", *words], cwd=tmp_path, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(instrumented.ROOT)},
    )  # fmt: skip
    try:
        workers = _wait_for(lambda: _workers(tmp_path / "here"), "no worker was started")
        assert workers
    finally:
        fuzzing.kill()
        fuzzing.wait()
    _wait_for(lambda: not _workers(tmp_path / "here"), "a worker is left")


def _workers(findings: Path) -> list[str]:
    said = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    mine = os.fsencode(findings)
    return [str(one) for one in said if b"fuzzers.worker" in one and mine in one]


def _wait_for(done: Callable[[], object], otherwise: str) -> object:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := done():
            return found
        time.sleep(0.2)
    raise AssertionError(otherwise)


def test_merging_keeps_what_reaches_more(built: Path, tmp_path: Path) -> None:
    for name, content in (("a", b"DMR?"), ("b", b"DMR!"), ("c", b"nothing")):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_bytes(content)
    (tmp_path / "few").mkdir()
    code, report = work(instrumented.environment(built), tmp_path, "-merge=1", "few", "all")
    assert code == 0, report
    assert 1 <= len(list((tmp_path / "few").iterdir())) < 3, report
