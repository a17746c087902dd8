"""Write the page about a campaign: one file, tables and plots as SVG, nothing from elsewhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

WIDTH, HEIGHT, MARGIN = 340, 120, 24
POINTS: Final = 300
"""Points of a plot: more are thinned out."""

PLOTS: Final = {
    "per_second": "executions per second",
    "coverage": "coverage (edges)",
    "features": "features",
    "corpus": "inputs",
    "findings": "findings",
}
"""Columns of the samples, and what each is called."""

_STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
table { border-collapse: collapse; margin-bottom: 1.5em }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
svg { margin: 0 .8em .4em 0 } svg text { font-size: 10px; fill: #555 }
.trouble { color: #a00 } code { font-size: 12px }
"""


def render(
    lines: Sequence[Any],
    samples: Mapping[str, Sequence[sqlite3.Row]],
    findings: Sequence[sqlite3.Row],
    now: float,
) -> str:
    """Return the page: lines are status.Line."""
    parts = [
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=30>",
        f"<title>dmarewind campaign</title><style>{_STYLE}</style>",
        f"<h1>Campaign</h1><p>As of {_when(now)}.</p>",
        *_targets(lines),
        *_findings(findings),
    ]
    for line in lines:
        rows = samples.get(line.target, ())
        parts.append(f"<h2>{escape(line.target)} against {escape(line.against)}</h2>")
        if line.trouble:
            parts.append(f"<p class=trouble>{escape(line.trouble[:400])}</p>")
        parts += [plot(rows, column, words) for column, words in PLOTS.items()]
    return "\n".join(parts) + "</html>\n"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _targets(lines: Sequence[Any]) -> Iterator[str]:
    heads = ("executions", "per second", "coverage", "features", "inputs", "open", "findings")
    yield "<table><tr><th>target<th>against"
    yield "".join(f"<th class=n>{head}" for head in (*heads, "running"))
    for line in lines:
        numbers = (
            line.executions, f"{line.per_second:.0f}", line.coverage, line.features, line.corpus,
            line.open, line.findings, line.running,
        )  # fmt: skip
        cells = "".join(f"<td class=n>{number}" for number in numbers)
        yield f"<tr><td>{escape(line.target)}<td>{escape(line.against)}{cells}"
    yield "</table>"


def _findings(findings: Sequence[sqlite3.Row]) -> Iterator[str]:
    if not findings:
        yield "<p>Nothing was found yet.</p>"
        return
    yield "<table><tr><th>target<th>signature<th>what<th>state<th class=n>slices"
    yield "<th class=n>bytes<th>first seen<th>last seen"
    for row in findings:
        plain = json.loads(row["signature"])
        words = ", ".join(str(v) for k, v in plain.items() if k != "key" and v)
        state = row["state"] + (", input lost" if row["lost"] else "")
        link = f"reports/{row['target']}-{row['key']}.txt"
        yield (
            f'<tr><td>{escape(row["target"])}<td><a href="{escape(link)}"><code>'
            f"{escape(row['key'])}</code></a><td>{escape(words)}<td>{escape(state)}"
            f"<td class=n>{row['times']}<td class=n>{row['size']}"
            f"<td>{_when(row['first'])}<td>{_when(row['last'])}"
        )
    yield "</table>"


def plot(rows: Sequence[sqlite3.Row], column: str, words: str) -> str:
    """Return one plot over time as SVG."""
    values = [(float(row["at"]), float(row[column])) for row in rows]
    step = max(1, -(-len(values) // POINTS))
    # The newest point is always there.
    points = values[::-1][::step][::-1]
    label = f"<text x={MARGIN} y=12>{escape(words)}</text>"
    box = f'<svg width={WIDTH} height={HEIGHT} role=img aria-label="{escape(words)}">{label}'
    if not points:
        return f"{box}<text x={MARGIN} y={HEIGHT // 2}>nothing yet</text></svg>"
    first, last = points[0][0], points[-1][0]
    top = max(value for _, value in points) or 1.0
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(at: float, value: float) -> str:
        x = MARGIN + (wide * (at - first) / (last - first) if last > first else wide)
        return f"{x:.1f},{HEIGHT - MARGIN - high * value / top:.1f}"

    drawn = " ".join(place(*point) for point in points)
    base = HEIGHT - MARGIN
    return (
        f'{box}<line x1={MARGIN} y1={base} x2={WIDTH - MARGIN} y2={base} stroke="#bbb" />'
        f'<polyline points="{drawn}" fill=none stroke="#06c" stroke-width=1.5 />'
        f"<text x={MARGIN} y={MARGIN - 1}>{top:.0f}</text>"
        f"<text x={MARGIN} y={HEIGHT - 8}>{_when(first)[5:16]}</text>"
        f"<text x={WIDTH - MARGIN} y={HEIGHT - 8} text-anchor=end>{_when(last)[5:16]}, "
        f"{points[-1][1]:.0f}</text></svg>"
    )
