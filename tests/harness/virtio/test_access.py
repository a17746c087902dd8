"""Where DMA lands, and what is reported of DMA that does not."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, Fault, FaultReport
from decoders.virtio_iommu.constants import Feature
from harness.findings import FindingKind
from tests.harness.virtio.bench import (
    DISK,
    EXECUTE,
    NIC,
    ONE_BYTE,
    READ,
    UNHEARD,
    WRITE,
    Bench,
    at,
)
from tests.harness.virtio.conftest import MakeBench
from tests.writers import virtio_iommu as write
from tests.writers.virtio_iommu import TOP, attach, detach, map_, unmap

UNKNOWN_REASON, DOMAIN, MAPPING = 0, 1, 2
F_READ, F_WRITE, F_EXEC, F_ADDRESS = 1, 2, 4, 0x100
NO_KIND = AccessKind.UNKNOWN
dialects = pytest.mark.parametrize("dialect", ["spec", "qemu"])

# --- translations ---------------------------------------------------------------------------------


@dialects
def test_a_mapping_translates(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), map_(1, 0x10000, 0x13FFF, 0x84000))
    assert bench.access(NIC, 0x11234, WRITE) == (at(0x84000, 0x3FFF),)
    assert bench.lands(NIC, 0x11234) == 0x85234
    assert bench.unit.emitted() == []


@pytest.mark.parametrize(
    ("start", "end", "physical", "iova", "expected"),
    [
        (0x1000, 0x1FFF, 0x5000, 0x1800, at(0x5000, 0xFFF)),
        (0x1000, 0x3FFF, 0x5000, 0x1800, at(0x5000, 0xFFF)),
        (0x1000, 0x3FFF, 0x5000, 0x2800, at(0x6000, 0x1FFF)),
        (0x0000, 0x3FFF, 0x5000, 0x2800, at(0x7000, 0xFFF)),
        (0, TOP, 0, 0x1234, at(0, TOP)),
        (0, TOP, 1, TOP, at(0, 0)),
        (TOP, TOP, 7, TOP, at(7, 0)),
        (1 << 63, TOP, 0, 1 << 63, at(0, (1 << 63) - 1)),
        (3, 9, 103, 8, at(108, 1)),
    ],
)
def test_the_largest_aligned_block_is_the_page(
    make_bench: MakeBench, start: int, end: int, physical: int, iova: int, expected: object
) -> None:
    bench = make_bench(page_size_mask=ONE_BYTE).do(attach(1, NIC))
    bench.do(map_(1, start, end, physical))
    assert bench.access(NIC, iova) == (expected,)


def test_a_part_of_the_page_agrees_and_more_does_not(bench: Bench) -> None:
    bench.do(attach(1, NIC), map_(1, 0x10000, 0x13FFF, 0x84000))
    assert bench.judged(NIC, 0x11234, at(0x85000, 0xFFF)) == []
    assert bench.judged(NIC, 0x11234, at(0x85234)) == []
    (finding,) = bench.judged(NIC, 0x11234, at(0x80000, 0x7FFF))
    assert (finding.kind, finding.domain, finding.filled_by) == (FindingKind.DIVERGENCE, 1, 2)
    assert len(bench.judged(NIC, 0x11234, at(0x84234))) == 1
    assert len(bench.judged(NIC, 0x11234, Fault(MAPPING))) == 1


def test_endpoints_of_a_domain_share_its_mappings(bench: Bench) -> None:
    bench.do(attach(1, NIC), attach(1, DISK), map_(1, 0, 0xFFF, 0x5000))
    assert bench.lands(NIC, 0x10) == bench.lands(DISK, 0x10) == 0x5010


def test_domains_are_isolated(bench: Bench) -> None:
    bench.do(attach(1, NIC), attach(2, DISK), map_(1, 0, 0xFFF, 0x5000))
    assert bench.lands(DISK, 0x10) is None


def test_qemu_finds_a_mapping_from_the_byte_before_it(make_bench: MakeBench) -> None:
    bench = make_bench("qemu").do(attach(1, NIC), map_(1, 0x2000, 0x2FFF, 0x5000))
    assert bench.access(NIC, 0x1FFF) == (at(0x4FFF),)
    bench.do(map_(1, 0x1000, 0x1FFF, 0x9000))
    assert bench.access(NIC, 0x1FFF) == (at(0x9000, 0xFFF), at(0x4FFF))


def test_qemu_does_not_find_the_last_byte(make_bench: MakeBench) -> None:
    bench = make_bench("qemu").do(attach(1, NIC), map_(1, TOP - 0xFFF, TOP, 0x5000))
    assert bench.lands(NIC, TOP) is None
    assert bench.lands(NIC, TOP - 1) == 0x5FFE
    bench.do(unmap(1, 0, TOP), map_(1, 0, TOP, 0))
    assert bench.lands(NIC, TOP) == TOP


def test_qemu_keeps_the_offset_in_a_page(make_bench: MakeBench) -> None:
    bench = make_bench("qemu").do(attach(1, NIC), map_(1, 0x1000, 0x1FFF, 0x5800))
    assert bench.access(NIC, 0x1900) == (at(0x6900), at(0x6000, 0x7FF))


# --- bypass ---------------------------------------------------------------------------------------


@dialects
@pytest.mark.parametrize("bypass", [0, 1])
def test_the_config_space_says_whether_endpoints_bypass(
    make_bench: MakeBench, dialect: str, bypass: int
) -> None:
    bench = make_bench(dialect, bypass=bypass)
    expected = 0x1234 if bypass else None
    assert bench.lands(NIC, 0x1234) == expected
    bench.unit.write_register(36, 1, 1 - bypass)
    assert bench.lands(NIC, 0x1234) == (None if bypass else 0x1234)
    bench.do(attach(1, NIC))
    assert bench.lands(NIC, 0x1234) is None
    bench.do(detach(1, NIC), attach(2, NIC, flags=1))
    assert bench.lands(NIC, 0x1234) == 0x1234


@pytest.mark.parametrize(
    ("offered", "accepted", "bypass", "lands"),
    [
        (Feature.BYPASS, Feature.BYPASS, 0, True),
        (Feature.BYPASS, 0, 1, False),
        (Feature.BYPASS_CONFIG, 0, 1, True),
        (Feature.BYPASS_CONFIG, 0, 0, False),
        (Feature.BYPASS | Feature.BYPASS_CONFIG, Feature.BYPASS, 0, True),
        (Feature.BYPASS | Feature.BYPASS_CONFIG, Feature.BYPASS_CONFIG, 0, False),
        (0, 0, 1, False),
    ],
)
def test_features_decide_what_bypasses(
    make_bench: MakeBench, offered: int, accepted: int, bypass: int, lands: bool
) -> None:
    bench = make_bench(features=offered, bypass=bypass)
    bench.unit.features(offered, accepted)
    assert (bench.lands(NIC, 0x40) == 0x40) == lands


# --- reserved regions -----------------------------------------------------------------------------

REGIONS = ((0, 0x8000, 0x8FFF), (1, 0xFEE0_0000, 0xFEEF_FFFF), (9, 0xA000, 0xAFFF))


@dialects
def test_reserved_regions(make_bench: MakeBench, dialect: str) -> None:
    bench = make_bench(dialect).declare(NIC, regions=REGIONS).do(attach(1, NIC))
    assert bench.access(NIC, 0x8800) == (Fault(MAPPING),)
    assert bench.access(NIC, 0xA800) == (Fault(MAPPING),)  # an unknown kind counts as reserved
    assert bench.lands(NIC, 0xFEE0_1004, WRITE) == 0xFEE0_1004


@dialects
def test_an_endpoint_that_bypasses_has_no_reserved_regions(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect, bypass=1).declare(NIC, regions=REGIONS)
    bench.do(attach(1, NIC), detach(1, NIC))
    assert bench.lands(NIC, 0x8800) == 0x8800
    bench.do(attach(1, NIC, flags=1))
    assert bench.lands(NIC, 0x8800) == 0x8800


def test_reserved_regions_of_an_endpoint_without_a_domain(make_bench: MakeBench) -> None:
    bench = make_bench("spec").declare(NIC, regions=REGIONS)
    assert bench.access(NIC, 0x8800)[0] == Fault(DOMAIN)
    bench = make_bench("qemu").declare(NIC, regions=REGIONS)
    assert bench.access(NIC, 0x8800) == (Fault(UNKNOWN_REASON),)
    # An ATTACH that names a domain of the other kind leaves the endpoint known, and without one.
    bench.do(attach(1, DISK))
    assert bench.give(attach(1, NIC, 1), write.INVAL) == []
    assert bench.access(NIC, 0x8800) == (Fault(MAPPING),)
    assert bench.access(NIC, 0x9000) == (Fault(DOMAIN),)


# --- faults and reports ---------------------------------------------------------------------------


def reports(bench: Bench, endpoint: int, iova: int, kind: AccessKind) -> list[tuple[int, int]]:
    bench.access(endpoint, iova, kind)
    found = bench.unit.emitted()
    assert all((one.endpoint, one.address) == (endpoint, iova) for one in found)
    return [(one.reason, one.flags) for one in found]


@pytest.mark.parametrize(
    ("kind", "flag"), [(READ, F_READ), (WRITE, F_WRITE), (EXECUTE, F_EXEC), (NO_KIND, 0)]
)
def test_reports_of_what_is_not_mapped(make_bench: MakeBench, kind: AccessKind, flag: int) -> None:
    bench = make_bench("spec")
    assert reports(bench, NIC, 0x10, kind) == [(DOMAIN, flag | F_ADDRESS)]
    bench.do(attach(1, NIC))
    assert reports(bench, NIC, 0x10, kind) == [(MAPPING, flag | F_ADDRESS)]
    bench = make_bench("qemu")
    assert reports(bench, NIC, 0x10, kind) == [(UNKNOWN_REASON, F_ADDRESS)]
    bench.do(attach(1, NIC))
    assert reports(bench, NIC, 0x10, kind) == [(MAPPING, F_ADDRESS)]


@dialects
@pytest.mark.parametrize(
    ("flags", "kind", "flag"),
    [(1, READ, 0), (1, EXECUTE, 0), (1, WRITE, F_WRITE), (2, WRITE, 0), (0, READ, F_READ)],
)
def test_rights(
    make_bench: MakeBench, dialect: str, flags: int, kind: AccessKind, flag: int
) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), map_(1, 0, 0xFFF, 0x5000, flags))
    expected = [(MAPPING, flag | F_ADDRESS)] if flag else []
    assert reports(bench, NIC, 0x10, kind) == expected
    assert bench.lands(NIC, 0x10, kind) == (None if flag else 0x5010)


def test_what_may_be_written_may_be_readable(make_bench: MakeBench) -> None:
    bench = make_bench("spec").do(attach(1, NIC), map_(1, 0, 0xFFF, 0x5000, write.WRITE))
    assert bench.access(NIC, 0x10) == (Fault(MAPPING), at(0x5000, 0xFFF))
    bench = make_bench("qemu").do(attach(1, NIC), map_(1, 0, 0xFFF, 0x5000, write.WRITE))
    assert bench.access(NIC, 0x10) == (Fault(MAPPING),)


@dialects
def test_an_access_of_unknown_kind_may_lack_either_right(
    make_bench: MakeBench, dialect: str
) -> None:
    bench = make_bench(dialect).do(attach(1, NIC), map_(1, 0, 0xFFF, 0x5000, write.READ))
    assert bench.access(NIC, 0x10, NO_KIND) == (at(0x5000, 0xFFF), Fault(MAPPING))


def test_reasons_of_an_access_without_a_domain(make_bench: MakeBench) -> None:
    assert make_bench("spec").access(NIC, 0) == (Fault(DOMAIN), Fault(UNKNOWN_REASON))
    bench = make_bench("qemu")
    assert bench.access(NIC, 0) == (Fault(UNKNOWN_REASON),)
    # Only DETACH makes QEMU forget an endpoint that ATTACH named.
    bench.do(attach(1, DISK), attach(2, NIC))
    assert bench.give(attach(1, NIC, 1), write.INVAL) == []
    assert bench.access(NIC, 0) == (Fault(DOMAIN),)
    bench.do(attach(2, NIC), detach(2, NIC))
    assert bench.access(NIC, 0) == (Fault(UNKNOWN_REASON),)


def test_the_recorded_reason_is_the_one_that_is_reported(bench: Bench) -> None:
    assert bench.judged(NIC, 0x10, Fault(UNKNOWN_REASON)) == []
    assert [one.reason for one in bench.unit.emitted()] == [UNKNOWN_REASON]


def test_an_endpoint_nobody_named_is_one_without_a_domain(make_bench: MakeBench) -> None:
    assert make_bench(bypass=1).lands(UNHEARD, 0x10) == 0x10
    assert make_bench(bypass=0).lands(0xFFFF_FFFF, 0x10) is None


@pytest.mark.parametrize(
    ("seen", "spec", "qemu"),
    [
        (FaultReport(MAPPING, F_READ | F_ADDRESS, NIC, 0x10), True, True),
        (FaultReport(MAPPING, F_ADDRESS, NIC, 0x10), True, False),
        (FaultReport(MAPPING, 0, NIC, 0), True, False),
        (FaultReport(MAPPING, F_READ | F_ADDRESS, NIC, 0x11), False, False),
        (FaultReport(MAPPING, F_READ | F_ADDRESS, DISK, 0x10), False, False),
        (FaultReport(DOMAIN, F_READ | F_ADDRESS, NIC, 0x10), False, False),
        (FaultReport(MAPPING, F_READ | F_ADDRESS | 0x200, NIC, 0x10), False, False),
    ],
)
def test_which_reports_are_the_same(
    make_bench: MakeBench, seen: FaultReport, spec: bool, qemu: bool
) -> None:
    expected = FaultReport(MAPPING, F_READ | F_ADDRESS, NIC, 0x10)
    assert make_bench("spec").unit.same_report(expected, seen) == spec
    assert make_bench("qemu").unit.same_report(expected, seen) == qemu


# --- what has ended -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        [unmap(1, 0x1000, 0x1FFF)],
        [detach(1, NIC)],
        [detach(1, NIC), attach(2, NIC)],
        [attach(2, NIC)],
        [unmap(1, 0x1000, 0x1FFF), map_(1, 0x1000, 0x1FFF, 0x9000)],
    ],
)
def test_a_mapping_that_is_used_after_its_end(bench: Bench, ending: list[bytes]) -> None:
    bench.do(attach(1, NIC), map_(1, 0x1000, 0x1FFF, 0x5000), *ending)
    (finding,) = bench.judged(NIC, 0x1234, at(0x5000, 0xFFF))
    assert finding.kind == FindingKind.STALE_AFTER_INVALIDATION
    assert (finding.cache, finding.domain) == ("domain", 1)
    assert (finding.filled_by, finding.covered_by) == (2, 3)


@pytest.mark.parametrize("recorded", [at(0x6000, 0xFFF), at(0x5235), Fault(DOMAIN)])
def test_anything_else_is_a_plain_divergence(bench: Bench, recorded: object) -> None:
    bench.do(attach(1, NIC), map_(1, 0x1000, 0x1FFF, 0x5000), unmap(1, 0x1000, 0x1FFF))
    (finding,) = bench.judged(NIC, 0x1234, recorded)  # type: ignore[arg-type]
    assert (finding.kind, finding.covered_by) == (FindingKind.DIVERGENCE, -1)


def test_a_mapping_of_another_domain_is_no_explanation(bench: Bench) -> None:
    bench.do(attach(1, NIC), attach(2, DISK), map_(1, 0x1000, 0x1FFF, 0x5000), detach(1, NIC))
    (finding,) = bench.judged(DISK, 0x1234, at(0x5000, 0xFFF))
    assert finding.kind == FindingKind.DIVERGENCE
