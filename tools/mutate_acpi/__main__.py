"""Change ACPI tables at random and compare how the decoders and the native core take them.

Both must refuse the same tables with the same words, and give the same answer for every device of
those and of all others. Exit status: 0, 1 when they differ in something, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from dataclasses import fields
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from tqdm import tqdm

from fuzzers.acpi_compare import DEVICES, Group, Tally, groups
from fuzzers.acpi_mutations import mutate
from fuzzers.acpi_seeds import Seed, bombs, corpus
from harness.native import available
from harness.native.loading import HOW_TO_BUILD

CHUNK: Final = 500
"""Tables that a process makes before it reports."""
_BOMBS_SHARE: Final = 1 / 4000
"""How often a table that was made to be slow is changed: they would take most of the time."""


@cache
def _prepared() -> tuple[list[Seed], list[Seed], list[Group]]:
    return corpus(), bombs(), groups()


def as_they_are() -> Tally:
    """Compare every seed unchanged, with all devices."""
    plain, slow, asked = _prepared()
    tally = Tally()
    for seed in plain:
        for group in asked:
            tally.compare(seed.name, seed.data, group)
    everyone = groups(size=len(DEVICES))[-1]
    for seed in slow:
        tally.compare(seed.name, seed.data, everyone)
    return tally


def chunk(work: tuple[str, int, int]) -> Tally:
    """Compare changed tables; work is the seed of chance, and the first and last number.

    What a table is depends on the seed and the number alone.
    """
    chance, first, last = work
    plain, slow, asked = _prepared()
    tally = Tally()
    for number in range(first, last):
        choose = Random(f"{chance}/{number}")
        seed = choose.choice(slow if choose.random() < _BOMBS_SHARE else plain)
        data = mutate(seed, choose)
        tally.compare(f"{number} ({seed.name})", data, choose.choice(asked))
    return tally


def run(count: int, chance: str, processes: int, *, shown: bool) -> Tally:
    """Compare the seeds, then count changed tables."""
    total = as_they_are()
    work = [(chance, at, min(at + CHUNK, count)) for at in range(0, count, CHUNK)]
    with (
        multiprocessing.get_context("fork").Pool(processes) as pool,
        tqdm(total=count, unit=" tables", disable=not shown, file=sys.stderr) as bar,
    ):
        for tally in pool.imap_unordered(chunk, work):
            total.add(tally)
            bar.update(tally.tables)
    return total


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def main() -> int:
    """Print what was compared, and what differs; return 1 if anything does."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate_acpi", description=__doc__)
    parser.add_argument("--count", type=_positive, default=10_000, help="changed tables (10000)")
    parser.add_argument("--seed", default="1", help="any text; the same gives the same tables")
    parser.add_argument("--processes", type=_positive, default=1, help="at the same time (1)")
    parser.add_argument("--keep", type=Path, help="write the differences to this file")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    if not available():
        parser.error(HOW_TO_BUILD)
    began = time.monotonic()
    tally = run(args.count, args.seed, args.processes, shown=sys.stderr.isatty())
    seconds = time.monotonic() - began
    if args.keep is not None:
        args.keep.write_text("".join(f"{line}\n" for line in tally.differences), encoding="utf-8")
    if args.json:
        members = {member.name: getattr(tally, member.name) for member in fields(tally)}
        print(json.dumps(members | {"seconds": seconds}))
    else:
        _print(tally, seconds)
    return 1 if tally.different else 0


def _print(tally: Tally, seconds: float) -> None:
    print(f"{tally.tables} tables in {seconds:.0f} s, {tally.tables / seconds:.0f} a second")
    print(
        f"{tally.refused} refused: {tally.same_place} at the same path and offset, "
        f"{tally.same_text} in the same words"
    )
    print("answers:", ", ".join(f"{name} {count}" for name, count in tally.met.most_common()))
    for side, (longest, name) in sorted(tally.worst.items()):
        print(f"longest in {side}: {longest * 1000:.3f} ms of the processor, table {name}")
    for line in tally.differences[:10]:
        print(line[:1000])
    print(f"{tally.different} differences")


if __name__ == "__main__":
    sys.exit(main())
