"""Stand in for the image in which OSS-Fuzz builds: its variables, its flags, its command.

The source of all of it is infra/base-images/base-builder of OSS-Fuzz (2026-08): Dockerfile,
`compile`, `compile_libfuzzer`, `compile_python_fuzzer`. The compiler is this machine's, and so is
its C++ library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fuzzers import instrumented
from harness.errors import HarnessError

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = ROOT / "fuzzers/oss-fuzz/build.sh"
CXX: Final = "c++"
PYTHON: Final = "python"
LANGUAGES: Final = (CXX, PYTHON)
ADDRESS: Final = "address"
UNDEFINED: Final = "undefined"
RUNTIME: Final = "sanitizer_with_fuzzer.so"

_COMMON: Final = (
    "-fno-omit-frame-pointer -gline-tables-only -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"
)
_COVERAGE: Final = "-fsanitize=fuzzer-no-link"
_CHECKS: Final = (
    "array-bounds,bool,builtin,enum,function,integer-divide-by-zero,null,object-size,return,"
    "returns-nonnull-attribute,shift,signed-integer-overflow,{}unreachable,vla-bound,vptr"
)
SANITIZERS: Final = {
    ADDRESS: "-fsanitize=address -fsanitize-address-use-after-scope",
    UNDEFINED: (
        f"-fsanitize={_CHECKS.format('unsigned-integer-overflow,')} "
        f"-fno-sanitize-recover={_CHECKS.format('')}"
    ),
}
_FOR_PYTHON: Final = "-fno-sanitize=function,leak,vptr"
_RUNTIMES: Final = {ADDRESS: "asan_with_fuzzer.so", UNDEFINED: "ubsan_with_fuzzer.so"}
_COMMAND: Final = Path(__file__).with_name("compile_python_fuzzer")
_TIMEOUT: Final = 3600


@dataclass(frozen=True, slots=True)
class Image:
    """Name the directories of a build, and what kind of project and build it is."""

    place: Path
    language: str
    sanitizer: str
    optimised: bool = True
    """Otherwise the core is compiled in half the time, and runs as it is."""

    @property
    def out(self) -> Path:
        """Return where programs go ($OUT)."""
        return self.place / "out"

    @property
    def work(self) -> Path:
        """Return where objects stay ($WORK), so that a second build makes what has changed."""
        return self.place / "work"

    @property
    def source(self) -> Path:
        """Return where the project lies ($SRC)."""
        return self.place / "src"

    def clear(self) -> None:
        """Take away what was built; objects stay."""
        shutil.rmtree(self.out, ignore_errors=True)

    def build(self, programs: Sequence[str]) -> None:
        """Run the build script; raise HarnessError with what it said when it fails."""
        commands = self.place / "bin"
        for directory in (self.out, self.work, self.source, commands):
            directory.mkdir(parents=True, exist_ok=True)
        for link, target in (
            (self.source / "dmarewind", ROOT),
            (commands / _COMMAND.name, _COMMAND),
        ):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        if self.language == PYTHON:
            shutil.copy(self._runtime(), self.out / RUNTIME)
        done = subprocess.run(
            ["bash", "-eu", str(SCRIPT), *programs], env=self._environment(commands),
            capture_output=True, text=True, timeout=_TIMEOUT, check=False, cwd=self.source,
        )  # fmt: skip
        if done.returncode:
            raise HarnessError(f"{SCRIPT.name} failed:\n{(done.stdout + done.stderr)[-4000:]}")

    def _runtime(self) -> Path:
        runtime = instrumented.atheris_runtime().with_name(_RUNTIMES[self.sanitizer])
        if not runtime.is_file():
            raise HarnessError(f"{runtime} is missing: this Atheris was built without it")
        if find_spec("PyInstaller") is None:
            raise HarnessError("a Python project is packed by PyInstaller: pip install pyinstaller")
        return runtime

    def _environment(self, commands: Path) -> Mapping[str, str]:
        clang = instrumented.compiler()
        level = "-O1" if self.optimised else "-O0"
        flags = " ".join(
            [
                *(level, _COMMON, SANITIZERS[self.sanitizer], _COVERAGE),
                *([_FOR_PYTHON] if self.language == PYTHON else []),
            ]
        )
        # The tools of a virtual environment are beside its interpreter.
        path = [str(commands), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        passed = ("HOME", "TMPDIR", "CMAKE_", "CCACHE_")
        return {name: text for name, text in os.environ.items() if name.startswith(passed)} | {
            "PATH": os.pathsep.join(path),
            "CC": clang.replace("clang++", "clang"),
            "CXX": clang,
            "CFLAGS": flags,
            "CXXFLAGS": flags,
            "LIB_FUZZING_ENGINE": "-fsanitize=fuzzer",
            "FUZZING_ENGINE": "libfuzzer",
            "FUZZING_LANGUAGE": self.language,
            "SANITIZER": self.sanitizer,
            "ARCHITECTURE": "x86_64",
            "SRC": str(self.source),
            "OUT": str(self.out),
            "WORK": str(self.work),
            "UBSAN_OPTIONS": "silence_unsigned_overflow=1",
            "CMAKE_BUILD_TYPE": "Release" if self.optimised else "Debug",
        }
