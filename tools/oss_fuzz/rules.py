"""Check a built program as OSS-Fuzz checks it, and run it on its seeds as its machines do.

The rules and their numbers are those of infra/base-images/base-runner (2026-08): test_all.py,
bad_build_check, run_fuzzer.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tools.oss_fuzz.image import ADDRESS, PYTHON, UNDEFINED

_MARK: Final = b"LLVMFuzzerTestOneInput"
_FEWEST_EDGES: Final = 100
_FIRST_RUNS: Final = 4
_CALLS: Final = {
    ADDRESS: {"asan": (1000, None), "ubsan": (0, 200)},
    UNDEFINED: {"asan": (0, 0), "ubsan": (168, None)},
}
"""For each sanitizer, how many calls into the runtimes a program has: from, to."""

PLANTED: Final = "fuzz_planted"
"""A program that makes mistakes when its input says so (fuzzers/targets/planted.py)."""

_MISTAKES: Final = {
    ADDRESS: {b"DMRo": "AddressSanitizer: heap-buffer-overflow", b"DMRx": "ZeroDivisionError"},
    UNDEFINED: {b"DMRuuu": "signed integer overflow", b"DMRx": "ZeroDivisionError"},
}
"""For each sanitizer, inputs of it and what it has to say of them."""

_EDGES: Final = re.compile(r"INFO: Loaded \d+ modules?.*\((?:.*)(?:counters|guards)\): (\d+)")
_SEEDS: Final = re.compile(r"INFO: seed corpus: files: (\d+)")
_DONE: Final = re.compile(r"Done (\d+) runs|#(\d+)\s+DONE")
_SHOWN: Final = 4000
"""Characters of what a program said that a problem quotes."""

_TIMEOUT: Final = 900


def targets(directory: Path, language: str) -> list[str]:
    """Return the names of the files that are taken for fuzz targets."""
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.is_file()
        and os.access(path, os.X_OK)
        and (data := path.read_bytes()).find(_MARK) >= 0
        and (language == PYTHON or data.startswith(b"\x7fELF"))
    )


def problems(
    program: Path, language: str, sanitizer: str, scratch: Path, runs: int
) -> Iterator[str]:
    """Yield what is wrong with a program; what it leaves behind goes to a directory."""
    packed = program.with_name(f"{program.name}.pkg") if language == PYTHON else program
    yield from _architecture(packed)
    # The instrumented part of a Python program is packed: the program itself refuses to run when
    # it is not instrumented (fuzzers.worker.unfit).
    if not program.name.startswith("fuzz_"):
        yield from calls(packed, sanitizer)
    yield from _starts(program, sanitizer, scratch)
    yield from _runs(program, sanitizer, scratch, runs)


def calls(binary: Path, sanitizer: str) -> Iterator[str]:
    """Yield which sanitizer's runtime a binary calls too seldom, or at all."""
    done = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(binary)],
        capture_output=True, text=True, timeout=_TIMEOUT, check=True,
    )  # fmt: skip
    for runtime, (fewest, most) in _CALLS[sanitizer].items():
        found = len(re.findall(rf"callq?\s+[0-9a-f]+ <__{runtime}", done.stdout))
        if found < fewest or (most is not None and found > most):
            yield f"{found} calls of __{runtime}_*, where {fewest} to {most or 'many'} are right"


def _architecture(binary: Path) -> Iterator[str]:
    try:
        with binary.open("rb") as stream:
            machine = ELFFile(stream).header.e_machine
    except (OSError, ELFError) as error:
        yield f"{binary.name} is no program: {error}"
        return
    if machine != "EM_X86_64":
        yield f"{binary.name} is for {machine}"


def _starts(program: Path, sanitizer: str, scratch: Path) -> Iterator[str]:
    said = run(program, sanitizer, scratch, "-seed=1337", f"-runs={_FIRST_RUNS}")
    if "no interesting inputs were found" in said:
        yield f"no coverage:\n{_end(said)}"
        return
    edges = sum(map(int, _EDGES.findall(said)))
    if edges < _FEWEST_EDGES:
        yield f"{edges} edges are counted, fewer than {_FEWEST_EDGES}"
    if f"Done {_FIRST_RUNS} runs" not in said:
        yield f"it does not start:\n{_end(said)}"


def _runs(program: Path, sanitizer: str, scratch: Path, runs: int) -> Iterator[str]:
    corpus = scratch / f"{program.name}_corpus"
    with ZipFile(program.with_name(f"{program.name}_seed_corpus.zip")) as packed:
        packed.extractall(corpus)
        seeds = sum(1 for one in packed.infolist() if one.file_size)
    if not seeds:
        yield "there are no seeds"
    said = run(program, sanitizer, scratch, *options(program), f"-runs={runs}", str(corpus))
    read = _SEEDS.search(said)
    if read is None or int(read[1]) != seeds:
        yield f"{read[1] if read else 0} of {seeds} seeds are read:\n{_end(said)}"
    done = _DONE.search(said)
    if done is None or int(done[1] or done[2]) < runs:
        yield f"it does not run {runs} times:\n{_end(said)}"


def blindness(program: Path, sanitizer: str, scratch: Path) -> Iterator[str]:
    """Yield which of the planted mistakes a program does not see."""
    for data, expected in _MISTAKES[sanitizer].items():
        (scratch / "mistake").write_bytes(data)
        said = run(program, sanitizer, scratch, "mistake")
        if expected not in said or said.endswith("exit code 0\n"):
            yield f"{program.name} does not see {data!r}:\n{_end(said)}"


def options(program: Path) -> Sequence[str]:
    """Return the flags that come from the files beside a program."""
    parser = ConfigParser()
    parser.read_string(program.with_name(f"{program.name}.options").read_text())
    flags = [f"-{name}={value}" for name, value in parser["libfuzzer"].items()]
    words = program.with_name(f"{program.name}.dict")
    return [*flags, f"-dict={words}"] if words.exists() else flags


def run(program: Path, sanitizer: str, scratch: Path, *flags: str) -> str:
    """Run a program with nothing of this environment but a path; return what it said."""
    options = "silence_unsigned_overflow=1" if sanitizer == UNDEFINED else ""
    done = subprocess.run(
        [str(program), *flags], cwd=scratch, timeout=_TIMEOUT, check=False,
        capture_output=True, text=True, errors="replace",
        env={"PATH": os.defpath, "TMPDIR": str(scratch), "ASAN_OPTIONS": "",
             "UBSAN_OPTIONS": options},
    )  # fmt: skip
    return f"{done.stdout}{done.stderr}exit code {done.returncode}\n"


def _end(said: str) -> str:
    return said[-_SHOWN:]
