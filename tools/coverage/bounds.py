"""Say how much of the core the runs have to reach."""

from __future__ import annotations

from typing import Final

from fuzzers.coverage.report import Part

BOUNDS: Final = {"lines": 95.0, "branches": 90.0}
"""Percent of the core that has to be run; of a branch both ways count."""


def missed(whole: Part) -> list[str]:
    """Say which bounds are missed."""
    return [
        f"{whole.name}: {kind}: {share.percent:.2f} % of at least {BOUNDS[kind]:g} %"
        for kind, share in (("lines", whole.lines), ("branches", whole.branches))
        if share.percent < BOUNDS[kind]
    ]
