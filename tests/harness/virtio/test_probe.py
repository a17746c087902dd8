"""PROBE: what is known of an endpoint comes back, and what comes back is known from then on."""

from __future__ import annotations

import pytest

from decoders.events import Fault
from tests.harness.virtio.bench import DISK, MOVED, NIC, PROBE_SIZE, UNHEARD, WHOLE_PROBE, Bench
from tests.harness.virtio.conftest import MakeBench
from tests.writers.virtio_iommu import (
    DEVERR,
    INVAL,
    NOENT,
    OK,
    TAIL,
    attach,
    map_,
    probe,
    resv_mem,
    tail,
)

MSI = (1, 0xFEE0_0000, 0xFEEF_FFFF)
LOW = (0, 0x8000, 0x8FFF)


def payload(*properties: bytes, size: int = PROBE_SIZE) -> bytes:
    return b"".join(properties).ljust(size, b"\0")


@pytest.mark.parametrize("dialect", ["spec", "qemu"])
def test_declared_regions_are_told(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect).declare(NIC, regions=(LOW, MSI))
    expected = payload(resv_mem(*LOW), resv_mem(*MSI)) + tail(OK)
    answers = bench.unit.request(probe(NIC), WHOLE_PROBE)
    assert answers[0] == expected
    assert all(one[:PROBE_SIZE] == bytes(PROBE_SIZE) for one in answers[1:])
    assert bench.unit.request(probe(DISK), WHOLE_PROBE)[0] == payload() + tail(OK)
    # More room changes nothing.
    assert bench.unit.request(probe(NIC), WHOLE_PROBE + 100)[0] == expected


@pytest.mark.parametrize(
    "answer",
    [
        payload() + tail(OK),
        payload(resv_mem(*MSI), resv_mem(*LOW)) + tail(OK),
        payload(resv_mem(0, 0x8000, 0x8FFE)) + tail(OK),
        payload(resv_mem(*LOW)) + tail(INVAL),
        payload(resv_mem(*LOW))[:-1] + tail(OK),
        tail(OK),
    ],
)
def test_other_properties_than_declared_are_a_finding(bench: Bench, answer: bytes) -> None:
    bench.declare(NIC, regions=(LOW,))
    bench.ask(probe(NIC), WHOLE_PROBE, answer)
    (finding,) = bench.unit.findings()
    assert (finding.subject, finding.observed) == ("request", answer)


@pytest.mark.parametrize("dialect", ["spec", "qemu"])
def test_what_is_told_of_an_unheard_endpoint_is_learned(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect).do(attach(1, UNHEARD))
    told = payload(b"\2\0\4\0what", resv_mem(*LOW)) + tail(OK)
    bench.ask(probe(UNHEARD), WHOLE_PROBE, told)
    assert bench.unit.findings() == []
    assert bench.access(UNHEARD, 0x8800) == (Fault(2),)
    if dialect == "spec":
        assert bench.ask(map_(1, 0x8000, 0x8FFF, 0))[0] == INVAL
    # Now it is known, and the unknown property was passed over.
    assert bench.unit.request(probe(UNHEARD), WHOLE_PROBE)[0] == payload(resv_mem(*LOW)) + tail(OK)


@pytest.mark.parametrize(
    "properties",
    [
        payload(b"\1\0\x13\0", size=PROBE_SIZE),
        payload(b"\2\0\xff\xff"),
        b"\2\0" + (PROBE_SIZE - 7).to_bytes(2, "little") + bytes(PROBE_SIZE - 7) + b"\1\0\0",
    ],
)
def test_damaged_properties_of_an_unheard_endpoint_are_a_finding(
    bench: Bench, properties: bytes
) -> None:
    bench.ask(probe(UNHEARD), WHOLE_PROBE, properties + tail(OK))
    assert len(bench.unit.findings()) == 1


def test_regions_before_damage_are_learned(bench: Bench) -> None:
    bench.do(attach(1, UNHEARD))
    bench.ask(probe(UNHEARD), WHOLE_PROBE, payload(resv_mem(*LOW), b"\1\0\1\0") + tail(OK))
    assert len(bench.unit.findings()) == 1
    assert bench.access(UNHEARD, 0x8800) == (Fault(2),)


def test_a_region_that_ends_before_its_start_is_told_again(bench: Bench) -> None:
    told = payload(resv_mem(0, 9, 3)) + tail(OK)
    for _ in range(2):
        bench.ask(probe(UNHEARD), WHOLE_PROBE, told)
        assert bench.unit.findings() == []


def test_a_property_with_reserved_bits_is_passed_over(bench: Bench) -> None:
    marked = b"\1\x80" + resv_mem(*LOW)[2:]
    bench.do(attach(1, UNHEARD))
    bench.ask(probe(UNHEARD), WHOLE_PROBE, payload(marked, resv_mem(*MSI)) + tail(OK))
    assert bench.lands(UNHEARD, 0xFEE0_0000) == 0xFEE0_0000
    assert bench.unit.request(probe(UNHEARD), WHOLE_PROBE)[0] == payload(resv_mem(*MSI)) + tail(OK)


@pytest.mark.parametrize(
    ("dialect", "room", "answer"),
    [
        ("spec", WHOLE_PROBE - 1, bytes(PROBE_SIZE - 1) + tail(INVAL)),
        ("spec", TAIL, tail(INVAL)),
        ("qemu", WHOLE_PROBE - 1, tail(DEVERR)),
        ("qemu", TAIL, tail(DEVERR)),
    ],
)
def test_too_small_room(make_bench: MakeBench, dialect: str, room: int, answer: bytes) -> None:
    bench = make_bench(dialect).declare(NIC, regions=(LOW,))
    assert bench.unit.request(probe(NIC), room)[0] == answer


@pytest.mark.parametrize("dialect", ["spec", "qemu"])
@pytest.mark.parametrize(("count", "status"), [(21, OK), (22, INVAL)])
def test_as_many_regions_as_fit(
    make_bench: MakeBench, dialect: str, count: int, status: int
) -> None:
    regions = tuple((0, n << 12, n << 12 | 0xFFF) for n in range(count))
    bench = make_bench(dialect).declare(NIC, regions=regions)
    answer = bench.unit.request(probe(NIC), WHOLE_PROBE)[0]
    told = payload(*(resv_mem(*one) for one in regions)) if status == OK else payload()
    assert answer == told + tail(status)


@pytest.mark.parametrize("size", [0, 3, 23, 24])
def test_small_probe_sizes(make_bench: MakeBench, size: int) -> None:
    bench = make_bench(probe_size=size).declare(NIC, regions=(LOW,))
    status = OK if size == 24 else INVAL
    told = resv_mem(*LOW) if status == OK else bytes(size)
    assert bench.unit.request(probe(NIC), size + TAIL)[0] == told + tail(status)
    assert bench.unit.request(probe(MOVED), size + TAIL)[0] == bytes(size) + tail(OK)


def test_a_short_probe_of_qemu_has_all_the_room(make_bench: MakeBench) -> None:
    answer = make_bench("qemu").unit.request(probe(NIC)[:-1], WHOLE_PROBE)
    assert answer == (bytes(PROBE_SIZE) + tail(INVAL),)


def test_an_endpoint_that_is_not_there_has_no_properties(bench: Bench) -> None:
    assert bench.unit.request(probe(0x1A), WHOLE_PROBE)[0] == bytes(PROBE_SIZE) + tail(NOENT)
