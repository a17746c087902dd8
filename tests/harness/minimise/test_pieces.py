"""Pieces of a trace: whatever is left out, the descriptors that remain follow each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.events import (
    Descriptor,
    Event,
    RegRead,
    RegWrite,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
)
from decoders.vtd import registers as vtd
from harness.minimise.judges import ReplayJudge
from harness.minimise.pieces import Cut
from harness.minimise.trace import Trace, checked
from harness.replay import unit_config
from harness.targets.model import ModelReplay
from tests.harness.trace import strategies
from tools.bench.reproducers import header, lost, wrong_answer

QUEUE = 0x4000
QIE = 1 << 26
FLUSH = (0x11, 0)


def wait(number: int) -> tuple[int, int]:
    return (0x25 | number << 32, 0x5000)


def ring(*descriptors: tuple[int, int], wide: bool = False) -> list[Event]:
    """Hand descriptors over one by one, as a unit that does right is seen to take them."""
    step = 32 if wide else 16
    events: list[Event] = [
        RegWrite(vtd.IQA.offset, 8, QUEUE | wide << 11), RegWrite(vtd.GCMD.offset, 4, QIE)
    ]  # fmt: skip
    for number, words in enumerate(descriptors):
        padded = (*words, 0, 0)[: step // 8]
        at = QUEUE + number * step % 4096
        events += [Store(at + 8 * n, 8, word) for n, word in enumerate(padded)]
        events.append(RegWrite(vtd.IQT.offset, 8, (number + 1) * step % 4096))
        events.append(Descriptor(padded))
        if words[0] & 0xF == 5:
            events.append(StatusWrite(words[1], words[0] >> 32))
    return events


def trace(events: list[Event]) -> Trace:
    return Trace(header("first-stage"), tuple(events))


def without(cut: Cut, *queued: int) -> tuple[Event, ...]:
    left_out = [n for n, piece in enumerate(cut.pieces) if piece.queued in queued]
    return cut.without(left_out).events


@pytest.mark.parametrize("wide", [False, True], ids=["128 bits", "256 bits"])
def test_a_descriptor_that_is_left_out_leaves_no_zeros(wide: bool) -> None:
    cut = Cut(trace(ring(wait(1), FLUSH, wait(2), wide=wide)))
    assert without(cut, 1) == tuple(ring(wait(1), wait(2), wide=wide))


def test_the_beginning_can_be_left_out() -> None:
    cut = Cut(trace(ring(wait(1), FLUSH, wait(2))))
    assert without(cut, 0) == tuple(ring(FLUSH, wait(2)))


def test_writes_of_the_tail_that_are_left_out_are_merged_with_the_next() -> None:
    cut = Cut(trace(ring(wait(1), FLUSH)))
    first = next(
        n for n, piece in enumerate(cut.pieces)
        if cut.ring.events[piece.events[0]] == RegWrite(vtd.IQT.offset, 8, 16)
    )  # fmt: skip
    events = cut.without([first]).events
    assert [e for e in events if isinstance(e, RegWrite)][-1] == RegWrite(vtd.IQT.offset, 8, 32)
    assert events[-3:] == (Descriptor(wait(1)), StatusWrite(0x5000, 1), Descriptor(FLUSH))


def test_what_is_read_of_the_head_follows() -> None:
    events = [*ring(wait(1), FLUSH, wait(2)), RegRead(vtd.IQH.offset, 8, 48)]
    assert without(Cut(trace(events)), 1)[-1] == RegRead(vtd.IQH.offset, 8, 32)


def test_a_ring_that_goes_round_is_packed() -> None:
    many = [wait(n + 1) for n in range(600)]
    cut = Cut(trace(ring(*many)))
    kept = {5, 300, 599}
    events = without(cut, *(n for n in range(600) if n not in kept))
    assert events == tuple(ring(*(many[n] for n in sorted(kept))))


def test_a_descriptor_in_a_snapshot_becomes_a_store() -> None:
    page = bytearray(4096)
    for n, word in enumerate((*wait(1), *wait(2))):
        page[8 * n : 8 * n + 8] = word.to_bytes(8, "little")
    events: list[Event] = [
        RegWrite(vtd.IQA.offset, 8, QUEUE), Snapshot(QUEUE, Role.QUEUE, 0, bytes(page)),
        RegWrite(vtd.GCMD.offset, 4, QIE), RegWrite(vtd.IQT.offset, 8, 32),
        Descriptor(wait(1)), StatusWrite(0x5000, 1), Descriptor(wait(2)), StatusWrite(0x5000, 2),
    ]  # fmt: skip
    whole = trace(events)
    assert ReplayJudge("model")(whole) == []
    assert Cut(whole).trace == whole
    left = without(Cut(whole, explicit=True), 0)
    stores = [e for e in left if isinstance(e, Store)]
    assert stores == [Store(QUEUE, 8, wait(2)[0]), Store(QUEUE + 8, 8, wait(2)[1])]
    assert ReplayJudge("model")(trace(list(left))) == []


def test_a_slot_that_is_repaired_moves_with_its_descriptor() -> None:
    broken = 0xF
    events = [
        *ring(wait(1), (broken, 0))[:-1],  # the unit stops at the second one
        Store(QUEUE + 16, 8, FLUSH[0]),
        RegWrite(vtd.FSTS.offset, 4, 0x10),
        Descriptor(FLUSH),  # it goes on as soon as the error is cleared
        RegWrite(vtd.IQT.offset, 8, 32),
    ]
    assert ReplayJudge("model")(trace(events)) == []
    left = without(Cut(trace(events)), 0)
    assert Store(QUEUE, 8, FLUSH[0]) in left
    assert left[-2:] == (Descriptor(FLUSH), RegWrite(vtd.IQT.offset, 8, 16))
    assert ReplayJudge("model")(trace(list(left))) == []


def test_each_event_is_in_one_piece() -> None:
    cut = Cut(wrong_answer("first-stage", 3, 40))
    numbers = sorted(n for piece in cut.pieces for n in piece.events)
    assert numbers == list(range(len(cut.ring.events)))


def test_a_cut_trace_is_cut_the_same_again() -> None:
    whole = Cut(lost(40, 7, True), explicit=True).trace
    assert Cut(whole).trace == whole
    assert Cut(whole, single=True).trace == whole


@given(data=st.data())
def test_sound_software_stays_sound_whatever_is_left_out(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.booleans(), min_size=1, max_size=40))
    wide = data.draw(st.booleans())
    many = [wait(n + 1) if one else FLUSH for n, one in enumerate(kinds)]
    cut = Cut(trace(ring(*many, wide=wide)))
    queued = data.draw(st.sets(st.sampled_from(range(len(many)))))
    tails = [
        n for n, piece in enumerate(cut.pieces)
        if piece.queued < 0 and getattr(cut.ring.events[piece.events[0]], "offset", 0) == 0x88
    ]  # fmt: skip
    dropped = data.draw(st.sets(st.sampled_from(tails[:-1]))) if tails[:-1] else set()
    left_out = {n for n, piece in enumerate(cut.pieces) if piece.queued in queued} | dropped
    left = cut.without(left_out)
    if len(many) - 1 not in queued:
        replay = ModelReplay(unit_config(left.header))  # type: ignore[arg-type]
        for event in left.events:
            replay.apply(event)
        replay.finish()
        assert replay.findings() == []
        assert replay.counters().descriptors == len(many) - len(queued)


def test_descriptors_follow_each_other() -> None:
    cut = Cut(lost(200, 1, False))
    left = cut.without(range(3, len(cut.pieces), 3)).events
    low = [e.address for e in left if isinstance(e, Store) and e.address % 16 == 0]
    assert all(b - a == 16 for a, b in pairwise(low))


def test_a_tail_that_hands_a_ring_over_again_and_again_is_not_followed() -> None:
    largest = 7
    size = 4096 << largest
    events: list[Event] = [
        RegWrite(vtd.IQA.offset, 8, QUEUE | largest), RegWrite(vtd.GCMD.offset, 4, QIE)
    ]  # fmt: skip
    events += [RegWrite(vtd.IQT.offset, 8, size - 16 * (1 + n % 2)) for n in range(200)]
    cut = Cut(trace(events), explicit=True)
    assert cut.ring.queued == []
    assert cut.trace.events == tuple(events)


slots = st.integers(0, 12).map(lambda n: 8 * n)
about_a_queue = st.one_of(
    st.sampled_from([
        RegWrite(vtd.IQA.offset, 8, QUEUE), RegWrite(vtd.IQA.offset, 8, QUEUE | 1 << 11),
        RegWrite(vtd.IQA.offset, 8, (1 << 64) - 4096), RegWrite(vtd.GCMD.offset, 4, QIE),
        RegWrite(vtd.GCMD.offset, 4, 0), Reset(), Descriptor(FLUSH), StatusWrite(0x5000, 1),
        Snapshot(QUEUE, Role.QUEUE, 0, bytes(range(256)) * 16),
    ]),
    st.builds(RegWrite, st.just(vtd.IQT.offset), st.just(8), slots),
    st.builds(RegRead, st.just(vtd.IQH.offset), st.just(8), slots),
    st.builds(Store, slots.map(QUEUE.__add__), st.just(8), st.sampled_from([0, 0x11, 0x25])),
)  # fmt: skip
any_event = about_a_queue | strategies.events


@given(events=st.lists(any_event, max_size=30), data=st.data())
def test_any_trace_can_be_cut(events: list[Event], data: st.DataObject) -> None:
    cut = Cut(trace(events), explicit=True)
    assert sorted(n for piece in cut.pieces for n in piece.events) == list(
        range(len(cut.ring.events))
    )
    left_out = data.draw(st.sets(st.sampled_from(range(len(cut.pieces))))) if cut.pieces else set()
    left = cut.without(left_out)
    if checked(left) is not None:
        assert len(left.events) <= len(cut.ring.events)
