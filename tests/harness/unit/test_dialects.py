"""What QEMU does otherwise than the specification (harness/model/dialects.py).

Every test shows both: the same tables under `spec` and under a QEMU dialect.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decoders.events import Descriptor, FaultRecord, Outcome, StatusWrite, Translation
from decoders.fields import build
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InvalidationWait, PasidCacheInvalidation
from decoders.vtd.faults import FaultRecordRegister, QueueError, Reason
from decoders.vtd.paging import FirstStageEntry
from decoders.vtd.tables import RootEntry
from harness.model.dialects import DIALECTS, SPECIFICATION, dialect_named
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import (
    AW,
    DEVICE,
    DOMAIN,
    OUTSIDE,
    Platform,
    descriptor,
    fault,
    page,
)

HAW = 46
GIBI = 1 << 30
QEMU = "qemu-10.0"
Setup = Callable[[Platform], Outcome]


def answers(make_platform: MakePlatform, setup: Setup, **capabilities: int) -> list[Outcome]:
    """Return what a request is answered under the specification and under QEMU's dialect."""
    return [setup(make_platform(dialect=name, ram=True, **capabilities)) for name in ("spec", QEMU)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("spec", "spec"),
        ("qemu", "qemu"),
        ("qemu-10.0", "qemu-10.0"),
        ("qemu-9.2.1", "qemu-10.0"),
        ("qemu-10.1", "qemu"),
        ("qemu-11.0.3", "qemu"),
        ("something-else", "spec"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert dialect_named(name) is DIALECTS[expected]
    assert DIALECTS["spec"] is SPECIFICATION


# -- scalable structures are reported with the legacy reasons ------------------------------------


def root_access(platform: Platform) -> Outcome:
    platform.set_root(OUTSIDE, 1)
    platform.command(te=1)
    return platform.read(0x1000)


def root_not_present(platform: Platform) -> Outcome:
    platform.start(1)
    return platform.read(0x1000)


def root_reserved(platform: Platform) -> Outcome:
    platform.start(1)
    platform.store(platform.root, 0b11)
    return platform.read(0x1000)


def context_access(platform: Platform) -> Outcome:
    platform.start(1)
    platform.store(platform.root, OUTSIDE | 1)
    return platform.read(0x1000)


def context_not_present(platform: Platform) -> Outcome:
    platform.scalable_context(p=0)
    return platform.read(0x1000)


def context_reserved(platform: Platform) -> Outcome:
    at = platform.scalable_context()
    platform.store(at, platform.load(at) | 1 << 5)
    return platform.read(0x1000)


@pytest.mark.parametrize(
    ("setup", "spec", "qemu"),
    [
        (root_access, 0x38, 0x08),
        (root_not_present, 0x39, 0x01),
        (root_reserved, 0x3A, 0x0A),
        (context_access, 0x40, 0x09),
        (context_not_present, 0x41, 0x02),
        (context_reserved, 0x42, 0x0B),
    ],
)
def test_scalable_entries(make_platform: MakePlatform, setup: Setup, spec: int, qemu: int) -> None:
    assert answers(make_platform, setup) == [fault(spec), fault(qemu)]


def no_read(platform: Platform) -> Outcome:
    platform.second_stage().map(0x1000, 0x7000, r=0)
    return platform.read(0x1000)


def no_write(platform: Platform) -> Outcome:
    platform.second_stage().map(0x1000, 0x7000, w=0)
    return platform.write_to(0x1000)


def absent_read(platform: Platform) -> Outcome:
    platform.second_stage()
    return platform.read(0x1000)


def absent_write(platform: Platform) -> Outcome:
    platform.second_stage()
    return platform.write_to(0x1000)


def beyond_width(platform: Platform) -> Outcome:
    platform.second_stage(levels=3)
    return platform.read(1 << 39)


def entry_access(platform: Platform) -> Outcome:
    space = platform.second_stage()
    platform.store(space.entry(0, 3), space.value(OUTSIDE))
    return platform.read(0)


def table_access(platform: Platform) -> Outcome:
    platform.second_stage(root=OUTSIDE)
    return platform.read(0)


def entry_reserved(platform: Platform) -> Outcome:
    platform.second_stage().map(0, 0x7000 | 1 << 51)
    return platform.read(0)


@pytest.mark.parametrize(
    ("setup", "spec", "qemu"),
    [
        (no_read, 0x86, 0x06),
        (no_write, 0x85, 0x05),
        (absent_read, 0x79, 0x06),
        (absent_write, 0x79, 0x05),
        (beyond_width, 0x84, 0x04),
        (entry_access, 0x78, 0x07),
        (table_access, 0x7B, 0x03),
        (entry_reserved, 0x7A, 0x0C),
    ],
)
def test_scalable_second_stage(
    make_platform: MakePlatform, setup: Setup, spec: int, qemu: int
) -> None:
    assert answers(make_platform, setup) == [fault(spec), fault(qemu)]


def test_a_legacy_root_table_that_cannot_be_read_is_an_invalid_context_entry(
    make_platform: MakePlatform,
) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.legacy(root=OUTSIDE)
        return platform.read(0)

    assert answers(make_platform, setup) == [
        fault(Reason.SECOND_STAGE_ACCESS),
        fault(Reason.CONTEXT_INVALID),
    ]


# -- what is checked -----------------------------------------------------------------------------


def test_the_type_of_a_pasid_entry_that_is_not_present(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.pasid_entry(p=0, pgtt=0)
        return platform.read(0)

    expected = [fault(Reason.PASID_NOT_PRESENT), fault(Reason.PASID_INVALID)]
    assert answers(make_platform, setup) == expected


def reserved_in_directory(platform: Platform) -> Outcome:
    platform.first_stage().map(0, 0x7000)
    at = platform.directories[DEVICE]
    platform.store(at, platform.load(at) | 1 << 2)
    return platform.read(0)


def reserved_in_pasid_entry(platform: Platform) -> Outcome:
    space = platform.first_stage()
    space.map(0, 0x7000)
    at = platform.pasid_entry(pgtt=1, fsptptr=space.root >> 12)
    platform.store(at + 24, 1)
    return platform.read(0)


def unsupported_in_pasid_entry(platform: Platform) -> Outcome:
    platform.first_stage(sre=1).map(0, 0x7000)
    return platform.read(0)


def pasid_not_enabled(platform: Platform) -> Outcome:
    platform.scalable_context(paside=0)
    platform.first_stage(pasid=1).map(0, 0x7000)
    return platform.read(0, pasid=1)


def pasid_beyond_directory(platform: Platform) -> Outcome:
    platform.scalable_context(pdts=0)
    platform.first_stage(pasid=1 << 13).map(0, 0x7000)
    return platform.read(0, pasid=1 << 13)


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (reserved_in_directory, 0x52),
        (reserved_in_pasid_entry, 0x5A),
        (unsupported_in_pasid_entry, 0x5B),
        (pasid_not_enabled, 0x45),
        (pasid_beyond_directory, 0x46),
    ],
)
def test_pasid_structures_are_not_checked(
    make_platform: MakePlatform, setup: Setup, reason: int
) -> None:
    assert answers(make_platform, setup) == [fault(reason), page(0x7000)]


def test_a_root_pointer_beyond_the_host_address_width_is_cut(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.legacy().map(0, 0x7000)
        platform.set_root(platform.root | 1 << HAW, 0)
        return platform.read(0)

    assert answers(make_platform, setup) == [fault(Reason.ROOT_TABLE_ADDRESS), page(0x7000)]


@pytest.mark.parametrize("mode", [2, 3])
def test_one_bit_of_the_mode_of_the_root_table_counts(
    make_platform: MakePlatform, mode: int
) -> None:
    def setup(platform: Platform) -> Outcome:
        if mode & 1:
            platform.second_stage().map(0, 0x7000)
        else:
            platform.legacy().map(0, 0x7000)
        platform.set_root(platform.root, mode)
        return platform.read(0)

    assert answers(make_platform, setup) == [fault(Reason.ROOT_TABLE_ADDRESS), page(0x7000)]


def test_a_unit_without_scalable_mode_looks_at_no_mode(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.legacy().map(0, 0x7000)
        platform.set_root(platform.root, 1)
        return platform.read(0)

    found = answers(make_platform, setup, smts=0)
    assert found == [fault(Reason.ROOT_TABLE_ADDRESS), page(0x7000)]


def test_dirty_tracking_that_there_is_not_is_ignored(make_platform: MakePlatform) -> None:
    found = []

    def setup(platform: Platform) -> Outcome:
        space = platform.second_stage(ssade=1)
        space.map(0, 0x7000)
        before = platform.load(space.entry(0, 1))
        outcome = platform.write_to(0)
        found.append(platform.load(space.entry(0, 1)) == before)
        return outcome

    expected = [fault(Reason.PASID_INVALID), page(0x7000)]
    assert answers(make_platform, setup, ssads=0) == expected
    assert found == [True, True], "A and D of the leaf"


def test_pass_through_takes_any_width(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.context(tt=2, aw=AW[3])
        return platform.read(0)

    untranslated = Translation(0, (1 << HAW) - 1)
    assert answers(make_platform, setup) == [fault(Reason.CONTEXT_INVALID), untranslated]


def test_rid_pasid_without_the_capability(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.scalable_context(rid_pasid=9)
        platform.first_stage(pasid=9, domain=1).map(0, 0x7000)
        platform.first_stage(pasid=0, domain=2).map(0, 0x8000)
        return platform.read(0)

    assert answers(make_platform, setup, rps=0) == [page(0x8000), page(0x7000)]
    assert setup(make_platform(dialect="qemu", rps=0)) == page(0x8000)


def test_no_extended_accessed_bit_without_the_capability(make_platform: MakePlatform) -> None:
    def accessed(eafs: int) -> list[int]:
        platform = make_platform(dialect=QEMU, eafs=eafs)
        space = platform.first_stage(eafe=1)
        space.map(0, 0x7000)
        assert platform.read(0) == page(0x7000)
        shape = layout(FirstStageEntry)
        entry = (platform.load(space.entry(0, 1)),)
        return [shape[name].get(entry) for name in ("a", "ea")]

    assert accessed(eafs=1) == [1, 1]
    assert accessed(eafs=0) == [1, 0]


# -- the walk ------------------------------------------------------------------------------------


def test_the_snoop_bit_of_a_leaf_in_a_scalable_unit(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.legacy().map(0, 0x7000, snp=1)
        return platform.read(0)

    reserved = fault(Reason.SECOND_STAGE_RESERVED)
    assert answers(make_platform, setup, sc=0) == [reserved, page(0x7000)]
    assert answers(make_platform, setup, sc=0, smts=0) == [reserved, reserved]


def test_execute_disable_is_ignored(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.first_stage(nxe=0).map(0, 0x7000, xd=1)
        return platform.read(0)

    assert answers(make_platform, setup) == [fault(Reason.FS_RESERVED), page(0x7000)]


def test_first_stage_rights_are_asked_level_by_level(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        space = platform.first_stage()
        space.map(0, 0x7000, p=0)
        space.change(0, 4, us=0)
        return platform.read(0)

    assert answers(make_platform, setup) == [fault(Reason.FS_NOT_PRESENT), fault(Reason.FS_USER)]


def test_a_page_that_overlaps_the_interrupt_range(make_platform: MakePlatform) -> None:
    def legacy(platform: Platform) -> Outcome:
        platform.legacy().map(0, 3 * GIBI, level=3)
        return platform.read(0)

    def scalable(platform: Platform) -> Outcome:
        platform.second_stage().map(0, 3 * GIBI, level=3)
        return platform.read(0)

    whole = Translation(3 * GIBI, GIBI - 1)
    assert answers(make_platform, legacy) == [whole, fault(Reason.INTERRUPT_RANGE)]
    assert answers(make_platform, scalable) == [whole, fault(Reason.SM_INTERRUPT_RANGE)]


@pytest.mark.parametrize(
    ("output", "overlaps"),
    [(0xFEC0_0000, False), (0xFEE0_0000, True), (0xFF00_0000, False)],
)
def test_a_page_beside_the_interrupt_range(
    make_platform: MakePlatform, output: int, overlaps: bool
) -> None:
    platform = make_platform(dialect=QEMU)
    platform.legacy().map(0, output, level=2)
    assert (platform.read(0x1F_F000) == fault(Reason.INTERRUPT_RANGE)) is overlaps


@pytest.mark.parametrize(
    ("stage", "level", "spec", "qemu"),
    [
        ("first", 4, Reason.FS_RESERVED, Reason.FS_ROOT_ACCESS),
        ("first", 1, Reason.FS_RESERVED, Reason.FS_ACCESS),
        ("legacy", 4, Reason.SECOND_STAGE_RESERVED, Reason.CONTEXT_INVALID),
        ("legacy", 1, Reason.SECOND_STAGE_RESERVED, Reason.SECOND_STAGE_ACCESS),
    ],
)
def test_an_entry_of_all_ones_is_taken_for_a_failed_read(
    make_platform: MakePlatform, stage: str, level: int, spec: Reason, qemu: Reason
) -> None:
    def setup(platform: Platform) -> Outcome:
        space = platform.legacy() if stage == "legacy" else platform.first_stage()
        platform.store(space.entry(0, level), (1 << 64) - 1)
        return platform.read(0)

    assert answers(make_platform, setup) == [fault(spec), fault(qemu)]


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "expected"), [("spec", False), (QEMU, True), ("qemu", True)])
def test_reserved_bits_of_a_context_entry_are_recorded_in_spite_of_fpd(
    make_platform: MakePlatform, dialect: str, expected: bool
) -> None:
    platform = make_platform(dialect=dialect)
    platform.store(at := platform.context(fpd=1), platform.load(at) | 1 << 4)
    assert platform.read(0) == fault(Reason.CONTEXT_RESERVED)
    assert any(isinstance(seen, FaultRecord) for seen in platform.observed()) is expected


def test_the_pasid_fields_of_a_fault_record_are_not_compared() -> None:
    shape = layout(FaultRecordRegister)
    assert DIALECTS[QEMU].fault_record_ignored == shape.mask("pp", "pv")
    assert DIALECTS["qemu"].fault_record_ignored == 0


# -- the queue -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "resumes"), [("spec", True), (QEMU, False)])
def test_clearing_a_queue_error_resumes_the_queue(
    make_platform: MakePlatform, dialect: str, resumes: bool
) -> None:
    platform = make_platform(dialect=dialect)
    ring = platform.start_queue()
    status = platform.page()
    platform.submit((0xF, 0), descriptor(InvalidationWait, sw=1, stdata=1, staddr=status >> 2))
    assert platform.field(vtd.FSTS, "iqe") == 1
    platform.store(ring.base, *descriptor(InvalidationWait, sw=1, stdata=2, staddr=status >> 2))
    platform.observed()
    platform.program(vtd.FSTS, 1 << 4)
    assert (platform.register(vtd.IQH) == platform.register(vtd.IQT)) is resumes
    platform.program(vtd.IQT, ring.tail)
    assert platform.register(vtd.IQH) == ring.tail
    written = [seen.value for seen in platform.observed() if isinstance(seen, StatusWrite)]
    assert written == [2, 1]


@pytest.mark.parametrize(("dialect", "traced"), [("spec", 1), (QEMU, 0), ("qemu", 1)])
def test_pasid_cache_invalidations_may_leave_no_trace(
    make_platform: MakePlatform, dialect: str, traced: int
) -> None:
    platform = make_platform(dialect=dialect)
    platform.start_queue(wide=True)
    platform.submit(descriptor(PasidCacheInvalidation, g=3, did=DOMAIN))
    assert sum(isinstance(seen, Descriptor) for seen in platform.observed()) == traced
    assert platform.field(vtd.IQERCD, "iqei") == QueueError.NONE


def test_both_halves_of_a_scalable_root_entry_are_checked(make_platform: MakePlatform) -> None:
    def setup(platform: Platform) -> Outcome:
        platform.first_stage().map(0, 0x7000)
        platform.write(platform.root, build(RootEntry, p=1, ctp=platform.contexts[0] >> 12))
        platform.store(platform.root + 8, 0b11)
        return platform.read(0)

    expected = [fault(Reason.SM_ROOT_RESERVED), fault(Reason.ROOT_RESERVED)]
    assert answers(make_platform, setup) == expected
