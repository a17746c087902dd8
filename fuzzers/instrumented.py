"""Build the core for fuzzing when it is stale, and say how to run what loads it.

Each cure here is one that a fuzzer without it lacks silently: docs/fuzzing.md lists them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fuzzers.target import FuzzTarget, changes_inputs
from harness.errors import HarnessError
from harness.native.loading import CORE_VARIABLE

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = ROOT / "harness/native"
BUILD: Final = Path(os.environ.get("DMAREWIND_FUZZ_BUILD", ROOT / "build/fuzz"))
HOOKS: Final = ("custom_mutator", "custom_crossover")
"""Libraries of Atheris in which libFuzzer finds a target's own changes."""

_MODULE: Final = "bind/_core.*.so"
_KINDS: Final = (".cpp", ".hpp", ".txt")
_SUFFIXES: Final = ("", *(f"-{version}" for version in range(22, 13, -1)))
_CLANGS: Final = tuple(f"clang++{suffix}" for suffix in _SUFFIXES)
_SYMBOLIZERS: Final = tuple(f"llvm-symbolizer{suffix}" for suffix in _SUFFIXES)
_TIMEOUT: Final = 1800

HOW_TO_INSTALL: Final = (
    "fuzzing needs Atheris and clang: pip install -e '.[fuzz]' in a checkout, and on Debian "
    "apt-get install clang libclang-rt-dev llvm"
)


def atheris_runtime() -> Path:
    """Return the ASan runtime with libFuzzer in it; raise HarnessError when there is none."""
    found = find_spec("atheris")
    if found is None or found.origin is None:
        raise HarnessError(f"there is no Atheris; {HOW_TO_INSTALL}")
    runtime = Path(found.origin).parents[1] / "asan_with_fuzzer.so"
    if not runtime.is_file():
        raise HarnessError(f"{runtime} is missing: this Atheris cannot run under ASan")
    return runtime


def with_hooks(environment: Mapping[str, str], target: FuzzTarget, against: str) -> dict[str, str]:
    """Return an environment in which libFuzzer lets a target change inputs itself.

    libFuzzer looks for who does that when the runtime is loaded: Atheris, which loads it later,
    would be ignored without a word. Without a target that does it must not be there.
    """
    if not changes_inputs(target, against):
        return dict(environment)
    folder = atheris_runtime().parent / "atheris"
    hooks = [next(iter(folder.glob(f"{name}.*.so")), None) for name in HOOKS]
    if None in hooks:
        raise HarnessError(f"{folder}: this Atheris has no hooks for changing inputs")
    return {**environment, "LD_PRELOAD": " ".join([environment["LD_PRELOAD"], *map(str, hooks)])}


def compiler() -> str:
    """Return a clang++ with its runtimes; raise HarnessError when there is none."""
    for name in _CLANGS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise HarnessError(f"there is no clang++; {HOW_TO_INSTALL}")


def module(directory: Path = BUILD) -> Path | None:
    """Return the instrumented module, if there is one."""
    return next(iter(sorted(directory.glob(_MODULE))), None)


def stale(directory: Path = BUILD) -> bool:
    """Say whether a source is newer than the module."""
    built = module(directory)
    return built is None or newest_source() > built.stat().st_mtime


def newest_source() -> float:
    """Return when a source of the core was changed last."""
    sources = (path for path in SOURCES.rglob("*") if path.suffix in _KINDS)
    return max((path.stat().st_mtime for path in sources), default=0.0)


def build(targets: tuple[str, ...] = ("_core",), *options: str, directory: Path = BUILD) -> Path:
    """Bring the instrumented module up to date and return it.

    Errors: HarnessError, with what the compiler said.
    """
    if not (SOURCES / "CMakeLists.txt").is_file():
        raise HarnessError("fuzzing needs a checkout: an installed package lacks the core's source")
    cmake, ninja = installed("cmake"), installed("ninja")
    if cmake is None:
        raise HarnessError(f"there is no cmake; {HOW_TO_INSTALL}")
    with _alone(directory):
        started = newest_source()
        # The cache is there, too, when CMake was killed before it had written what builds.
        ready = any((directory / name).is_file() for name in ("build.ninja", "Makefile"))
        if not ready or options:
            clang = compiler()
            _do(
                *(cmake, "-S", str(SOURCES), "-B", str(directory), "-DDMAREWIND_FUZZ=ON"),
                *(f"-DCMAKE_CXX_COMPILER={clang}", f"-DCMAKE_C_COMPILER={_for_c(clang)}"),
                *(f"-DPython_EXECUTABLE={sys.executable}", *options),
                *(("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}") if ninja else ()),
            )
        _do(cmake, "--build", str(directory), "--target", *targets)
        built = module(directory)
        if built is None:
            raise HarnessError(f"{directory}: the build made no module")
        # What changed while it ran is built next time.
        os.utime(built, (started, started))
    return built


def installed(name: str) -> str | None:
    """Return a program's path; what pip has installed need not be on the search path."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _for_c(compiler: str) -> str:
    head, _, tail = compiler.rpartition("clang++")
    return f"{head}clang{tail}"


def _do(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=_plain()
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise HarnessError(f"{' '.join(command[:3])}... failed:\n{said[-4000:]}")


def _plain() -> dict[str, str]:
    """Return an environment without what fuzzers run in: a compiler under ASan helps nobody."""
    left_out = ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYTHONMALLOC")
    return {name: value for name, value in os.environ.items() if name not in left_out}


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(built: Path) -> dict[str, str]:
    """Return what a fuzzer has to run in."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # ASan looks for the name without a version only; what it cannot name are bare addresses.
    symbolizer = next(filter(None, map(shutil.which, _SYMBOLIZERS)), None)
    named = {"ASAN_SYMBOLIZER_PATH": symbolizer} if symbolizer else {}
    return (
        _plain()
        | named
        | {
            # Without the preload ASan's runtime is there and intercepts nothing.
            "LD_PRELOAD": str(atheris_runtime()),
            # Python's own allocator hides overruns of objects below 512 bytes.
            "PYTHONMALLOC": "malloc",
            # A leak report at the end would be a crash without an input.
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:malloc_context_size=6",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            CORE_VARIABLE: str(built),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
        }
    )
