"""What a request needs of the registers: the last writes that put tables and queue in use."""

from __future__ import annotations

import pytest

from decoders.events import Access, AccessKind, Event, InterruptRequest, RegWrite, Reset, Store
from decoders.vtd import registers as vtd
from harness.minimise.effect import enabling_queue, in_effect

TE, SRTP, QIE, IRE, SIRTP = 1 << 31, 1 << 30, 1 << 26, 1 << 25, 1 << 24
ACCESS = Access(0x10, None, 0, AccessKind.READ, None)
INTERRUPT = InterruptRequest(0x10, 0xFEE0_0000, 0, None)


def command(value: int) -> RegWrite:
    return RegWrite(vtd.GCMD.offset, 4, value)


def root(value: int) -> RegWrite:
    return RegWrite(vtd.RTADDR.offset, 8, value)


@pytest.mark.parametrize(
    ("events", "needed"),
    [
        ([root(0x1000), command(SRTP), command(TE), ACCESS], {0, 1, 2}),
        ([root(0x1000), command(SRTP | TE), command(TE | QIE), ACCESS], {0, 1}),
        ([root(0x1000), command(SRTP), root(0x2000), command(SRTP), command(TE), ACCESS],
         {2, 3, 4}),
        ([root(0x1000), command(SRTP | TE), root(0x2000), ACCESS], {0, 1}),
        ([root(0x1000), command(SRTP | TE), Reset(), Store(0, 8, 1), ACCESS], set()),
        ([RegWrite(vtd.IRTA.offset, 8, 0x3000), root(0x1000), command(SRTP | TE),
          command(TE | SIRTP), command(TE | IRE), INTERRUPT], {0, 3, 4}),
    ],
    ids=["apart", "at once", "a second table", "not taken over", "reset", "interrupts"],
)  # fmt: skip
def test_the_last_address_that_was_taken_over_counts(events: list[Event], needed: set[int]) -> None:
    assert set(in_effect(events, len(events) - 1)) == needed


def test_both_halves_of_an_address_are_needed() -> None:
    low, high = RegWrite(vtd.RTADDR.offset, 4, 0x1000), RegWrite(vtd.RTADDR.offset + 4, 4, 1)
    events: list[Event] = [low, low, high, command(SRTP | TE), ACCESS]
    assert set(in_effect(events, 4)) == {1, 2, 3}


def test_a_queue_needs_each_write_that_switched_it_on() -> None:
    address = RegWrite(vtd.IQA.offset, 8, 0x4000)
    events = [address, command(QIE), command(QIE | TE), command(0), address, command(QIE)]
    assert set(enabling_queue(events, -1)) == {0, 1, 4, 5}
    assert set(enabling_queue(events, 2)) == {4, 5}
