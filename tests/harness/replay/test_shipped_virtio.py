"""Recordings of real guests with a virtio-iommu: nothing is found, and an edit gives a finding."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from decoders.events import Access, Event, FaultReport, Request, Translation
from decoders.virtio_iommu.constants import RequestType, Status
from harness.findings import FindingKind
from harness.replay import unit_config
from harness.targets import target_named
from harness.trace import Header, TraceReader
from tests.harness.replay.test_shipped_traces import SHIPPED
from tests.writers.replays import replay_events

TRACES = SHIPPED["virtio-iommu"]
EVENTS = 6000
"""Events from the beginning of a recording that are edited, and replayed on the model."""


@functools.cache
def beginning(path: Path) -> tuple[Header, tuple[Event, ...]]:
    with TraceReader(path) as source:
        return source.header, tuple(islice(source, EVENTS))


def test_there_are_some() -> None:
    assert len(TRACES) == 5


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_recording(path: Path, target: str) -> None:
    if target == "model":
        header, events = beginning(path)
        result = replay_events(header, events, target)
        assert (result.findings, result.counters.events) == ([], len(events))
        return
    with TraceReader(path) as source:
        replay = target_named(target, unit_config(source.header))
        for block in source.blocks():
            replay.feed(block)
    replay.finish()
    assert list(replay.findings()) == []
    assert replay.counters().agreed > 1000


def edits(events: tuple[Event, ...]) -> list[tuple[int, Event]]:
    """Change the address of an answer, and the status of a MAP and of an UNMAP in use."""
    changed: list[tuple[int, Event]] = []
    seen: set[object] = set()
    for index, event in enumerate(events[EVENTS // 2 :], EVENTS // 2):
        if isinstance(event, Access) and isinstance(event.outcome, Translation):
            away = Translation(event.outcome.address ^ 0x1000, event.outcome.mask)
            edited: Event = replace(event, outcome=away)
        elif isinstance(event, Request) and event.data[0] == RequestType.UNMAP:
            edited = replace(event, answer=bytes([Status.NOENT, 0, 0, 0]))
        else:
            continue
        if type(event) not in seen:
            seen.add(type(event))
            changed.append((index, edited))
    return changed


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_an_edited_answer_is_found_where_it_stands(path: Path, target: str) -> None:
    header, events = beginning(path)
    changed = edits(events)
    assert len(changed) == 2
    for index, edited in changed:
        result = replay_events(header, [*events[:index], edited, *events[index + 1 :]], target)
        found = [(finding.kind, finding.event) for finding in result.findings]
        assert found[0] == (FindingKind.DIVERGENCE, index)
        if isinstance(edited, Access):
            assert len(found) == 1


def test_a_missing_fault_report_is_found(target: str) -> None:
    """The access before it is where it was expected."""
    (path,) = (path for path in TRACES if path.stem == "virtio-iommu-faults")
    with TraceReader(path) as source:
        header, events = source.header, list(source)
    index = next(i for i, event in enumerate(events) if isinstance(event, FaultReport))
    start = header, [*events[:index], *events[index + 1 : index + 2000]], target
    assert [finding.event for finding in replay_events(*start).findings] == [index - 1]
