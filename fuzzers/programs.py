"""Write what stands beside a fuzz target's program where OSS-Fuzz runs it: seeds, words, options.

`python -m fuzzers.programs names [PREFIX]` prints what programs there are, and
`python -m fuzzers.programs write DIR NAME ...` makes NAME_seed_corpus.zip, NAME.dict, NAME.options.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from fuzzers.command import write_dictionary
from fuzzers.target import FuzzTarget, target_named, target_names
from harness.errors import HarnessError

PYTHON: Final = "fuzz_"
"""What the name of a program begins with that runs a target under Atheris."""

TWIN: Final = "twin_"
"""What it begins with for a target that does without Python (harness/native/fuzz)."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Say whose seeds and words a twin begins with, and how much to leave out of each seed."""

    target: str
    skipped: int = 0


_TWINS: Final = {
    "descriptors": Inputs("descriptors"),
    "pasid": Inputs("pasid"),
    "pagetables": Inputs("pagetables"),
    "trace": Inputs("trace"),
    "virtio": Inputs("virtio"),
    "acpi": Inputs("acpi"),
    # Events without a scaffold: what stands behind the byte that chooses one.
    "reader": Inputs("trace", skipped=1),
}


def names() -> tuple[str, ...]:
    """Return the names of all programs."""
    return (*(PYTHON + name for name in target_names()), *(TWIN + name for name in _TWINS))


def write(directory: Path, name: str) -> None:
    """Write what stands beside a program; raise HarnessError when there is none of that name."""
    inputs = _inputs(name)
    target = _target(inputs.target)
    longest = target.max_size - inputs.skipped
    _write_seeds(directory / f"{name}_seed_corpus.zip", target, inputs.skipped)
    write_dictionary(target, directory / f"{name}.dict")
    (directory / f"{name}.options").write_text(f"[libfuzzer]\nmax_len = {longest}\n")


def _inputs(name: str) -> Inputs:
    if name.startswith(PYTHON):
        return Inputs(name.removeprefix(PYTHON))
    inputs = _TWINS.get(name.removeprefix(TWIN)) if name.startswith(TWIN) else None
    if inputs is None:
        raise HarnessError(f"no program {name!r}; there are {', '.join(names())}")
    return inputs


@cache
def _target(name: str) -> FuzzTarget:
    return target_named(name)


def _write_seeds(path: Path, target: FuzzTarget, skipped: int) -> None:
    seeds = {data[skipped:] for data in target.seeds()}
    with ZipFile(path, "w", ZIP_DEFLATED) as packed:
        for name, data in sorted((hashlib.sha1(data).hexdigest(), data) for data in seeds):
            # A member without a time, so that the same seeds make the same file.
            member = ZipInfo(name)
            member.compress_type = ZIP_DEFLATED
            packed.writestr(member, data)


def main(argv: Sequence[str]) -> int:
    """Do what the words say."""
    verb, *words = argv
    if verb == "names":
        prefix = words[0] if words else ""
        print(*(name for name in names() if name.startswith(prefix)), sep="\n")
    elif verb == "write":
        for name in words[1:]:
            write(Path(words[0]), name)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
