"""Which entries may hold other A and D bits than the model's, by what accesses and software did."""

from __future__ import annotations

import pytest

from decoders.events import Access, AccessKind, Fault, Outcome, Role, Store, Translation
from decoders.vtd.faults import Reason
from harness.differential.table_use import ACCESSED, DIRTY, TableUse
from harness.model.translate import Candidate
from harness.model.walk import Step

TABLE, LEAF = 0x1000, 0x2008
PAGE = Translation(0x8000, 0xFFF)
OTHER = Translation(0x9000, 0xFFF)


def way(outcome: Outcome, *places: int, value: int = 1) -> Candidate:
    return Candidate(outcome, tuple(Step(Role.FIRST_STAGE, 1, place, value) for place in places))


def used(*ways: Candidate, kind: AccessKind = AccessKind.WRITE) -> TableUse:
    use = TableUse()
    use.ways(Access(0x20, None, 0x1000, kind, None), ways)
    return use


def test_one_way_leaves_no_doubt() -> None:
    use = used(way(PAGE, TABLE, LEAF), way(PAGE))
    assert not use.doubtful and not use.faulted and not use.unknown


def test_each_entry_is_doubtful_where_outcomes_differ() -> None:
    use = used(way(PAGE, TABLE, LEAF), way(OTHER, TABLE))
    assert use.doubtful == {TABLE, LEAF}


def test_entries_that_one_of_the_ways_lacks_are_doubtful() -> None:
    use = used(way(PAGE, TABLE, LEAF), way(PAGE, TABLE + 8, LEAF), way(PAGE))
    assert use.doubtful == {TABLE, TABLE + 8}


def test_a_walk_that_faults_may_have_set_the_bits_before() -> None:
    use = used(way(Fault(Reason.NO_WRITE), TABLE, LEAF))
    assert use.faulted == {TABLE, LEAF}
    assert not use.blocked


def test_the_leaf_before_the_interrupt_range_is_remembered() -> None:
    assert used(way(Fault(Reason.SM_INTERRUPT_RANGE), TABLE, LEAF)).blocked == {LEAF}


@pytest.mark.parametrize(("kind", "kept"), [(AccessKind.READ, {LEAF}), (AccessKind.WRITE, set())])
def test_a_read_may_have_cached_its_leaf(kind: AccessKind, kept: set[int]) -> None:
    assert used(way(PAGE, TABLE, LEAF), kind=kind).read == kept


@pytest.mark.parametrize(
    ("flags", "half"), [(0, set()), (ACCESSED, {LEAF}), (DIRTY, {LEAF}), (ACCESSED | DIRTY, set())]
)
def test_a_write_to_a_leaf_with_one_flag_is_remembered(flags: int, half: set[int]) -> None:
    assert used(way(PAGE, TABLE, LEAF, value=1 | flags)).half == half
    assert not used(way(PAGE, TABLE, LEAF, value=1 | flags), kind=AccessKind.READ).half


def test_a_store_before_the_first_use_changes_nothing() -> None:
    use = TableUse()
    use.stored(Store(LEAF, 8, 1))
    use.ways(Access(0x20, None, 0x1000, AccessKind.READ, None), [way(PAGE, TABLE, LEAF)])
    assert not use.rewritten
    use.stored(Store(LEAF + 4, 4, 1))
    assert use.rewritten == {LEAF}


def test_a_pasid_entry_may_have_been_used_where_no_record_can_be_seen() -> None:
    use = TableUse()
    use.unseen(Fault(Reason.NO_READ))
    assert not use.unknown
    use.unseen(Fault(Reason.PASID_NOT_PRESENT))
    assert use.unknown


@pytest.mark.parametrize("outcome", [PAGE, Fault(Reason.NO_READ)])
def test_nothing_is_known_once_an_access_did_what_no_way_does(outcome: Outcome) -> None:
    use = TableUse()
    use.led(0x10)  # of a register
    assert not use.unknown
    use.led(outcome)
    assert use.unknown
