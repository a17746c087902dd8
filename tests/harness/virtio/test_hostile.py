"""What a hostile trace can ask for ends in an error or in nothing, soon and in little memory."""

from __future__ import annotations

import time

import pytest

from harness.findings import FindingKind
from harness.model.virtio.config import MappingBudgetError
from harness.model.virtio.rules import UNWRITTEN
from harness.model.virtio.unit import SEARCHES
from harness.trace.checks import ANSWER_LIMIT
from tests.harness.virtio.bench import NIC, Bench, at
from tests.harness.virtio.conftest import MakeBench
from tests.writers.virtio_iommu import (
    DEVERR,
    INVAL,
    OK,
    RANGE,
    TAIL,
    TOP,
    attach,
    detach,
    map_,
    probe,
    resv_mem,
    tail,
    unmap,
)

BUDGET = "--mapping-budget"
dialects = pytest.mark.parametrize("dialect", ["spec", "qemu"])


HUGE = pytest.mark.parametrize("size", [0xFFFD, 0xFFFF_FFFB, 0xFFFF_FFFF])


@dialects
@HUGE
def test_an_answer_that_no_trace_holds_is_not_judged(
    make_bench: MakeBench, dialect: str, size: int
) -> None:
    bench = make_bench(dialect, probe_size=size)
    for answer in (None, tail(OK), b""):
        assert bench.ask(probe(NIC), size + TAIL, answer) == []
    assert bench.unit.findings() == []


@dialects
@HUGE
@pytest.mark.parametrize("room", [TAIL, 516, ANSWER_LIMIT])
def test_what_an_absurd_probe_size_does_not_change_is_judged(
    make_bench: MakeBench, dialect: str, size: int, room: int
) -> None:
    bench = make_bench(dialect, probe_size=size)
    expected = bench.unit.request(probe(NIC), room)[0]
    assert expected == (tail(INVAL).rjust(room, b"\0") if dialect == "spec" else tail(DEVERR))
    bench.ask(probe(NIC), room, expected)
    assert bench.unit.findings() == []
    bench.ask(probe(NIC), room, tail(0x63))
    assert len(bench.unit.findings()) == 1
    # It breaks QEMU's unit.
    assert bench.ask(b"\5\0\0", room) == ([UNWRITTEN] if dialect == "spec" else [])


def test_the_largest_probe_size_that_is_answered(make_bench: MakeBench) -> None:
    bench = make_bench(probe_size=0xFFFC)
    assert bench.unit.request(probe(NIC), 0x10000)[0] == bytes(0x10000)


@dialects
def test_absurd_room_for_a_short_answer(make_bench: MakeBench, dialect: str) -> None:
    assert make_bench(dialect).unit.request(attach(1, NIC), 0xFFFF_FFFF)[0] == tail(OK)


@dialects
def test_addresses_up_to_the_last_one(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect, page_size_mask=1).do(attach(1, NIC))
    bench.do(map_(1, TOP, TOP, TOP), map_(1, 0, TOP - 1, 1))
    assert bench.lands(NIC, TOP - 1) == TOP
    assert bench.lands(NIC, 0) == 1
    assert bench.lands(NIC, TOP) == (TOP if dialect == "spec" else None)
    assert bench.ask(map_(1, 0, TOP, 0))[0] == INVAL
    assert bench.ask(unmap(1, 1, TOP))[0] == RANGE
    bench.do(unmap(1, 0, TOP), map_(1, 0, TOP, TOP))
    assert bench.lands(NIC, 5) == 4


@pytest.mark.parametrize("endpoint", [0, 0xFFFF_FFFF])
@pytest.mark.parametrize("domain", [0, 0xFFFF_FFFF])
def test_numbers_up_to_the_last_one(bench: Bench, endpoint: int, domain: int) -> None:
    bench.declare(endpoint).do(attach(domain, endpoint), map_(domain, 0, 0xFFF, 0x5000))
    assert bench.judged(endpoint, 0x10, at(0x5000, 0xFFF)) == []
    bench.do(detach(domain, endpoint))
    assert bench.unit.domains() == {}


@dialects
@pytest.mark.parametrize("data", [b"", b"\1", b"\3\0\0\0", b"\xff" * 4096, bytes(4096)])
@pytest.mark.parametrize("answer", [b"", b"\0", tail(OK), tail(INVAL), tail(RANGE), bytes(600)])
def test_requests_of_any_length(
    make_bench: MakeBench, dialect: str, data: bytes, answer: bytes
) -> None:
    bench = make_bench(dialect)
    bench.ask(data, 600, answer)
    assert len(bench.unit.findings()) <= 1
    assert bench.unit.domains() == {}


# --- the budget -----------------------------------------------------------------------------------


@dialects
def test_mappings_end_at_the_budget(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect, mapping_budget=20).do(attach(1, NIC))
    pages = [map_(1, page << 12, page << 12 | 0xFFF, 0) for page in range(20)]
    bench.do(*pages[:5])
    with pytest.raises(MappingBudgetError, match=BUDGET):
        bench.do(*pages[5:])


@dialects
def test_domains_end_at_the_budget(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect, mapping_budget=20)
    with pytest.raises(MappingBudgetError, match=BUDGET):
        for number in range(20):
            bench.give(map_(number, 0, 0xFFF, 0), OK)


@dialects
def test_endpoints_end_at_the_budget(make_bench: MakeBench, dialect: str) -> None:
    with pytest.raises(MappingBudgetError, match=BUDGET):
        make_bench(dialect, mapping_budget=20).do(*(attach(1, n << 8) for n in range(1, 20)))
    with pytest.raises(MappingBudgetError, match=BUDGET):
        make_bench(dialect, mapping_budget=20).declare(*range(20))


@dialects
def test_what_has_ended_costs_nothing(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect, mapping_budget=20)
    for _ in range(100):
        bench.do(attach(1, NIC), map_(1, 0, 0xFFF, 0), unmap(1, 0, 0xFFF))
        bench.do(map_(1, 0, 0xFFF, 0), attach(2, NIC), detach(2, NIC))
        bench.unit.reset()
    bench.do(attach(1, NIC))


def test_reserved_regions_end_at_their_limit(bench: Bench) -> None:
    regions = tuple((0, n, n) for n in range(64))
    with pytest.raises(MappingBudgetError, match="more than 1024 reserved regions"):
        bench.declare(*range(0x100, 0x200), regions=regions)
    # To say the same of one endpoint again costs nothing.
    bench.declare(*[0x100] * 100, regions=regions)
    told = resv_mem(0, 0, 1).ljust(512, b"\0") + tail(OK)
    with pytest.raises(MappingBudgetError, match="more than 1024 reserved regions"):
        bench.ask(probe(0xF000), 516, told)


# --- time -----------------------------------------------------------------------------------------


def test_refusals_over_many_mappings_take_no_time(make_bench: MakeBench) -> None:
    """Each refused request here touches all of 5,000 mappings."""
    bench = make_bench("qemu").do(attach(1, NIC))
    for page in range(5000):
        bench.unit.request(map_(1, page << 12, page << 12 | 0xFFF, 0), TAIL)
    bench.unit.request(map_(1, TOP - 0x1FFF, TOP, 0), TAIL)
    before = time.process_time()
    for _ in range(1000):
        assert bench.give(unmap(1, 0, TOP - 0x1000), RANGE) == []
        assert bench.give(map_(1, 0, TOP, 0), INVAL) == []
    assert time.process_time() - before < 5
    assert len(bench.mapped(1)) == 5001


def test_wrong_accesses_after_many_mappings_have_ended_take_no_time(make_bench: MakeBench) -> None:
    """4,096 ended mappings hold the address of each access, and none explains it."""
    bench = make_bench().do(attach(1, NIC))
    for page in range(4096):
        bench.do(map_(1, 0, TOP, page << 12), unmap(1, 0, TOP))
    stale, wrong = at(0x5000), at(0xDEAD_0000_0000)
    kinds = [bench.judged(NIC, 0x5000, stale)[0].kind]
    before = time.process_time()
    for _ in range(4 * SEARCHES):
        kinds.append(bench.judged(NIC, 0x5000, wrong)[0].kind)
    assert time.process_time() - before < 8
    kinds.append(bench.judged(NIC, 0x5000, stale)[0].kind)
    # What is found last is not looked for: no replay keeps it.
    assert kinds[0] is FindingKind.STALE_AFTER_INVALIDATION
    assert {*kinds[1:]} == {FindingKind.DIVERGENCE}
