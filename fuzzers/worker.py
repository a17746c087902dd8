"""Fuzz one target in this process: `python -m fuzzers.worker TARGET AGAINST FINDINGS [FLAG ...]`.

`dmarewind fuzz` starts it in the environment that it needs (fuzzers.instrumented). What a runner
raises is kept, and fuzzing goes on; a crash of the core ends the process with libFuzzer's report.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from fuzzers import allocator
from fuzzers.findings import NO_ROOM, Findings, signature_of
from fuzzers.instrumented import HOOKS
from fuzzers.target import (
    NONE,
    Alike,
    Found,
    FuzzTarget,
    Mutating,
    Runner,
    Trace,
    changes_inputs,
    target_named,
)
from harness.errors import HarnessError
from harness.native.loading import core
from harness.signature import Signature

FOUND = "dmarewind: found "
"""What a line about a finding that was kept begins with."""

UNFIT = 3
"""Exit code of a process in which fuzzing would find nothing."""

_RETRY: Final = 1.0
"""Seconds until what a full disk had no room for is written again."""

_NOVELTY: Final = "DMAREWIND_NOVELTY"
WHOLE: Final = (
    *("-merge", "-set_cover_merge", "-fork", "-features_dir"),
    *("-print_coverage", "-print_full_coverage", "-focus_function"),
)
"""Flags of who needs all counters in their places; native/fuzz/entry.cpp has them, too."""


def main(argv: Sequence[str], around: Callable[[Runner], Runner] = lambda runner: runner) -> int:
    """Fuzz until libFuzzer ends; return only when that cannot begin.

    around is given what runs an input, and returns what does so instead.
    """
    name, against, directory, *flags = argv
    _settle_news(against, flags)
    try:
        atheris()
    except ImportError as error:
        return _refuse(f"no Atheris: {error}")
    _drop_editable_finders()
    target = target_named(name)
    problem = unfit(hooks=changes_inputs(target, against))
    if problem is not None:
        return _refuse(problem)
    # What is preloaded here is nothing for the program that looks up names for ASan.
    preloaded = os.environ.pop("LD_PRELOAD", "")
    findings = Findings(Path(directory))
    runner = around(runner_of(target, against))
    one = _settling(runner) if against == NONE else keeping(target, runner, findings)
    # -merge=1 and -fork run argv[0] again, through a shell.
    again = ["env", f"LD_PRELOAD={preloaded}", sys.executable, "-m", "fuzzers.worker"]
    again += [name, against, directory]
    fuzz(target, against, one, [shlex.join(again), *flags])
    return 0


def atheris() -> Any:
    """Return the module, which has no types, and is not there everywhere."""
    return import_module("atheris")


def runner_of(target: FuzzTarget, against: str) -> Runner:
    """Return what runs an input, the packages whose coverage counts instrumented."""
    if not target.traced or against == NONE:
        return target.runner(against)
    with atheris().instrument_imports(include=list(target.traced)):
        return target.runner(against)


def fuzz(target: FuzzTarget, against: str, runner: Runner, command: Sequence[str]) -> None:
    """Let libFuzzer run inputs of a target until it ends the process."""
    hooks = {}
    if changes_inputs(target, against) and isinstance(target, Mutating):
        hooks = {"custom_mutator": target.mutate, "custom_crossover": target.cross}
    atheris().Setup(list(command), runner, **hooks)
    atheris().Fuzz()


def unfit(*, hooks: bool = False) -> str | None:
    """Say why fuzzing here would look healthy and find nothing, if it would."""
    try:
        instrumented = bool(core().instrumented)
    except HarnessError as error:
        return str(error)
    if not instrumented:
        return "the native core is not instrumented; `dmarewind fuzz` builds one that is"
    maps = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else ""
    # The file is Atheris' own for ASan or UBSan, or OSS-Fuzz' copy, sanitizer_with_fuzzer.so.
    if maps and "_with_fuzzer.so" not in maps:
        return "the sanitizer's runtime is not preloaded, so that it intercepts nothing"
    if maps and hooks and not all(name in maps for name in HOOKS):
        return "what a target's own changes are called by is not preloaded: they would be ignored"
    if not allocator.is_malloc():
        return "PYTHONMALLOC is not malloc: Python's own allocator hides overruns"
    return None


def _settle_news(against: str, flags: Sequence[str]) -> None:
    """Decide whether libFuzzer sees news only, before the core is loaded.

    Where a run is more than the core's looking at counters takes no time worth saving. A merge
    compares inputs by all that each of them reaches, and functions are lists of counters.
    """
    if against == NONE and not any(flag.startswith(WHOLE) for flag in flags):
        os.environ[_NOVELTY] = "1"
    else:
        os.environ.pop(_NOVELTY, None)


def _settling(runner: Runner) -> Runner:
    native: Any = core()
    settle = native.settle

    def run(data: bytes) -> None:
        runner(data)
        settle()

    return run


def keeping(target: FuzzTarget, runner: Runner, findings: Findings) -> Runner:
    """Return a runner that keeps what another one raises, as soon as the disk has room."""
    waiting: dict[Signature, tuple[bytes, str, Trace | None]] = {}
    due = 0.0

    def keep(data: bytes, name: Signature, words: str, trace: Trace | None) -> None:
        try:
            kept = findings.add(target, data, name, words, trace)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            waiting[name] = (data, words, trace)
            return
        waiting.pop(name, None)
        if kept is not None:
            print(f"{FOUND}{kept.name}: {name}", file=sys.stderr, flush=True)

    def run(data: bytes) -> None:
        nonlocal due
        if waiting and time.monotonic() >= due:
            due = time.monotonic() + _RETRY
            for name, told in [*waiting.items()]:
                keep(told[0], name, *told[1:])
        try:
            runner(data)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
            signature, text = signature_of(error, traceback.format_exc())
            keep(data, signature, text, error.trace if isinstance(error, Found) else None)
            beside = error.beside if isinstance(error, Found) else ()
            for number, one in enumerate(beside, 1):
                # An input has one explanation. With zeros behind it, it says the same to what
                # takes bytes for choices, and is another one.
                other = data + bytes(number)
                if isinstance(target, Alike):
                    other = target.alike(data, number)
                keep(other, one.signature, one.text, one.trace)

    return run


def _drop_editable_finders() -> None:
    """Let imports be found on sys.path, where Atheris can instrument them.

    The finder of scikit-build-core's editable installs goes around it without a word.
    """
    for finder in list(sys.meta_path):
        if "skbuild" in type(finder).__module__ or "ScikitBuild" in type(finder).__name__:
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(finder)


def _refuse(problem: str) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return UNFIT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
