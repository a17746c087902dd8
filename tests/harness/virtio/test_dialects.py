"""Dialects: which one a name gives, a device that breaks, ids with more bits than are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from decoders.events import Fault
from harness.model.virtio.config import DEFAULT_FEATURES
from harness.model.virtio.dialect import DIALECTS, dialect_named
from tests.harness.virtio.bench import MOVED, NIC, PROBE_SIZE, WHOLE_PROBE, Bench, Engine, config
from tests.harness.virtio.conftest import MakeBench
from tests.writers.virtio_iommu import (
    FEATURES,
    INVAL,
    NOENT,
    OK,
    attach,
    detach,
    map_,
    probe,
    regions,
    unmap,
)

BYPASS = 36
IN = attach(1, NIC)
WIDE = NIC | 0x1_0000
MSI = (1, 0xFEE0_0000, 0xFEEF_FFFF)
QEMUS = pytest.mark.parametrize("dialect", ["qemu", "qemu-10.0"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("spec", "spec"),
        ("qemu", "qemu"),
        ("qemu-10.0", "qemu-10.0"),
        ("qemu-9.2", "qemu"),
        ("qemu-10.1", "qemu-10.0"),
        ("qemu-11.0.3", "qemu-10.0"),
        ("qemu-11.1.3", "qemu-11.1"),
        ("qemu-12.0", "qemu-11.1"),
        ("qemu-", "qemu"),
        ("qemu-x.y", "qemu"),
        ("something-else", "spec"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert dialect_named(name) is DIALECTS[expected]


# --- a device that breaks -------------------------------------------------------------------------


def without_tail(bench: Bench) -> None:
    bench.ask(IN, room=3)


def without_head(bench: Bench) -> None:
    bench.ask(IN[:3])


def bad_bypass(bench: Bench) -> None:
    bench.unit.write_register(BYPASS, 1, 2)


def bypass_without_its_feature(bench: Bench) -> None:
    bench.unit.features(FEATURES, FEATURES & ~(1 << 6))
    bench.unit.write_register(BYPASS, 1, 1)


ways_to_break = pytest.mark.parametrize(
    "break_", [without_tail, without_head, bad_bypass, bypass_without_its_feature]
)


@QEMUS
@ways_to_break
def test_a_broken_device_is_silent_until_its_reset(
    make_bench: MakeBench, dialect: str, break_: Callable[[Bench], None]
) -> None:
    bench = make_bench(dialect).do(attach(1, MOVED))
    assert bench.access(MOVED, 0) == (Fault(2),)
    assert len(bench.unit.emitted()) == 1
    break_(bench)
    assert bench.ask(IN) == []
    assert bench.access(MOVED, 0) == (Fault(2),)
    assert bench.unit.emitted() == []
    assert bench.unit.findings() == []
    bench.unit.device_reset()
    bench.unit.features(DEFAULT_FEATURES, DEFAULT_FEATURES)
    bench.do(IN)


@ways_to_break
def test_nothing_breaks_as_specified(
    make_bench: MakeBench, break_: Callable[[Bench], None]
) -> None:
    bench = make_bench()
    break_(bench)
    bench.do(IN)


def test_a_device_that_answers_is_not_broken(make_bench: MakeBench) -> None:
    bench = make_bench("qemu")
    bad_bypass(bench)
    (finding,) = bench.give(IN, OK)
    assert (finding.subject, finding.permitted) == ("request", ())
    bench.do(map_(1, 0, 0xFFF, 0x5000))
    assert bench.lands(NIC, 0) == 0x5000


def test_the_value_it_has_breaks_nothing(make_bench: MakeBench) -> None:
    bench = make_bench("qemu", bypass=2)
    bad_bypass(bench)
    bench.do(IN)


@pytest.mark.parametrize(("dialect", "status"), [("qemu-10.0", NOENT), ("qemu-11.1", INVAL)])
def test_what_comes_first_of_a_range_without_order_and_no_domain(
    make_bench: MakeBench, dialect: str, status: int
) -> None:
    bench = make_bench(dialect)
    for request in (map_(9, 0x6000, 0x5FFF, 0), unmap(9, 0x6000, 0x5FFF)):
        assert bench.ask(request) == [status]


# --- ids ------------------------------------------------------------------------------------------


@QEMUS
def test_an_id_stands_for_another_but_has_a_domain_of_its_own(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect).do(attach(1, WIDE), map_(1, 0, 0xFFF, 0x5000))
    assert bench.unit.domains()[1][1] == (WIDE,)
    assert bench.lands(NIC, 0) is None
    bench.do(detach(1, WIDE))
    assert bench.ask(attach(1, WIDE | 1 << 31)) == [OK]
    assert bench.ask(attach(1, 0x1_001A))[0] == NOENT


def test_what_is_probed_is_the_endpoint_that_is_there(make_bench: MakeBench) -> None:
    bench = make_bench("qemu").declare(NIC, regions=(MSI,))
    answer = bench.unit.request(probe(WIDE), WHOLE_PROBE)
    assert answer == (regions(MSI).ljust(PROBE_SIZE, b"\0") + bytes(4),)


def test_an_id_that_is_too_wide_is_nobodys(engine: Engine) -> None:
    usual = config()
    assert NOENT in Bench(engine(usual)).declare(NIC).ask(attach(1, WIDE))
    narrow = replace(usual, dialect=replace(usual.dialect, endpoint_bits=16))
    assert OK in Bench(engine(usual)).declare(NIC).ask(attach(1, WIDE))
    assert OK not in Bench(engine(narrow)).declare(NIC).ask(attach(1, WIDE))
