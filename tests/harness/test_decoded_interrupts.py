"""Interrupt requests in words: what show and stats say of them."""

from __future__ import annotations

import pytest

from decoders.events import (
    Delivery,
    Fault,
    FaultRecord,
    InterruptRequest,
    Message,
    Posted,
    Role,
    Snapshot,
    Store,
)
from harness.decoded import Namer
from harness.selection import source_of, span_of
from harness.stats import Statistics
from harness.trace.lines import format_event
from tests.harness.trace.samples import HEADER
from tests.writers.interrupts import compatible, remappable, sent

TABLE = 0x7F00_0000


@pytest.mark.parametrize(
    ("message", "outcome", "text"),
    [
        (remappable(5), sent(), "remappable format index=0x5"),
        (
            remappable(0x8001),
            Fault(0x22),
            "remappable format index=0x8001 (interrupt entry not present)",
        ),
        (
            remappable(5, 3),
            Fault(0),
            "remappable format index=0x8 (refused, the reason was not recorded)",
        ),
        (compatible(), Message(*compatible()), "compatibility format"),
    ],
)
def test_a_request_in_words(message: tuple[int, int], outcome: Delivery, text: str) -> None:
    decoded = Namer(HEADER).decode(InterruptRequest(0x18, *message, outcome))
    assert decoded is not None and decoded.text() == text


@pytest.mark.parametrize(
    ("sid", "outcome", "line"),
    [
        (0x18, Message(0xFEE02000, 0x4031), "00:03.0 0xfee000b0 0x0 = 0xfee02000 0x4031"),
        (None, Posted(0x7F003000, 0x31, True), "- 0xfee000b0 0x0 + 0x7f003000 0x31 urgent"),
        (None, Posted(0x7F003000, 0x31, False), "- 0xfee000b0 0x0 + 0x7f003000 0x31"),
        (0x18, Fault(0x22), "00:03.0 0xfee000b0 0x0 ! 0x22"),
        (0x18, None, "00:03.0 0xfee000b0 0x0 ?"),
    ],
)
def test_a_request_on_a_line(sid: int | None, outcome: Delivery | None, line: str) -> None:
    event = InterruptRequest(sid, *remappable(5), outcome)
    assert format_event(event) == f"interrupt-request {line}"


def test_entries_of_the_table_in_words() -> None:
    namer = Namer(HEADER)
    low = (0x31 << 16 | 1).to_bytes(8, "little")
    page = Snapshot(TABLE, Role.INTERRUPT_TABLE, 0, low.ljust(4096, b"\0"))
    namer.learn(page)
    ((index, entry),) = namer.entries(page)
    assert (index, entry.text()) == (0, "InterruptRemapEntry p=0x1 vector=0x31")
    decoded = namer.decode(Store(TABLE + 16 * 5 + 8, 8, 1 << 18 | 0x18))
    assert decoded is not None
    assert decoded.text() == "InterruptRemapEntry[0x5] sid=0x18 svt=0x1"


def test_requests_are_counted_by_what_became_of_them() -> None:
    found = Statistics(HEADER)
    for outcome in (sent(), sent(), Posted(0, 1, False), Fault(0), Fault(0x26), None):
        found.add(InterruptRequest(None, *remappable(), outcome))
    assert found.interrupts == {"delivered": 2, "posted": 1, "refused": 2, "unanswered": 1}
    assert found.reasons == {0x26: 1}
    assert found.plain()["interrupts"]["refused"] == 2


def test_a_device_is_found_by_its_interrupts() -> None:
    assert source_of(InterruptRequest(0x28, *remappable(), None)) == 0x28
    assert source_of(InterruptRequest(None, *remappable(), None)) is None


def test_a_record_of_an_interrupt_names_no_address() -> None:
    assert span_of(FaultRecord(0, 5 << 48, 0x22 << 32 | 0x18)) is None
    assert span_of(FaultRecord(0, 0x1000, 0x06 << 32 | 0x18)) == (0x1000, 0x1FFF)
