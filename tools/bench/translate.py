"""Native batch translation against a plain loop that does the same dependent loads and no more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from harness.errors import HarnessError
from tools.bench.ratio import Ratio

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
LIMIT = 1.5
"""Bound of every row; bench/translate.cpp says what the sets of requests are."""
LEAST_HITS = 50.0
"""Translations from the finite cache per microsecond that one processor has to make."""


def _build() -> Path:
    """Build the benchmark; it is no part of the wheel."""
    configure = ["cmake", "-S", str(ROOT / "harness/native"), "-B", str(BUILD)]
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DDMAREWIND_BENCH=ON", "-DDMAREWIND_MODULE=OFF"]
    if shutil.which("ninja"):  # there may be no make
        options += ["-G", "Ninja"]
    build = ["cmake", "--build", str(BUILD), "--target", "translate_bench"]
    for command in ([*configure, *options], build):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise HarnessError(
                f"bench translate needs cmake and a C++20 compiler: {error}"
            ) from error
        except subprocess.CalledProcessError as error:
            raise HarnessError(
                f"{' '.join(command)} failed:\n{error.stdout}{error.stderr}"
            ) from error
    return BUILD / "translate_bench"


def run(traces: list[Path]) -> list[Ratio]:
    """Measure every mode of translation, cold and warm; traces are not used."""
    done = subprocess.run([_build()], check=True, capture_output=True, text=True)
    ratios = []
    for line in done.stdout.splitlines():
        mode, requests, state, native, floor = line.split()
        ratios.append(
            Ratio(
                f"translate: {mode}, {state}, {requests}",
                float(native) / float(floor),
                f"{float(native):.2f} ns",
                f"{float(floor):.2f} ns",
                LIMIT,
                at_most=True,
            )
        )
        if state == "warm":
            rate = 1000 / float(native)
            ratios.append(
                Ratio(
                    f"translate: {mode}, hits in 1 us",
                    rate,
                    f"{rate:.0f} M/s",
                    "1 M/s",
                    LEAST_HITS,
                    at_most=False,
                )
            )
    return ratios
