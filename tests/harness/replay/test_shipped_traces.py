"""Recordings of real guests: nothing is found in them, and one edit gives exactly one finding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from harness.replay import unit_config
from harness.targets import target_named
from harness.trace import TraceReader
from tests.harness.replay.edits import (
    Beginning,
    Edit,
    Probe,
    flipped_bits,
    misdirected_invalidations,
    missing_invalidations,
    swapped_stores,
)
from tests.writers.replays import replay_events

SHIPPED: dict[str, list[Path]] = {}
"""The shipped recordings, by the kind of their unit."""
for _path in sorted((Path(__file__).parents[3] / "corpora" / "traces").glob("*.trace")):
    with TraceReader(_path) as _source:
        SHIPPED.setdefault(_source.header.units[0].kind, []).append(_path)
TRACES = SHIPPED["vtd"]
EDITS_PER_TRACE = 4
Kind = Callable[[Probe], Iterator[Edit]]
MINIMUM: dict[Kind, int] = {
    flipped_bits: 4,
    swapped_stores: 4,
    missing_invalidations: 4,
    # Where the unit has caching mode, mapping invalidates once more: only one of two goes astray.
    misdirected_invalidations: 1,
}
"""Kinds of edit, and how many of the traces must have a place for one."""


@functools.cache
def beginning(path: Path) -> Beginning:
    return Beginning.of(path)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_recording(path: Path, target: str) -> None:
    if target == "model":
        start = beginning(path)
        result = replay_events(start.header, start.events, target)
        assert (result.findings, result.counters.events) == ([], len(start.events))
        return
    with TraceReader(path) as source:
        replay = target_named(target, unit_config(source.header))
        for block in source.blocks():
            replay.feed(block)
    replay.finish()
    assert list(replay.findings()) == []
    counters = replay.counters()
    assert counters.divergences == 0
    assert counters.agreed > 100


@pytest.mark.parametrize("kind", MINIMUM, ids=lambda kind: kind.__name__)
def test_one_edit_gives_one_finding(kind: Kind, target: str) -> None:
    places = 0
    wrong = []
    for path in TRACES:
        start = beginning(path)
        edits = list(islice(kind(start.probe), EDITS_PER_TRACE))
        places += bool(edits)
        for edit in edits:
            result = replay_events(start.header, start.edited(edit), target)
            found = [(one.kind, one.subject, one.event) for one in result.findings]
            if found != [(edit.kind, edit.subject, edit.event)]:
                wrong.append((path.stem, edit, found))
    assert wrong == []
    assert places >= MINIMUM[kind]


def test_a_misdirected_invalidation_is_explained(target: str) -> None:
    for path in TRACES:
        start = beginning(path)
        for edit in islice(misdirected_invalidations(start.probe), 1):
            result = replay_events(start.header, start.edited(edit), target)
            (finding,) = result.findings
            text = result.explain(finding)
            assert f"unflushed: event {edit.event}: access" in text
            assert "changed by" in text
            assert "invalidation, domain" in text
            return
    pytest.fail("no trace has a place for this edit")
