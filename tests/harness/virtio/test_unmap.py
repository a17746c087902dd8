"""UNMAP removes whole mappings or none: the specification's examples, and what a refusal leaves."""

from __future__ import annotations

import pytest

from decoders.events import Fault
from tests.harness.virtio.bench import NIC, ONE_BYTE, Bench, at
from tests.harness.virtio.conftest import MakeBench
from tests.writers.virtio_iommu import INVAL, OK, RANGE, attach, map_, unmap

Range = tuple[int, int]

EXAMPLES: dict[str, tuple[list[Range], Range, int, list[Range]]] = {
    "(1) nothing is mapped": ([], (0, 4), OK, []),
    "(2) the whole mapping": ([(0, 9)], (0, 9), OK, []),
    "(3) two mappings": ([(0, 4), (5, 9)], (0, 9), OK, []),
    "(4) a part of one": ([(0, 9)], (0, 4), RANGE, [(0, 9)]),
    "(5) the first of two": ([(0, 4), (5, 9)], (0, 4), OK, [(5, 9)]),
    "(6) more than is mapped": ([(0, 4)], (0, 9), OK, []),
    "(7) a hole between two": ([(0, 4), (10, 14)], (0, 14), OK, []),
    "the end of one": ([(0, 9)], (5, 9), RANGE, [(0, 9)]),
    "the middle of one": ([(0, 9)], (3, 5), RANGE, [(0, 9)]),
    "one byte of one": ([(0, 9)], (9, 9), RANGE, [(0, 9)]),
    "one and a part of the next": ([(0, 4), (5, 9)], (0, 6), RANGE, [(0, 4), (5, 9)]),
    "a part and the next": ([(0, 4), (5, 9)], (3, 9), RANGE, [(0, 4), (5, 9)]),
    "beside one": ([(0, 4)], (5, 9), OK, [(0, 4)]),
}
"""What is mapped, what is unmapped, the status, and what is left; (n) is the number of virtio 1.4,
5.13.6.6.
"""


@pytest.mark.parametrize("dialect", ["spec", "qemu"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(make_bench: MakeBench, dialect: str, example: str) -> None:
    mapped, (start, end), status, left = EXAMPLES[example]
    bench = make_bench(dialect, page_size_mask=ONE_BYTE).do(attach(1, NIC))
    bench.do(*(map_(1, first, last, 0x100 + first) for first, last in mapped))
    assert bench.ask(unmap(1, start, end))[0] == status
    assert bench.mapped(1) == left
    for address in range(16):
        inside = any(first <= address <= last for first, last in left)
        # A lookup of QEMU's finds a mapping for the byte before it, too.
        if dialect == "spec" or (address + 1, 4) not in [(first, 4) for first, _ in left]:
            assert bench.lands(NIC, address) == (0x100 + address if inside else None), address


@pytest.mark.parametrize("other", [INVAL, OK])
def test_another_status_than_range_is_a_finding(bench: Bench, other: int) -> None:
    bench.do(attach(1, NIC), map_(1, 0, 0x2FFF, 0))
    assert len(bench.give(unmap(1, 0, 0xFFF), other)) == 1
    # A unit that says OK is believed to have removed what the range touches.
    assert bench.mapped(1) == ([] if other == OK else [(0, 0x2FFF)])


# --- mappings that may be gone --------------------------------------------------------------------


@pytest.fixture
def doubtful(make_bench: MakeBench) -> Bench:
    """Refuse to unmap 0x1000-0x2fff, as only a part of the second mapping is in it."""
    bench = make_bench("qemu").do(attach(1, NIC))
    bench.do(map_(1, 0x1000, 0x1FFF, 0x81000), map_(1, 0x2000, 0x3FFF, 0x82000))
    assert bench.give(unmap(1, 0x1000, 0x2FFF), RANGE) == []
    return bench


def test_a_mapping_that_may_be_gone_translates_or_not(doubtful: Bench) -> None:
    outcomes = doubtful.access(NIC, 0x1000)
    assert outcomes == (at(0x81000, 0xFFF), Fault(2))


def test_a_mapping_that_is_split_is_still_there(doubtful: Bench) -> None:
    assert doubtful.access(NIC, 0x2800) == (at(0x82000, 0x1FFF),)


def test_what_was_used_is_there(doubtful: Bench) -> None:
    assert doubtful.judged(NIC, 0x1000, at(0x81000)) == []
    assert doubtful.access(NIC, 0x1000) == (at(0x81000, 0xFFF),)
    assert len(doubtful.judged(NIC, 0x1000, Fault(2))) == 1


def test_what_could_not_be_used_is_gone(doubtful: Bench) -> None:
    assert doubtful.judged(NIC, 0x1000, Fault(2)) == []
    assert doubtful.access(NIC, 0x1000) == (Fault(2),)
    assert doubtful.mapped(1) == [(0x2000, 0x3FFF)]


def test_what_may_be_gone_may_be_mapped_again(doubtful: Bench) -> None:
    assert doubtful.give(map_(1, 0x1000, 0x1FFF, 0x91000), OK) == []
    assert doubtful.access(NIC, 0x1000) == (at(0x91000, 0xFFF),)


def test_a_unit_of_the_specification_removes_nothing(bench: Bench) -> None:
    bench.do(attach(1, NIC), map_(1, 0x1000, 0x1FFF, 0x81000), map_(1, 0x2000, 0x3FFF, 0))
    assert bench.give(unmap(1, 0x1000, 0x2FFF), RANGE) == []
    assert bench.access(NIC, 0x1000) == (at(0x81000, 0xFFF),)


def test_a_refusal_for_reserved_bytes_may_remove_all_the_same(bench: Bench) -> None:
    bench.do(attach(1, NIC), map_(1, 0x1000, 0x1FFF, 0x81000))
    assert bench.give(unmap(1, 0x1000, 0x1FFF, reserved=1), INVAL) == []
    assert Fault(2) in bench.access(NIC, 0x1000)


def test_a_range_that_ends_before_its_start_meets_what_holds_both(make_bench: MakeBench) -> None:
    bench = make_bench("qemu").do(attach(1, NIC), map_(1, 0x1000, 0x3FFF, 0))
    assert bench.ask(unmap(1, 0x3000, 0x1FFF)) == [RANGE]
    assert bench.ask(map_(1, 0x3000, 0x1FFF, 0)) == [INVAL]
    assert bench.ask(unmap(1, 0x4000, 0x1FFF)) == [OK]
    assert bench.mapped(1) == [(0x1000, 0x3FFF)]
