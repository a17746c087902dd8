"""Build the fuzz targets as OSS-Fuzz does and check them: `python -m tools.oss_fuzz [NAME ...]`.

Objects stay in build/oss-fuzz. Exit status: 0, 1 when a program is not as it has to be, 2 when
nothing could be built.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import HarnessError
from tools.oss_fuzz import rules
from tools.oss_fuzz.image import ADDRESS, LANGUAGES, PYTHON, ROOT, SANITIZERS, Image

PLACE = ROOT / "build/oss-fuzz"


def check(image: Image, programs: Sequence[str], runs: int) -> list[str]:
    """Build programs, or all; return what is wrong with them."""
    image.clear()
    image.build(programs)
    if image.language == PYTHON:
        # One that does not see mistakes looks as healthy as one that does.
        image.build([rules.PLANTED])
    found = []
    with TemporaryDirectory(prefix="dmarewind-oss-fuzz-") as name:
        # What was built into a place has to run in another one.
        moved, scratch = Path(name) / "moved", Path(name) / "scratch"
        shutil.move(image.out, moved)
        scratch.mkdir()
        built = rules.targets(moved, image.language)
        if set(programs) - set(built):
            found.append(f"{', '.join(sorted(set(programs) - set(built)))}: not taken for targets")
        if image.language == PYTHON:
            found += rules.blindness(moved / rules.PLANTED, image.sanitizer, scratch)
            built = [one for one in built if one != rules.PLANTED]
        if not built:
            found.append("nothing was built")
        for one in built:
            print(f"checking {one}", file=sys.stderr, flush=True)
            wrong = rules.problems(moved / one, image.language, image.sanitizer, scratch, runs)
            found += [f"{one}: {problem}" for problem in wrong]
    return found


def main(argv: Sequence[str]) -> int:
    """Check what the words name."""
    parser = argparse.ArgumentParser(prog="python -m tools.oss_fuzz", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--language", choices=LANGUAGES, default=PYTHON)
    parser.add_argument("--sanitizer", choices=tuple(SANITIZERS), default=ADDRESS)
    parser.add_argument("--runs", type=int, default=500, help="of each (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="compile without optimisation")
    args = parser.parse_args(argv)
    place = PLACE / f"{args.language}-{args.sanitizer}{'-quick' if args.quick else ''}"
    image = Image(place, args.language, args.sanitizer, optimised=not args.quick)
    try:
        found = check(image, args.programs, args.runs)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in found:
        print(problem)
    print(f"{len(found)} problems" if found else "all is as it has to be", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
