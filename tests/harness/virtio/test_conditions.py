"""For every condition: the statuses that are permitted, and what any other one is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from decoders.virtio_iommu.constants import AttachFlag, Feature, Status
from harness.findings import FindingKind
from harness.model.virtio.config import DEFAULT_FEATURES
from harness.model.virtio.dialect import dialect_named
from harness.model.virtio.rules import UNWRITTEN, Condition
from tests.harness.virtio.bench import (
    ABSENT,
    DISK,
    NIC,
    UNHEARD,
    WHOLE_PROBE,
    Bench,
    Engine,
    config,
)
from tests.harness.virtio.conftest import MakeBench
from tests.writers.virtio_iommu import (
    DEVERR,
    INVAL,
    MMIO,
    NOENT,
    OK,
    RANGE,
    TAIL,
    TOP,
    UNSUPP,
    attach,
    detach,
    map_,
    probe,
    tail,
    unmap,
)

BYPASS = int(AttachFlag.BYPASS)
PAGE = 0x1000
IN, OTHER_IN, BYPASSING = attach(1, NIC), attach(1, DISK), attach(1, NIC, BYPASS)
MAPPED = map_(1, PAGE, 2 * PAGE - 1, 0x8000)
TWO_MORE = map_(1, 2 * PAGE, 4 * PAGE - 1, 0x9000)


REFUSALS = range(1, 9)


@dataclass(frozen=True)
class Case:
    """A request that a condition holds for, and the statuses the two dialects permit.

    before are requests and their statuses; trouble of the device's own is permitted besides where
    a request is whole.
    """

    request: bytes
    spec: tuple[int, ...]
    qemu: tuple[int, ...]
    before: tuple[bytes, ...] = ()
    refused: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    room: int = TAIL
    whole: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    regions: int = 0


MAY_BE_GONE = {
    "spec": (unmap(1, PAGE, 2 * PAGE - 1, reserved=1), INVAL),
    "qemu": (unmap(1, PAGE, 3 * PAGE - 1), RANGE),
}
"""Refused requests that may have removed MAPPED all the same."""

CASES = {
    Condition.NO_HEAD_OR_TAIL: Case(b"\1\0\0", (UNWRITTEN,), (), whole=False),
    Condition.UNKNOWN_TYPE: Case(b"\6" + IN[1:], (UNWRITTEN,), (UNSUPP,), whole=False),
    Condition.SHORT_BODY: Case(IN[:-1], (UNWRITTEN,), (INVAL,), whole=False),
    Condition.ATTACH_RESERVED: Case(attach(1, NIC, reserved=1 << 24), (INVAL,), (OK,)),
    Condition.ATTACH_FLAGS: Case(attach(1, NIC, 1 << 31), (INVAL,), (INVAL,)),
    Condition.ATTACH_ENDPOINT: Case(attach(1, ABSENT), (NOENT,), (NOENT,)),
    Condition.ATTACH_DOMAIN_RANGE: Case(
        attach(8, NIC), (OK, RANGE), (OK,), options={"domain_range": (1, 7)}
    ),
    Condition.ATTACH_MOVED: Case(attach(2, NIC), (OK, UNSUPP), (OK,), (IN,)),
    Condition.ATTACH_BYPASS: Case(BYPASSING, (INVAL, UNSUPP), (INVAL,), (OTHER_IN,)),
    Condition.ATTACH_SHARED: Case(IN, (OK, UNSUPP), (OK,), (OTHER_IN,)),
    Condition.DETACH_ENDPOINT: Case(detach(1, ABSENT), (NOENT, INVAL), (NOENT,)),
    Condition.DETACH_NOT_ATTACHED: Case(detach(2, NIC), (OK, INVAL), (INVAL,), (IN,)),
    Condition.MAP_FLAGS: Case(map_(1, 0, PAGE - 1, 0, 1 << 3), (INVAL,), (INVAL,), (IN,)),
    Condition.MAP_DOMAIN: Case(MAPPED, (NOENT,), (NOENT,)),
    Condition.MAP_BYPASS: Case(MAPPED, (INVAL,), (INVAL,), (BYPASSING,)),
    Condition.MAP_ORDER: Case(map_(1, 2 * PAGE, PAGE - 1, 0), (INVAL,), (OK,), (IN,)),
    Condition.MAP_OVERLAP: Case(map_(1, 0, PAGE * 8 - 1, 0), (INVAL,), (INVAL,), (IN, MAPPED)),
    Condition.MAP_MAY_OVERLAP: Case(
        MAPPED, (OK, INVAL), (INVAL, OK), (IN, MAPPED, TWO_MORE), MAY_BE_GONE
    ),
    Condition.MAP_ALIGNMENT: Case(map_(1, 0, PAGE - 1, 0x800), (RANGE,), (OK,), (IN,)),
    Condition.MAP_INPUT_RANGE: Case(
        MAPPED, (RANGE, *REFUSALS), (OK,), (IN,), options={"input_range": (0, PAGE)}
    ),
    Condition.MAP_RESERVED_REGION: Case(MAPPED, (INVAL, *REFUSALS), (OK,), (IN,), regions=1),
    Condition.UNMAP_RESERVED: Case(
        unmap(1, PAGE, 2 * PAGE - 1, reserved=1), (OK, INVAL), (OK,), (IN, MAPPED)
    ),
    Condition.UNMAP_DOMAIN: Case(unmap(1, 0, PAGE), (NOENT,), (NOENT,)),
    Condition.UNMAP_BYPASS: Case(unmap(1, 0, PAGE), (INVAL,), (INVAL,), (BYPASSING,)),
    Condition.UNMAP_ORDER: Case(unmap(1, PAGE, 0), (OK, INVAL), (OK,), (IN,)),
    Condition.UNMAP_SPLIT: Case(unmap(1, 0, PAGE), (RANGE,), (RANGE,), (IN, MAPPED)),
    Condition.UNMAP_MAY_SPLIT: Case(
        unmap(1, 0, PAGE), (OK, RANGE), (RANGE, OK), (IN, MAPPED, TWO_MORE), MAY_BE_GONE
    ),
    Condition.PROBE_ROOM: Case(probe(NIC), (INVAL,), (DEVERR,), room=WHOLE_PROBE - 1),
    Condition.PROBE_NOT_OFFERED: Case(
        probe(NIC),
        (UNWRITTEN,),
        (UNWRITTEN,),
        room=WHOLE_PROBE,
        options={"features": DEFAULT_FEATURES & ~Feature.PROBE},
    ),
    Condition.PROBE_ENDPOINT: Case(probe(ABSENT), (NOENT,), (NOENT,), room=WHOLE_PROBE),
    Condition.PROBE_SPACE: Case(probe(NIC), (INVAL,), (INVAL,), room=WHOLE_PROBE, regions=22),
}

dialects = pytest.mark.parametrize("dialect", ["spec", "qemu"])
each_condition = pytest.mark.parametrize("condition", Condition, ids=lambda one: one.name)


def arranged(bench: Bench, dialect: str, case: Case) -> Bench:
    regions = ((0, PAGE + 0x10, PAGE + 0x1F), *((0, n << 40, n << 40) for n in range(1, 30)))
    bench.declare(NIC, regions=regions[: case.regions])
    bench.do(*case.before)
    if case.refused:
        assert bench.give(*case.refused[dialect]) == []
    return bench


def permitted(case: Case, dialect: str) -> list[int]:
    named = case.spec if dialect == "spec" else case.qemu
    trouble = sorted(dialect_named(dialect).trouble) if case.whole else []
    return list(dict.fromkeys([*named, *trouble]))


def shaped(case: Case, dialect: str, status: int) -> bytes:
    """Return a whole answer with a status; no endpoint here has a region that PROBE could tell."""
    if status == UNWRITTEN:
        return b""
    size = TAIL
    if case.request[0] == probe(NIC)[0]:
        size = min(case.room, WHOLE_PROBE)
        if size < WHOLE_PROBE and dialect == "qemu":
            size = TAIL
    return tail(status).rjust(size, b"\0")


def test_every_condition_has_a_case() -> None:
    assert set(CASES) == set(Condition)


@dialects
@each_condition
def test_statuses(make_bench: MakeBench, dialect: str, condition: Condition) -> None:
    case = CASES[condition]
    bench = arranged(make_bench(dialect, **case.options), dialect, case)
    assert bench.ask(case.request, case.room) == permitted(case, dialect)
    assert bench.unit.findings() == []


@dialects
@each_condition
def test_any_other_status_is_a_finding(
    make_bench: MakeBench, dialect: str, condition: Condition
) -> None:
    case = CASES[condition]
    for status in (*map(int, Status), UNWRITTEN):
        bench = arranged(make_bench(dialect, **case.options), dialect, case)
        answer = shaped(case, dialect, status)
        bench.ask(case.request, case.room, answer)
        found = [(one.kind, one.subject, one.observed) for one in bench.unit.findings()]
        wrong = [(FindingKind.DIVERGENCE, "request", answer)]
        assert found == ([] if status in permitted(case, dialect) else wrong), status


@pytest.mark.parametrize(
    "condition", [one for one in Condition if CASES[one].whole], ids=lambda one: one.name
)
def test_the_case_is_about_its_condition(engine: Engine, condition: Condition) -> None:
    """Where nobody looks for a condition, something else is permitted."""
    case = CASES[condition]
    usual = config("spec", **case.options)
    careless = replace(usual.dialect, ignored=frozenset({condition}))
    bench = Bench(engine(replace(usual, dialect=careless))).declare(NIC, DISK)
    arranged(bench, "spec", case)
    assert bench.ask(case.request, case.room) != permitted(case, "spec")


# --- statuses of a request that nothing is wrong with ---------------------------------------------


@pytest.mark.parametrize("status", Status, ids=lambda one: one.name)
def test_a_sound_request_may_fail_of_the_devices_own_trouble(bench: Bench, status: Status) -> None:
    bench.do(IN)
    found = bench.give(MAPPED, status)
    own = {Status.IOERR, Status.DEVERR, Status.NOMEM}
    assert bool(found) == (status not in {Status.OK, *own})
    # Whatever a unit says, it is believed.
    assert bench.mapped(1) == ([(PAGE, 2 * PAGE - 1)] if status == Status.OK else [])


@pytest.mark.parametrize("status", Status, ids=lambda one: one.name)
def test_qemu_has_no_trouble(make_bench: MakeBench, status: Status) -> None:
    bench = make_bench("qemu").do(IN)
    assert bool(bench.give(MAPPED, status)) == (status != Status.OK)


def test_an_unknown_status_is_a_finding(bench: Bench) -> None:
    bench.do(IN)
    assert [one.observed for one in bench.give(MAPPED, 9)] == [tail(9)]
    assert bench.mapped(1) == []


@pytest.mark.parametrize("answer", [b"", b"\0\0\0", b"\0\0\0\1", b"\0" * 5])
def test_an_answer_of_another_form_is_a_finding(bench: Bench, answer: bytes) -> None:
    bench.ask(IN, 8, answer)
    (finding,) = bench.unit.findings()
    assert finding.permitted[0] == tail(OK)
    # The status decides what happens, four bytes before the end.
    assert bool(bench.unit.domains()) == (len(answer) >= TAIL)


# --- details -------------------------------------------------------------------------------------


def test_reserved_bytes_of_head_detach_and_probe_are_ignored(bench: Bench) -> None:
    bench.do(attach(1, NIC)[:1] + b"\xff\xff\xff" + attach(1, NIC)[4:])
    assert bench.ask(probe(NIC, reserved=1), WHOLE_PROBE)[0] == OK
    bench.do(detach(1, NIC, reserved=1))
    assert bench.unit.domains() == {}


def test_more_than_a_request_does_no_harm(bench: Bench) -> None:
    bench.do(IN + b"\xff")
    assert bench.unit.domains() == {1: (False, (NIC,), ())}


@pytest.mark.parametrize(("dialect", "answers"), [("spec", [UNWRITTEN]), ("qemu", [])])
@pytest.mark.parametrize("room", [0, 3])
def test_no_room_for_a_tail(
    make_bench: MakeBench, dialect: str, answers: list[int], room: int
) -> None:
    bench = make_bench(dialect)
    assert bench.ask(IN, room) == answers
    assert bench.unit.domains() == {}


@pytest.mark.parametrize(("dialect", "first"), [("spec", INVAL), ("qemu", OK)])
@pytest.mark.parametrize("request_", [BYPASSING, map_(1, 0, PAGE - 1, 0, MMIO)])
def test_a_flag_needs_its_feature(
    make_bench: MakeBench, dialect: str, first: int, request_: bytes
) -> None:
    bench = make_bench(dialect)
    without = DEFAULT_FEATURES & ~(Feature.MMIO | Feature.BYPASS_CONFIG)
    bench.unit.features(DEFAULT_FEATURES, without)
    if request_ is not BYPASSING:
        bench.do(IN)
    assert bench.ask(request_)[0] == first


def test_where_nobody_saw_the_negotiation_the_offer_counts(bench: Bench) -> None:
    bench.unit.features(DEFAULT_FEATURES, 0)
    bench.do(BYPASSING)


def test_several_conditions_permit_any_of_their_statuses(make_bench: MakeBench) -> None:
    wrong = map_(7, 1, 1, 1, 1 << 7)
    assert make_bench("spec").ask(wrong)[:3] == [INVAL, NOENT, RANGE]
    assert make_bench("qemu").ask(wrong) == [INVAL]


@dialects
def test_an_endpoint_of_which_nobody_said_anything(make_bench: MakeBench, dialect: str) -> None:
    statuses = make_bench(dialect).ask(attach(1, UNHEARD))
    assert statuses[0] == OK
    assert NOENT in statuses
    bench = make_bench(dialect)
    assert bench.give(attach(1, UNHEARD), NOENT) == []
    assert bench.unit.domains() == {}


@pytest.mark.parametrize("mask", [1, 0, 1 << 63, 0x1000, 0x8000_0000_0001_0000])
def test_the_lowest_bit_of_the_page_size_mask_is_the_granule(
    make_bench: MakeBench, mask: int
) -> None:
    granule = mask & -mask or 1
    bench = make_bench(page_size_mask=mask).do(IN)
    if granule > 1:
        half = granule // 2
        for start, end, to in ((half, granule - 1, 0), (0, half - 1, 0), (0, granule - 1, half)):
            assert bench.ask(map_(1, start, end, to))[0] == RANGE
    bench.do(map_(1, granule, 2 * granule - 1, 0))
    assert bench.mapped(1) == [(granule, 2 * granule - 1)]


def test_the_end_of_the_address_space_is_aligned(bench: Bench) -> None:
    bench.do(IN, map_(1, TOP - 0xFFF, TOP, 0), map_(1, 0, TOP - 0x1000, 0))
    assert bench.mapped(1) == [(0, TOP - 0x1000), (TOP - 0xFFF, TOP)]
    bench.do(unmap(1, 0, TOP))
    assert bench.mapped(1) == []
