"""What a directory holds for the regress verb: traces, and inputs of fuzzers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from harness.trace import detect

TRACES: Final = frozenset({".trace", ".txt"})
TARGETS: Final = ("model", "native")
EXPECTED: Final = ".expected.json"
"""Ends the name of a file beside a trace that lists the signatures of its findings."""
NOTES: Final = "README.md"
"""Says what is in a directory; no input of a fuzzer, whatever the directory is called."""
FUZZ_TARGETS: Final = "fuzzers.target"
"""Module that knows the fuzz targets; loaded where a directory is named after one."""
FINDINGS, RECORDS = "findings", "records"
"""Directories of a campaign: inputs by their target, and what each was found against."""
_RECORD_LIMIT: Final = 1 << 20
_HEAD: Final = 64


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to run: a file on a target; group is the directory it is in.

    against is what an input of a fuzzer is compared with there, empty for a trace.
    """

    path: Path
    group: str
    target: str
    against: str = ""

    def __str__(self) -> str:
        """Return what it is run on."""
        return f"{self.target} against {self.against}" if self.against else self.target


class FuzzTargets(Protocol):
    """What is needed of the module that knows the fuzz targets."""

    def target_names(self) -> Sequence[str]:
        """Return the names of the targets."""
        ...

    def target_named(self, name: str) -> Any:
        """Return a target: `against` begins with its default, `runner()` makes what runs one."""
        ...


def cases(corpus: Path) -> Iterator[Case]:
    """Yield what a directory holds: traces on each target, other files on their fuzz target."""
    fuzz = fuzz_targets()
    names = frozenset(fuzz.target_names()) if fuzz else frozenset()
    known: dict[str, tuple[str, ...]] = {}
    records: dict[Path, dict[str, str]] = {}
    for path in sorted(corpus.rglob("*")):
        told = path.name.endswith(EXPECTED) or path.name.startswith(".") or path.name == NOTES
        if told or not path.is_file():
            continue
        group = path.parent.absolute().name
        named = path.suffix in TRACES
        if group in names and not (named and _begins_as_trace(path)):
            assert fuzz is not None
            if group not in known:
                known[group] = tuple(fuzz.target_named(group).against)
            if path.parent not in records:
                records[path.parent] = _records(path.parent)
            against = records[path.parent].get(path.name)
            yield Case(path, group, group, against if against in known[group] else known[group][0])
        elif named:
            for target in TARGETS:
                yield Case(path, str(path.parent.relative_to(corpus)), target)


def _begins_as_trace(path: Path) -> bool:
    """Say whether a file whose name is that of a trace is one, and no input of a fuzzer."""
    with path.open("rb") as stream:
        return detect(stream.read(_HEAD)) is not None


def fuzz_targets() -> FuzzTargets | None:
    """Return the module of the fuzz targets, which is not part of every installation."""
    try:
        found = importlib.util.find_spec(FUZZ_TARGETS)
    except ModuleNotFoundError:
        return None
    return cast(FuzzTargets, importlib.import_module(FUZZ_TARGETS)) if found else None


def _records(folder: Path) -> dict[str, str]:
    """Return what the inputs in a directory of a campaign were found against, as far as it says."""
    said: dict[str, str] = {}
    there = folder.resolve()
    if there.parent.name != FINDINGS:
        return said
    for path in sorted(there.parent.with_name(RECORDS).glob(f"{there.name}-*.json")):
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            if path.stat().st_size <= _RECORD_LIMIT:
                plain = json.loads(path.read_bytes())
                said[str(plain["input"])] = str(plain["against"])
    return said
