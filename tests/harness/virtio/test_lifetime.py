"""How domains begin and end, what resets keep, and the config space."""

from __future__ import annotations

import pytest

from decoders.virtio_iommu.constants import Feature
from harness.model.virtio.config import DEFAULT_FEATURES
from tests.harness.virtio.bench import DISK, MOVED, NIC, Bench
from tests.harness.virtio.conftest import MakeBench
from tests.writers import virtio_iommu as write
from tests.writers.virtio_iommu import INVAL, NOENT, OK, attach, detach, map_

PAGE_OF_1 = map_(1, 0, 0xFFF, 0x5000)
BYPASS = 36
dialects = pytest.mark.parametrize("dialect", ["spec", "qemu", "qemu-10.0"])

# --- domains --------------------------------------------------------------------------------------


@dialects
def test_a_domain_ends_with_its_last_endpoint(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), attach(1, DISK), PAGE_OF_1)
    bench.do(detach(1, NIC))
    assert bench.unit.domains() == {1: (False, (DISK,), ((0, 0xFFF, 0x5000, 3),))}
    bench.do(detach(1, DISK))
    assert bench.unit.domains() == {}
    assert bench.ask(PAGE_OF_1)[0] == NOENT
    bench.do(attach(1, NIC, 1))
    assert bench.unit.domains() == {1: (True, (NIC,), ())}


@dialects
def test_an_endpoint_that_is_attached_elsewhere_leaves(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), PAGE_OF_1, attach(2, NIC))
    assert bench.unit.domains() == {2: (False, (NIC,), ())}
    assert bench.lands(NIC, 0) is None


@pytest.mark.parametrize(("dialect", "left"), [("spec", 1), ("qemu", 0)])
def test_attaching_again_to_the_same_domain(make_bench: MakeBench, dialect: str, left: int) -> None:
    """QEMU detaches first, and the domain ends with that."""
    bench = make_bench(dialect).do(attach(1, NIC), PAGE_OF_1, attach(1, NIC))
    assert len(bench.mapped(1)) == left


@dialects
def test_attaching_again_beside_others_keeps_the_domain(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), attach(1, DISK), PAGE_OF_1, attach(1, NIC))
    assert bench.unit.domains()[1][1] == (NIC, DISK)
    assert bench.lands(NIC, 0) == 0x5000


def test_a_failed_attach_takes_the_endpoint_out_of_its_domain_in_qemu(
    make_bench: MakeBench,
) -> None:
    wrong = attach(2, NIC, 1)
    for dialect, kept in (("spec", (NIC,)), ("qemu", None)):
        bench = make_bench(dialect).do(attach(2, DISK), attach(1, NIC))
        assert bench.give(wrong, INVAL) == []
        assert bench.unit.domains().get(1, (False, None))[1] == kept


def test_a_detach_that_was_answered_with_ok_changes_nothing_elsewhere(bench: Bench) -> None:
    bench.do(attach(1, NIC), attach(2, DISK))
    assert bench.give(detach(2, NIC), OK) == []
    assert bench.unit.domains()[1][1] == (NIC,)


def test_a_map_that_should_have_failed_is_believed(bench: Bench) -> None:
    bench.do(attach(1, NIC), map_(1, 0x1000, 0x2FFF, 0x8000))
    assert len(bench.give(map_(1, 0x2000, 0x3FFF, 0x9000), OK)) == 1
    assert bench.mapped(1) == [(0x2000, 0x3FFF)]
    assert len(bench.give(map_(5, 0, 0xFFF, 0), OK)) == 1
    assert bench.unit.domains()[5] == (False, (), ((0, 0xFFF, 0, 3),))


# --- resets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "kept"), [("spec", False), ("qemu", False), ("qemu-10.0", True)]
)
def test_a_device_reset(make_bench: MakeBench, dialect: str, kept: bool) -> None:
    bench = make_bench(dialect, bypass=0).do(attach(1, NIC), PAGE_OF_1)
    bench.unit.write_register(BYPASS, 1, 1)
    bench.unit.device_reset()
    assert bool(bench.unit.domains()) == kept
    assert bench.unit.read_register(BYPASS, 1) == 1
    assert bench.lands(DISK, 0x40) == 0x40
    assert bench.lands(NIC, 0x40) == (0x5040 if kept else 0x40)


@dialects
def test_a_system_reset(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect, bypass=0).do(attach(1, NIC), PAGE_OF_1)
    bench.unit.write_register(BYPASS, 1, 1)
    bench.unit.reset()
    assert bench.unit.domains() == {}
    assert bench.unit.read_register(BYPASS, 1) == 0
    assert bench.lands(NIC, 0x40) is None
    # Endpoints are still there.
    assert bench.ask(attach(1, 0x1A))[0] == NOENT
    bench.do(attach(1, NIC))


def test_a_reset_takes_back_what_was_negotiated(make_bench: MakeBench) -> None:
    bench = make_bench(features=Feature.BYPASS, bypass=0)
    bench.unit.features(Feature.BYPASS, Feature.BYPASS)
    assert bench.lands(NIC, 0x40) == 0x40
    bench.unit.device_reset()
    assert bench.lands(NIC, 0x40) is None


@dialects
def test_bypass_at_boot_comes_from_the_first_config_space(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect, bypass=1, known=False)
    bench.unit.config_space(write.config(0))
    assert bench.unit.findings() == []
    bench.unit.write_register(BYPASS, 1, 1)
    bench.unit.config_space(write.config(1))
    assert bench.unit.findings() == []
    bench.unit.reset()
    assert bench.unit.read_register(BYPASS, 1) == 0


# --- config space ---------------------------------------------------------------------------------


def test_bypass_with_another_value_is_a_finding(make_bench: MakeBench) -> None:
    bench = make_bench(bypass=0)
    bench.unit.config_space(write.config(1))
    (finding,) = bench.unit.findings()
    assert (finding.subject, finding.observed, finding.permitted) == ("config", b"\1", (b"\0",))
    assert bench.lands(NIC, 0x40) == 0x40


def test_the_device_may_change_all_else(make_bench: MakeBench) -> None:
    bench = make_bench(probe_size=512).do(attach(1, NIC))
    bench.unit.config_space(write.config(0, page_size_mask=1 << 16, probe_size=24))
    assert bench.unit.findings() == []
    assert bench.ask(PAGE_OF_1)[0] == write.RANGE
    assert bench.unit.read_register(0, 8) == 1 << 16
    assert bench.unit.read_register(32, 4) == 24


@pytest.mark.parametrize(
    ("offset", "size", "value", "bypass"),
    [
        (36, 1, 1, 1),
        (36, 4, 1, 1),
        (32, 8, 1 << 32 | 0xFFFF, 1),
        (33, 4, 1 << 24, 1),
        (36, 1, 2, 0),
        (36, 4, 0x100, 0),
        (37, 1, 1, 0),
        (32, 4, 1, 0),
        (0, 8, 1, 0),
    ],
)
def test_only_bypass_can_be_written_and_only_to_0_or_1(
    make_bench: MakeBench, offset: int, size: int, value: int, bypass: int
) -> None:
    bench = make_bench(bypass=0)
    before = [bench.unit.read_register(place, 1) for place in range(40)]
    bench.unit.write_register(offset, size, value)
    before[BYPASS] = bypass
    assert [bench.unit.read_register(place, 1) for place in range(40)] == before


def test_without_its_feature_bypass_cannot_be_written(bench: Bench) -> None:
    bench.unit.features(DEFAULT_FEATURES, DEFAULT_FEATURES & ~Feature.BYPASS_CONFIG)
    bench.unit.write_register(BYPASS, 1, 1)
    assert bench.unit.read_register(BYPASS, 1) == 0


@pytest.mark.parametrize(("offset", "size"), [(40, 4), (1 << 31, 8), (0xFFFF_FFFF, 1)])
def test_beyond_its_end_config_space_reads_as_zero(bench: Bench, offset: int, size: int) -> None:
    assert bench.unit.read_register(offset, size) == 0


def test_a_short_config_space_goes_on_with_zeros(make_bench: MakeBench) -> None:
    bench = make_bench(bypass=1, known=False).do(attach(1, NIC))
    bench.unit.config_space(write.config(1)[:9])
    assert bench.unit.read_register(8, 8) == 0
    bench.do(detach(1, NIC))
    assert bench.lands(NIC, 0x40) is None
    assert bench.ask(attach(2, MOVED))[0] == OK
    assert write.RANGE in bench.ask(attach(3, NIC))
    bench.unit.config_space(b"")
    assert bench.unit.findings() == []
