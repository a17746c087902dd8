"""Build the core, its tests and the Python module with counters (clang's source-based coverage)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzzers.instrumented import HOW_TO_INSTALL, installed
from harness.errors import HarnessError

ROOT: Final = Path(__file__).parents[2]
BUILD: Final = ROOT / "build" / "coverage"
VERSIONS: Final = (*(f"-{version}" for version in range(22, 13, -1)), "")
"""Suffixes of the programs: those of one version understand each other."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Hold the programs of one clang."""

    clang: str
    compiler: str
    profdata: str
    cov: str


@dataclass(frozen=True, slots=True)
class Built:
    """Hold what was built: the module for DMAREWIND_CORE, and the C++ tests where they were."""

    module: Path
    tests: Path | None = None

    @property
    def objects(self) -> list[str]:
        """Return the arguments that name it to llvm-cov."""
        return [str(self.module), *(["-object", str(self.tests)] if self.tests else [])]


def programs() -> Programs:
    """Find the newest clang that has its profile tools; raise HarnessError where there is none."""
    names = ("clang", "clang++", "llvm-profdata", "llvm-cov")
    for version in VERSIONS:
        found = [shutil.which(name + version) for name in names]
        if all(found):
            return Programs(*map(str, found))
    raise HarnessError(
        f"coverage needs {', '.join(names)} of one version: on Debian 12 the packages "
        "clang-14, libclang-rt-14-dev and llvm-14"
    )


def called(command: list[str], purpose: str) -> str:
    """Run a command, return what it printed; raise HarnessError with its output when it fails."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise HarnessError(f"{purpose} needs {command[0]}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise HarnessError(f"{' '.join(command)} failed:\n{error.stdout}{error.stderr}") from error
    return done.stdout


def build(tools: Programs, *, tests: bool = False) -> Built:
    """Build what is out of date, for the Python that runs this. Errors: HarnessError."""
    if not (ROOT / "harness/native/CMakeLists.txt").is_file():
        raise HarnessError("coverage needs a checkout: an installed package lacks the sources")
    cmake, ninja = installed("cmake"), installed("ninja")
    if cmake is None:
        raise HarnessError(f"coverage needs cmake: {HOW_TO_INSTALL}")
    configure = [cmake, "-S", str(ROOT / "harness" / "native"), "-B", str(BUILD)]
    configure += ["-DDMAREWIND_COVERAGE=ON", "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DCMAKE_C_COMPILER={tools.clang}", f"-DCMAKE_CXX_COMPILER={tools.compiler}"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    if ninja:  # there may be no make
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    called(configure, "coverage")
    targets = ["core_tests", "_core"] if tests else ["_core"]
    called([cmake, "--build", str(BUILD), "--target", *targets], "coverage")
    modules = list((BUILD / "bind").glob("_core.*.so"))
    if len(modules) != 1:
        raise HarnessError(f"{BUILD}/bind has {len(modules)} modules: remove {BUILD} and try again")
    return Built(modules[0], BUILD / "core_tests" if tests else None)
