"""Say what came of a measurement: a row for each defect, and a summary."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tools.bench.defects.search import Searched
from tools.bench.defects.worker import CONTROL

HEAD: Final = (
    "| defect | source | found by | s | executions | bytes | least |",
    "|---|---|---|---|---|---|---|",
)
_UNITS: Final = ("events", "bytes")


@dataclass(frozen=True, slots=True)
class Row:
    """Describe a defect that can be planted: the fuzz targets, the likeliest first."""

    name: str
    targets: tuple[str, ...]
    source: str
    what: str


Measured = Sequence[tuple[Row, Sequence[Searched]]]


def line(one: Searched) -> str:
    """Return what one search did, in a line."""
    what = f"found {one.signature}" if one.found else "not found"
    least = f", {one.smallest}" if one.smallest else ""
    return (
        f"{one.defect} by {one.target}: {what}; {one.seconds:.1f} s, "
        f"{one.executions} executions{least} (start {one.startup:.1f} s)"
    )


def markdown(measured: Measured) -> Iterator[str]:
    """Yield a table, what was not found, and what was found without a defect."""
    yield from HEAD
    defects = [(row, tried) for row, tried in measured if row.name != CONTROL and tried]
    for row, tried in defects:
        yield _row(row, tried)
    seconds, missed = _figures(defects)
    yield ""
    if seconds:
        yield (
            f"{len(seconds)} of {len(defects)} found, in {statistics.median(seconds):.1f} s of "
            f"processor time in the median, {max(seconds):.1f} s at most."
        )
    least = {unit: [one.least for one in _firsts(defects) if one.unit == unit] for unit in _UNITS}
    for unit, sizes in least.items():
        if sizes:
            yield f"{len(sizes)} minimised: {statistics.median(sizes):g} {unit} in the median."
    yield from (f"Not found: `{name}`." for name in missed)
    for one in _controls(measured):
        yield f"Without a defect: {line(one)}"


def objects(measured: Measured) -> Iterator[str]:
    """Yield the same as JSON, an object a line; the last one is the summary."""
    for row, tried in measured:
        for one in tried:
            yield json.dumps(one.as_json() | {"source": row.source, "what": row.what})
    defects = [(row, tried) for row, tried in measured if row.name != CONTROL and tried]
    seconds, missed = _figures(defects)
    yield json.dumps({
        "defects": len(defects), "found": len(seconds), "missed": missed,
        "median": statistics.median(seconds) if seconds else 0.0,
        "control": [one.as_json() for one in _controls(measured) if one.found],
    })  # fmt: skip


def failed(measured: Measured) -> bool:
    """Say whether a defect was missed, or something was found without one."""
    defects = [(row, tried) for row, tried in measured if row.name != CONTROL and tried]
    return bool(_figures(defects)[1]) or any(one.found for one in _controls(measured))


def _row(row: Row, tried: Sequence[Searched]) -> str:
    found = next((one for one in tried if one.found), None)
    vain = "; ".join(f"not {one.target} in {one.seconds:.0f} s" for one in tried if not one.found)
    if found is None:
        return f"| `{row.name}` | {row.source} | {vain} | | | | |"
    by = f"{found.target} ({vain})" if vain else found.target
    return (
        f"| `{row.name}` | {row.source} | {by} | {found.seconds:.1f} | {found.executions} "
        f"| {found.size} | {found.smallest} |"
    )


def _figures(defects: Measured) -> tuple[list[float], list[str]]:
    """Return the seconds of what was found, by the first target that does, and what was not."""
    missed = [row.name for row, tried in defects if not any(one.found for one in tried)]
    return [one.seconds for one in _firsts(defects)], missed


def _firsts(defects: Measured) -> list[Searched]:
    firsts = (next((one for one in tried if one.found), None) for _, tried in defects)
    return [one for one in firsts if one is not None]


def _controls(measured: Measured) -> list[Searched]:
    return [one for row, tried in measured if row.name == CONTROL for one in tried]
