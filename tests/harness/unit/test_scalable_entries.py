"""Scalable mode: root, context, PASID directory and PASID table (VT-d 3.4.3, 9.2 to 9.6)."""

from __future__ import annotations

import pytest

from decoders.events import Outcome, Translation
from decoders.vtd.faults import Reason
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import AW, DEVICE, OUTSIDE, Platform, fault, page

HAW = 46
UNTRANSLATED = Translation(0, (1 << HAW) - 1)
UPPER = 0x0090
"""A source id whose function is served by the upper half of a root entry."""


def set_bit(platform: Platform, at: int, bit: int) -> None:
    platform.store(at, platform.load(at) | 1 << bit)


def test_requests_with_and_without_pasid_are_translated(platform: Platform) -> None:
    platform.first_stage().map(0x1000, 0x7000)
    platform.first_stage(pasid=0x12345, domain=2).map(0x1000, 0x8000)
    assert platform.read(0x1000) == page(0x7000)
    assert platform.read(0x1000, pasid=0x12345) == page(0x8000)


def test_the_function_selects_the_half_of_the_root_entry(platform: Platform) -> None:
    platform.first_stage(sid=DEVICE, domain=1).map(0x1000, 0x7000)
    platform.first_stage(sid=UPPER, domain=2).map(0x1000, 0x8000)
    platform.first_stage(sid=0x7F00 | UPPER, domain=3).map(0x1000, 0x9000)
    assert platform.read(0x1000, sid=DEVICE) == page(0x7000)
    assert platform.read(0x1000, sid=UPPER) == page(0x8000)
    assert platform.read(0x1000, sid=0x7F00 | UPPER) == page(0x9000)


# -- root entries --------------------------------------------------------------------------------


def test_a_root_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.set_root(OUTSIDE, 1)
    platform.command(te=1)
    assert platform.read(0x1000) == fault(Reason.SM_ROOT_ACCESS)


@pytest.mark.parametrize(("sid", "other"), [(DEVICE, UPPER), (UPPER, DEVICE)])
def test_each_half_of_a_root_entry_has_its_present_bit(
    platform: Platform, sid: int, other: int
) -> None:
    platform.first_stage(sid=other).map(0x1000, 0x7000)
    assert platform.read(0x1000, sid=sid) == fault(Reason.SM_ROOT_NOT_PRESENT)
    assert platform.read(0x1000, sid=other) == page(0x7000)


@pytest.mark.parametrize("sid", [DEVICE, UPPER])
@pytest.mark.parametrize("bit", [1, 11, HAW, 52, 63])
def test_reserved_bits_of_a_root_entry(platform: Platform, sid: int, bit: int) -> None:
    platform.first_stage(sid=sid).map(0x1000, 0x7000)
    set_bit(platform, platform.root + 8 * (sid >> 7), bit)
    assert platform.read(0x1000, sid=sid) == fault(Reason.SM_ROOT_RESERVED)


# -- context entries -----------------------------------------------------------------------------


def test_a_context_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.start(1)
    platform.store(platform.root, OUTSIDE | 1)
    assert platform.read(0x1000) == fault(Reason.SM_CONTEXT_ACCESS)


def test_a_context_entry_that_is_not_present_faults(platform: Platform) -> None:
    platform.scalable_context(p=0)
    assert platform.read(0x1000) == fault(Reason.SM_CONTEXT_NOT_PRESENT)


@pytest.mark.parametrize(
    ("word", "bit"),
    [(0, 5), (0, 8), (0, HAW), (0, 52), (0, 63), (1, 21), (1, 63), (2, 0), (2, 63), (3, 0)],
)
def test_reserved_bits_of_a_context_entry(platform: Platform, word: int, bit: int) -> None:
    at = platform.scalable_context()
    set_bit(platform, at + 8 * word, bit)
    assert platform.read(0x1000) == fault(Reason.SM_CONTEXT_RESERVED)


def test_a_request_with_pasid_needs_pasid_enable(platform: Platform) -> None:
    platform.scalable_context(paside=0)
    platform.first_stage().map(0x1000, 0x7000)
    platform.first_stage(pasid=3).map(0x1000, 0x8000)
    assert platform.read(0x1000, pasid=3) == fault(Reason.SM_PASID_DISABLED)
    assert platform.read(0x1000) == page(0x7000)


@pytest.mark.parametrize(("size", "last"), [(0, (1 << 13) - 1), (3, (1 << 16) - 1)])
def test_the_directory_size_bounds_pasids(platform: Platform, size: int, last: int) -> None:
    platform.scalable_context(pdts=size)
    platform.first_stage(pasid=last).map(0x1000, 0x7000)
    platform.first_stage(pasid=last + 1).map(0x1000, 0x8000)
    assert platform.read(0x1000, pasid=last) == page(0x7000)
    assert platform.read(0x1000, pasid=last + 1) == fault(Reason.SM_PASID_BEYOND_DIRECTORY)


def test_the_directory_size_bounds_the_pasid_of_other_requests(platform: Platform) -> None:
    platform.scalable_context(pdts=0, rid_pasid=1 << 13)
    platform.first_stage(pasid=1 << 13).map(0x1000, 0x7000)
    assert platform.read(0x1000) == fault(Reason.SM_RID_PASID_BEYOND_DIRECTORY)


def test_requests_without_pasid_use_the_one_of_the_context_entry(platform: Platform) -> None:
    platform.scalable_context(rid_pasid=9)
    platform.first_stage(pasid=9).map(0x1000, 0x7000)
    assert platform.read(0x1000) == page(0x7000)


def test_requests_without_pasid_use_zero_without_the_capability(
    make_platform: MakePlatform,
) -> None:
    platform = make_platform(rps=0)
    platform.scalable_context(rid_pasid=9)
    platform.first_stage(pasid=9, domain=1).map(0x1000, 0x7000)
    platform.first_stage(pasid=0, domain=2).map(0x1000, 0x8000)
    assert platform.read(0x1000) == page(0x8000)


# -- PASID directory -----------------------------------------------------------------------------


def test_a_directory_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.scalable_context(pasiddirptr=OUTSIDE >> 12)
    assert platform.read(0x1000) == fault(Reason.PASID_DIRECTORY_ACCESS)


def test_a_directory_entry_that_is_not_present_faults(platform: Platform) -> None:
    platform.scalable_context()
    assert platform.read(0x1000) == fault(Reason.PASID_DIRECTORY_NOT_PRESENT)


@pytest.mark.parametrize("bit", [2, 11, HAW, 52, 63])
def test_reserved_bits_of_a_directory_entry(platform: Platform, bit: int) -> None:
    platform.first_stage().map(0x1000, 0x7000)
    set_bit(platform, platform.directories[DEVICE], bit)
    assert platform.read(0x1000) == fault(Reason.PASID_DIRECTORY_RESERVED)


# -- PASID table ---------------------------------------------------------------------------------


def test_a_pasid_entry_that_cannot_be_read_faults(make_platform: MakePlatform) -> None:
    platform = make_platform(ram=True)
    platform.directory_entry(smptblptr=OUTSIDE >> 12)
    assert platform.read(0x1000) == fault(Reason.PASID_ACCESS)


def test_a_pasid_entry_that_is_not_present_faults(platform: Platform) -> None:
    platform.pasid_entry(p=0, pgtt=1)
    assert platform.read(0x1000) == fault(Reason.PASID_NOT_PRESENT)


def test_present_is_tested_before_the_type_of_a_pasid_entry(platform: Platform) -> None:
    platform.pasid_entry(p=0, pgtt=7)
    assert platform.read(0x1000) == fault(Reason.PASID_NOT_PRESENT)


@pytest.mark.parametrize(
    ("word", "bit"),
    [
        *((0, bit) for bit in (10, 11, HAW, 63)),
        *((1, bit) for bit in (16, 22)),
        *((2, bit) for bit in (8, 11, HAW, 63)),
        (3, 0),
        (7, 63),
    ],
)
def test_reserved_bits_of_a_pasid_entry(platform: Platform, word: int, bit: int) -> None:
    at = platform.pasid_entry(pgtt=4)
    set_bit(platform, at + 8 * word, bit)
    assert platform.read(0x1000) == fault(Reason.PASID_RESERVED)


@pytest.mark.parametrize("pgtt", [0, 3, 5, 6, 7])
def test_translation_types_that_a_unit_does_not_have(platform: Platform, pgtt: int) -> None:
    platform.pasid_entry(pgtt=pgtt, aw=AW[4])
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize(("pgtt", "capability"), [(1, "fsts"), (2, "ssts"), (4, "pt")])
def test_translation_types_need_their_capability(
    make_platform: MakePlatform, pgtt: int, capability: str
) -> None:
    platform = make_platform(**{capability: 0})
    platform.pasid_entry(pgtt=pgtt, aw=AW[4])
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize("aw", [0, 4, 7])
def test_second_stage_widths_that_mean_nothing(platform: Platform, aw: int) -> None:
    platform.pasid_entry(pgtt=2, aw=aw)
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_second_stage_widths_need_the_capability(make_platform: MakePlatform, levels: int) -> None:
    platform = make_platform(sagaw=0b1110 & ~(1 << AW[levels]))
    platform.second_stage(levels=levels).map(0x1000, 0x7000)
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize("fspm", [2, 3])
def test_first_stage_modes_that_mean_nothing(platform: Platform, fspm: int) -> None:
    platform.pasid_entry(pgtt=1, fspm=fspm)
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


def test_five_first_stage_levels_need_the_capability(make_platform: MakePlatform) -> None:
    platform = make_platform(fs5lp=0)
    platform.first_stage(levels=5).map(0x1000, 0x7000)
    assert platform.read(0x1000) == fault(Reason.PASID_INVALID)


@pytest.mark.parametrize(
    ("field", "capability"),
    [
        ("ssade", "ssads"),
        ("sre", "srs"),
        ("ere", "ers"),
        ("eafe", "eafs"),
        ("pgsnp", "sc"),
        ("cd", "mts"),
        ("emte", "mts"),
        ("emt", "mts"),
    ],
)
def test_what_a_pasid_entry_asks_for_needs_its_capability(
    make_platform: MakePlatform, field: str, capability: str
) -> None:
    answers: list[Outcome] = []
    for offered in (1, 0):
        platform = make_platform(**{capability: offered})
        platform.second_stage(**{field: 1}).map(0x1000, 0x7000)
        answers.append(platform.read(0x1000))
    assert answers == [page(0x7000), fault(Reason.PASID_INVALID)]


@pytest.mark.parametrize("pgtt", [1, 2])
def test_execute_requests_need_to_be_enabled(platform: Platform, pgtt: int) -> None:
    make = platform.first_stage if pgtt == 1 else platform.second_stage
    make(pasid=1, ere=0).map(0x1000, 0x7000)
    make(pasid=2, ere=1).map(0x1000, 0x7000)
    assert platform.execute(0x1000, pasid=1) == fault(Reason.PASID_EXECUTE_DISABLED)
    assert platform.execute(0x1000, pasid=2) == page(0x7000)


# -- pass-through --------------------------------------------------------------------------------


def test_pass_through(platform: Platform) -> None:
    platform.pasid_entry(pgtt=4)
    platform.pasid_entry(pasid=7, pgtt=4)
    assert platform.read(0x1234567) == UNTRANSLATED
    assert platform.write_to((1 << HAW) - 1, pasid=7) == UNTRANSLATED


def test_pass_through_ends_at_the_host_address_width(platform: Platform) -> None:
    platform.pasid_entry(pgtt=4)
    assert platform.read(1 << HAW) == fault(Reason.PASS_THROUGH_BEYOND_WIDTH)
