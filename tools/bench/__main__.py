"""Run benchmarks: `python -m tools.bench [NAME ...]`, all of them by default.

`defects` (docs/defects.md), `rediscover` (docs/rediscovery.md) and `executions` (docs/fuzzing.md)
have options of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from tools.bench import rediscover
from tools.bench.ratio import Ratio, table

BENCHES = ("translate", "replay", "memory", "record", "qemu", "minimise", "qemu_vtd", "fuzz")
CORPUS = Path(__file__).parents[2] / "corpora" / "traces"


def main() -> int:
    """Print a line per ratio; return 1 when a bound is missed, 0 otherwise."""
    if sys.argv[1:2] == ["rediscover"]:
        return rediscover.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--trace", action="append", type=Path, help="default: the shipped ones")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    unknown = set(args.names) - set(BENCHES)
    if unknown:
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    traces = args.trace or sorted(CORPUS.glob("*.trace"))
    missed = False
    for name in args.names or BENCHES:
        run: Callable[[list[Path]], list[Ratio]] = import_module(f"tools.bench.{name}").run
        ratios = run(traces)
        missed = missed or not all(ratio.kept for ratio in ratios)
        if args.json:
            for ratio in ratios:
                print(json.dumps(asdict(ratio) | {"kept": ratio.kept}), flush=True)
        else:
            print(table(ratios), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["defects"]:
        sys.exit(import_module("tools.bench.defects.command").main(sys.argv[2:]))
    if sys.argv[1:2] == ["executions"]:
        sys.exit(import_module("tools.bench.executions").main(sys.argv[2:]))
    sys.exit(main())
