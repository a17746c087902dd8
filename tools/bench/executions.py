"""Add up what the fuzz targets have run under ASan and UBSan, over as many runs as it takes.

    python -m tools.bench executions --keep FILE [--minutes N] [--slice SECONDS]

The twins, which look for leaks, too, and the workers of Atheris take turns. FILE holds executions
and seconds of each; beside it, FILE.d keeps what they have reached and what they have found. What
was found stays an open finding, and a failure, until its file is removed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzzers import instrumented
from fuzzers.command import plant, write_dictionary
from fuzzers.target import NONE, target_named
from harness.errors import HarnessError
from harness.files import replacing

TWINS: Final = {
    **{name: name for name in ("descriptors", "pasid", "pagetables", "trace", "virtio", "acpi")},
    "reader": "trace",
    "planted": "planted",
}
"""Twins, and the target whose inputs they take."""

WORKERS: Final = ("descriptors", "pasid", "pagetables", "trace", "virtio", "acpi", "viot")
"""Targets of which the core alone is run."""

_LEAKS: Final = "detect_leaks=1:quarantine_size_mb=16:malloc_context_size=6"
_LIMITS: Final = ("-timeout=20", "-rss_limit_mb=2048")
_GRACE: Final = 600.0
"""Seconds that a fuzzer may take to start, to read its corpus, and to end."""
_RUNS: Final = re.compile(rb"^(?:#(\d+)\s|stat::number_of_executed_units:\s+(\d+))", re.M)
_REPORT_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Tally:
    """What one fuzzer has done."""

    executions: int = 0
    seconds: float = 0.0
    """Of processor time."""

    def plus(self, executions: int, seconds: float) -> Tally:
        """Return the sum."""
        return Tally(self.executions + executions, round(self.seconds + seconds, 2))


def fuzzers(names: Sequence[str]) -> Iterator[str]:
    """Yield names of fuzzers: all but the planted one, or those that are asked for."""
    known = [f"twin {name}" for name in TWINS] + [f"atheris {name}" for name in WORKERS]
    wrong = set(names) - set(known)
    if wrong:
        raise HarnessError(f"no fuzzer {min(wrong)!r}; there are {', '.join(known)}")
    yield from names or (name for name in known if name != "twin planted")


def load(path: Path) -> dict[str, Tally]:
    """Return the tallies of a file; none where there is no file."""
    if not path.exists():
        return {}
    try:
        return {name: Tally(**row) for name, row in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise HarnessError(f"{path}: these are no tallies: {error}") from error


def save(path: Path, tallies: Mapping[str, Tally]) -> None:
    """Replace a file of tallies."""
    with replacing(path) as draft:
        draft.write_text(json.dumps({name: asdict(row) for name, row in tallies.items()}, indent=1))


def open_findings(beside: Path, name: str = "*") -> list[Path]:
    """Return the files of what a fuzzer, or any, has found and is there still."""
    return sorted(
        path
        for path in (beside / "found").glob(f"{name.replace(' ', '-')}/*")
        # A worker makes a directory of its own there, whatever it finds.
        if path.is_file() and path.suffix != ".report"
    )


class Fuzzer:
    """Run one fuzzer for a while."""

    def __init__(self, name: str, beside: Path, environment: Mapping[str, str]) -> None:
        kind, _, self._name = name.partition(" ")
        self._beside, self._place = beside, name.replace(" ", "-")
        self._corpus, self._found = (beside / kind / self._place for kind in ("corpus", "found"))
        self._target = target_named(TWINS[self._name] if kind == "twin" else self._name)
        if kind == "twin":
            self._command = [str(instrumented.BUILD / f"fuzz/twin_{self._name}")]
            left_out = ("LD_PRELOAD", "PYTHONMALLOC")
            plain = {name: value for name, value in environment.items() if name not in left_out}
            self._environment = plain | {"ASAN_OPTIONS": _LEAKS}
        else:
            worker = (sys.executable, "-m", "fuzzers.worker", self._name, NONE, str(self._found))
            self._command = [*worker]
            self._environment = instrumented.with_hooks(environment, self._target, NONE)

    def run(self, seconds: int) -> tuple[int, float]:
        """Return executions and processor time; what was found lies where findings are kept.

        Errors: HarnessError when it ends without a finding and before its time.
        """
        plant(self._target, self._corpus)
        self._found.mkdir(parents=True, exist_ok=True)
        before = _children()
        kept = open_findings(self._beside, self._place)
        with TemporaryDirectory(prefix="dmarewind-executions-") as scratch:
            words = write_dictionary(self._target, Path(scratch) / "words")
            log = Path(scratch) / "log"
            with log.open("wb") as stream:
                code = subprocess.run(
                    [
                        *(*self._command, f"-max_len={self._target.max_size}", *words, *_LIMITS),
                        *(f"-max_total_time={seconds}", f"-artifact_prefix={self._found}/"),
                        *("-print_final_stats=1", "-print_funcs=0", str(self._corpus)),
                    ],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stream,
                    check=False,
                    timeout=seconds + _GRACE,
                ).returncode
            said = log.read_bytes()
        if code and open_findings(self._beside, self._place) == kept:
            raise HarnessError(f"{self._name}: exit code {code}:\n{said[-4000:].decode('latin-1')}")
        if code:
            (self._found / f"{time.time_ns()}.report").write_bytes(said[-_REPORT_LIMIT:])
        runs = (int(one[1] or one[2]) for one in _RUNS.finditer(said))
        return max(runs, default=0), _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str]) -> int:
    """Run all in turns; return 1 when there is an open finding."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench executions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 'twin trace'")
    parser.add_argument("--keep", type=Path, required=True, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=10.0, help="default %(default)s")
    parser.add_argument("--slice", type=int, default=60, help="seconds of a turn (%(default)s)")
    args = parser.parse_args(argv)
    try:
        if args.slice < 1 or not 0 < args.minutes < math.inf:
            raise HarnessError("--slice and --minutes are above 0")
        if args.keep.is_dir() or not args.keep.absolute().parent.is_dir():
            raise HarnessError(f"{args.keep}: no file can be there")
        return _run(args.keep, list(fuzzers(args.names)), 60 * args.minutes, args.slice)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(keep: Path, names: Sequence[str], seconds: float, turn: int) -> int:
    tallies = load(keep)
    twins = sorted({f"twin_{name.split()[1]}" for name in names if name.startswith("twin")})
    built = instrumented.build(("_core", *twins), "-DDMAREWIND_LIBFUZZER=ON")
    environment = instrumented.environment(built)
    beside = keep.with_name(f"{keep.name}.d")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # One that has found something would find it again.
        left = [name for name in names if not open_findings(beside, name)]
        if not left:
            break
        # Who has had least comes first, however often this was interrupted.
        name = min(left, key=lambda one: tallies.get(one, Tally()).seconds)
        runs, spent = Fuzzer(name, beside, environment).run(turn)
        tallies[name] = tallies.get(name, Tally()).plus(runs, spent)
        save(keep, tallies)
        print(f"{name:<24} {runs:>12} in {spent:.1f} s", flush=True)
    found = open_findings(beside)
    for path in found:
        print(f"open: {path}")
    total = sum(row.executions for row in tallies.values())
    hours = sum(row.seconds for row in tallies.values()) / 3600
    print(f"{total} executions in {hours:.2f} processor hours; {len(found)} open findings")
    return 1 if found else 0
