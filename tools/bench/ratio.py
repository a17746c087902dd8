"""One measured ratio and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """State one ratio: what over what, both measured now, and the bound it should keep.

    at_most tells whether limit is an upper bound (a cost) or a lower one (a speed).
    """

    name: str
    value: float
    measured: str
    floor: str
    limit: float
    at_most: bool

    @property
    def kept(self) -> bool:
        """Say whether the ratio keeps its bound."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def best_of(runs: int, work: Callable[[], object]) -> float:
    """Return the shortest of several wall times of work, in seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def table(ratios: Iterable[Ratio]) -> str:
    """Return a line per ratio: name, ratio, bound, both figures."""
    lines = []
    for ratio in ratios:
        sign = "<=" if ratio.at_most else ">="
        mark = "kept" if ratio.kept else "MISSED"
        bound = f"{sign} {ratio.limit:g}"
        lines.append(
            f"{ratio.name:<48} {ratio.value:>8.2f}  {bound:<8} {mark:<6}"
            f"  {ratio.measured} over {ratio.floor}"
        )
    return "\n".join(lines)
