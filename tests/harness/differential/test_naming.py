"""Findings about a real unit have one name, whatever they were seen by."""

from __future__ import annotations

import pytest

from decoders.events import (
    Access,
    AccessKind,
    Event,
    Fault,
    FaultRecord,
    RegRead,
    RegWrite,
    Role,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from harness.differential.deviation import Situation
from harness.differential.naming import signature
from harness.differential.situation import LOST
from harness.differential.vtd import MODEL, Divergence
from harness.findings import Finding, FindingKind, StepTuple
from harness.signature import Signature

QUEUE = 0x1E_0000
WAIT, FENCE, FLUSH = 0x25, 0x45, 0x12
IQE = 0x10
FACTS = Situation("", "", frozenset(), frozenset())


def divergence(events: list[Event], *findings: Finding) -> Divergence:
    return Divergence(0, 0, MODEL, findings[0], FACTS, events, findings[1:])


def queue(*words: int) -> list[Event]:
    stores: list[Event] = [Store(QUEUE + 16 * n, 8, word) for n, word in enumerate(words)]
    return [
        *stores,
        RegWrite(vtd.IQA.offset, 8, QUEUE),
        RegWrite(vtd.IQT.offset, 8, 16 * len(words)),
    ]


def read(events: list[Event], register: vtd.Register, seen: int, right: int) -> Finding:
    events.append(RegRead(register.offset, register.size, seen))
    return Finding(len(events) - 1, FindingKind.DIVERGENCE, "register", seen, (right,))


def test_a_descriptor_that_was_refused_names_what_the_head_shows() -> None:
    events = queue(FLUSH, FENCE, WAIT)
    found = read(events, vtd.IQH, 16, 48)
    assert signature(divergence(events, found)) == Signature(
        "divergence", "Descriptor", "InvalidationWait fn", "taken -> refused"
    )


def test_a_descriptor_that_was_taken_is_the_one_that_the_specification_stops_at() -> None:
    events = queue(FLUSH, 0x5 | 1 << 8, WAIT)
    found = read(events, vtd.IQH, 48, 16)
    assert signature(divergence(events, found)).subject == "InvalidationWait reserved bits"
    assert signature(divergence(events, found)).outcome == "refused -> taken"


def test_the_head_and_the_error_bit_say_the_same() -> None:
    by_head, by_status = queue(FENCE), queue(FENCE)
    head = read(by_head, vtd.IQH, 0, 16)
    by_status.append(RegRead(vtd.IQH.offset, 8, 0))
    status = read(by_status, vtd.FSTS, IQE, 0)
    assert signature(divergence(by_head, head)) == signature(divergence(by_status, status))


def test_a_status_write_that_a_stopped_queue_would_not_do_is_about_the_queue() -> None:
    events = queue(0x5 | 1 << 8, WAIT)
    written = StatusWrite(0x1000, 7)
    events.append(written)
    first = Finding(len(events) - 1, FindingKind.DIVERGENCE, "status-write", written, ())
    second = read(events, vtd.IQH, 32, 0)
    assert signature(divergence(events, first, second)).event == "Descriptor"
    assert signature(divergence(events, first)).event == "StatusWrite"


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (Translation(LOST, 0), "fault 0x05 -> lost"),
        (Translation(0x3000, 0xFFF), "fault 0x05 -> identity"),
        (Translation(0x5000, 0xFFF), "fault 0x05 -> translation"),
        (Fault(0x07), "fault 0x05 -> fault 0x07"),
    ],
    ids=["lost", "identity", "translation", "fault"],
)
def test_where_an_access_led_counts_and_the_level_of_a_table_does_not(
    seen: Fault | Translation, outcome: str
) -> None:
    access = Access(0x20, None, 0x3010, AccessKind.WRITE, seen)
    names = set()
    for level in (1, 2, 3):
        steps: tuple[StepTuple, ...] = ((int(Role.SECOND_STAGE), level, 0x1000, 3),)
        found = Finding(0, FindingKind.DIVERGENCE, "access", seen, (Fault(5),), steps)
        names.add(signature(divergence([access], found)))
    assert names == {Signature("divergence", "Access", "access", outcome, "second stage")}


def test_a_record_that_should_not_be_is_one_finding_whatever_the_fault() -> None:
    records = [FaultRecord(0, 0x1000, reason << 32) for reason in (5, 7)]
    found = [Finding(0, FindingKind.DIVERGENCE, "fault-record", one, ()) for one in records]
    names = {signature(divergence([one], each)) for one, each in zip(records, found, strict=True)}
    assert len(names) == 1, names


def test_bits_of_an_entry_are_named() -> None:
    entry = (0x10_0000).to_bytes(8, "big")
    seen, right = (entry + word.to_bytes(8, "big") for word in (0x27, 0x67))
    found = Finding(0, FindingKind.DIVERGENCE, "table", seen, (right,))
    assert signature(divergence([RegRead(0x34, 4, 0)], found)).outcome == "d"
