"""Programs for OSS-Fuzz: what stands beside them, and that one is built and runs.

A twin and the core are compiled when they are stale, which takes a minute;
`python -m tools.oss_fuzz` builds and checks all of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from fuzzers import programs
from fuzzers.target import target_named
from tools.oss_fuzz import rules
from tools.oss_fuzz.__main__ import check
from tools.oss_fuzz.image import ADDRESS, CXX, PYTHON, ROOT, UNDEFINED, Image

TWINS = ROOT / "harness/native/fuzz/CMakeLists.txt"
NOT_RUN = {"empty", "planted"}
"""Twins about fuzzing itself."""


def test_every_twin_is_a_program() -> None:
    lists = TWINS.read_text()
    scaffolded = re.search(r"set\(scaffolded ([^)]*)\)", lists)
    assert scaffolded is not None
    twins = {*scaffolded[1].split(), *re.findall(r"^add_twin\((\w+)", lists, re.MULTILINE)}
    known = {name.removeprefix(programs.TWIN) for name in programs.names()}
    assert twins - NOT_RUN == {name for name in known if not name.startswith(programs.PYTHON)}


@pytest.mark.parametrize("name", programs.names())
def test_seeds_and_words_stand_beside_a_program(tmp_path: Path, name: str) -> None:
    programs.write(tmp_path, name)
    flags = rules.options(tmp_path / name)
    longest = int(dict(flag[1:].split("=", 1) for flag in flags)["max_len"])
    with ZipFile(tmp_path / f"{name}_seed_corpus.zip") as packed:
        seeds = [packed.read(member) for member in packed.namelist()]
    assert seeds
    assert max(map(len, seeds)) <= longest


def test_a_reader_is_given_events_without_their_scaffold(tmp_path: Path) -> None:
    programs.write(tmp_path, "twin_reader")
    with ZipFile(tmp_path / "twin_reader_seed_corpus.zip") as packed:
        seeds = {packed.read(member) for member in packed.namelist()}
    assert seeds == {seed[1:] for seed in target_named("trace").seeds()}


def test_the_same_seeds_make_the_same_file(tmp_path: Path) -> None:
    made = []
    for directory in (tmp_path / "one", tmp_path / "other"):
        directory.mkdir()
        programs.write(directory, "fuzz_viot")
        made.append((directory / "fuzz_viot_seed_corpus.zip").read_bytes())
    assert made[0] == made[1]


def test_both_dockerfiles_install_and_build_the_same() -> None:
    for place in ("fuzzers/oss-fuzz", ".clusterfuzzlite"):
        text = (ROOT / place / "Dockerfile").read_text()
        assert "gcr.io/oss-fuzz-base/base-builder-python" in text
        assert "fuzzers/oss-fuzz/install" in text
        assert "language: python" in (ROOT / place / "project.yaml").read_text()
    assert "fuzzers/oss-fuzz/build.sh" in (ROOT / ".clusterfuzzlite/build.sh").read_text()


ASK = """
import ctypes, gc
from fuzzers import allocator
kept = [[bytearray(size), {size: "x" * size}] for size in range(2000)]
assert not allocator.is_malloc()
allocator.use_malloc()
assert allocator.is_malloc()
for first, _ in kept:
    first.extend(bytes(600))
del kept
gc.collect()
usable = ctypes.CDLL(None).malloc_usable_size
usable.argtypes, usable.restype = [ctypes.c_void_p], ctypes.c_size_t
new = object()
print(usable(id(new)) >= new.__sizeof__())
"""


def test_objects_come_from_malloc_where_no_variable_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.clang
def test_a_twin_is_built_and_runs() -> None:
    image = Image(ROOT / "build/oss-fuzz/c++-address-quick", CXX, ADDRESS, optimised=False)
    assert check(image, ["twin_reader"], 300) == []
    # What it was built with is told from what it was not.
    twin = image.work / "dmarewind/fuzz/twin_reader"
    assert list(rules.calls(twin, UNDEFINED)), "calls of ASan in a build for UBSan"


@pytest.mark.clang
def test_what_is_not_instrumented_is_told(tmp_path: Path) -> None:
    program = tmp_path / "twin_reader"
    shutil.copy("/bin/true", program)
    programs.write(tmp_path, program.name)
    assert rules.targets(tmp_path, CXX) == []
    found = "\n".join(rules.problems(program, CXX, ADDRESS, tmp_path, 10))
    for said in ("calls of __asan_*", "0 edges", "does not start", "seeds are read"):
        assert said in found
    script = tmp_path / "fuzz_viot"
    script.write_text("#!/bin/sh\n# LLVMFuzzerTestOneInput\n")
    script.chmod(0o755)
    assert rules.targets(tmp_path, PYTHON) == ["fuzz_viot"]
    programs.write(tmp_path, script.name)
    assert "fuzz_viot.pkg is no program" in next(
        rules.problems(script, PYTHON, ADDRESS, tmp_path, 10)
    )
