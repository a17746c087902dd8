"""The shipped recording of interrupts: a wrong answer in it is found, and named for what it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from decoders.events import Event, Fault, InterruptRequest, Message, Role, Snapshot, Store
from decoders.vtd.interrupt import message_index
from harness.findings import FindingKind
from harness.trace import Header, open_events
from tests.writers.replays import Replayed, replay_events

PATH = Path(__file__).parents[3] / "corpora/traces/interrupts.trace"
EDU = 0x28
"""Source id of a device that has no entry of its own: 00:05.0."""


@functools.cache
def recording() -> tuple[Header, tuple[Event, ...]]:
    with open_events(PATH) as source:
        return source.header, tuple(source)


def remapped() -> list[tuple[int, int, InterruptRequest]]:
    """Return number, index and request of each message that an entry replaced."""
    return [
        (number, index, event)
        for number, event in enumerate(recording()[1])
        if isinstance(event, InterruptRequest) and isinstance(event.outcome, Message)
        if (index := message_index(event.address, event.data)) is not None
        if event.outcome != Message(event.address, event.data)
    ]


def edited(target: str, number: int, event: Event | None) -> Replayed:
    """Replay with another event, or none, in the place of one."""
    header, events = recording()
    middle: Sequence[Event] = () if event is None else (event,)
    return replay_events(header, (*events[:number], *middle, *events[number + 1 :]), target)


def one_finding(result: Replayed, number: int) -> tuple[FindingKind, str]:
    """Return kind and text of the only finding, which is about a request."""
    (finding,) = result.findings
    assert (finding.subject, finding.event) == ("interrupt-request", number)
    return finding.kind, result.explain(finding)


def test_another_vector_is_a_divergence(target: str) -> None:
    number, _, event = remapped()[100]
    assert isinstance(event.outcome, Message)
    wrong = replace(event.outcome, data=event.outcome.data ^ 1)
    kind, text = one_finding(edited(target, number, replace(event, outcome=wrong)), number)
    assert kind == FindingKind.DIVERGENCE
    assert "interrupt table at" in text and "vector=" in text


def test_a_refusal_of_a_good_message_is_a_divergence(target: str) -> None:
    number, _, event = remapped()[100]
    kind, text = one_finding(edited(target, number, replace(event, outcome=Fault(0))), number)
    assert kind == FindingKind.DIVERGENCE
    assert "refused, the reason was not recorded" in text


def test_a_message_of_another_device_is_a_divergence(target: str) -> None:
    number, _, event = remapped()[100]
    kind, text = one_finding(edited(target, number, replace(event, sid=EDU)), number)
    assert kind == FindingKind.DIVERGENCE
    assert "interrupt source not the one in the entry" in text


def test_an_entry_that_is_served_after_its_invalidation(target: str) -> None:
    first: dict[int, InterruptRequest] = {}
    number, before, event = next(
        (number, first[index], event)
        for number, index, event in remapped()
        if first.setdefault(index, event).outcome != event.outcome
    )
    stale = replace(event, outcome=before.outcome)
    kind, text = one_finding(edited(target, number, stale), number)
    assert kind == FindingKind.STALE_AFTER_INVALIDATION
    assert "covered by" in text and "cache       interrupt-entry" in text


def test_an_entry_that_was_never_written_is_not_present(target: str) -> None:
    number, index, event = remapped()[0]
    events = recording()[1]
    table = min(e.address for e in events if isinstance(e, Snapshot) and is_table(e))
    last = max(n for n, e in enumerate(events[:number]) if is_store(e, table + 16 * index))
    result = edited(target, last, None)
    finding = result.findings[0]
    assert finding.event == number - 1 and finding.kind == FindingKind.DIVERGENCE
    assert finding.observed == event.outcome


def is_table(event: Snapshot) -> bool:
    return event.role == Role.INTERRUPT_TABLE


def is_store(event: Event, address: int) -> bool:
    return isinstance(event, Store) and event.address == address
