"""The register page as software sees it (VT-d chapter 11)."""

from __future__ import annotations

import pytest

from decoders.vtd import registers as vtd
from decoders.vtd.registers import REGISTERS, Register
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import Platform

ONES = (1 << 64) - 1
IM = 1 << 31
SIDE_EFFECTS = ("GCMD", "CCMD")
"""Registers where a write does more than to change bits."""
PLAIN = [register for register in REGISTERS.values() if register.name not in SIDE_EFFECTS]
EVERY = dict.fromkeys(("afl", "plmr", "phmr", "ecmds", "eim", "prs", "mts", "pms"), 1)
"""Capabilities without which a unit lacks registers."""


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    """Make a platform whose unit has every register."""
    return make_platform(**EVERY)


def ones(register: Register) -> int:
    return (1 << 8 * register.size) - 1


# -- reset ---------------------------------------------------------------------------------------


def test_reset_values(platform: Platform) -> None:
    expected = {
        "VER": 0x10,
        "CAP": platform.config.capability,
        "ECAP": platform.config.extended_capability,
        "FECTL": IM,
        "IECTL": IM,
        "PECTL": IM,
    }
    for register in REGISTERS.values():
        assert platform.register(register) == expected.get(register.name, 0), register.name


def test_a_reset_gives_them_back(platform: Platform) -> None:
    before = {register.name: platform.register(register) for register in REGISTERS.values()}
    for register in PLAIN:
        platform.program(register, ones(register))
    changed = [r.name for r in REGISTERS.values() if platform.register(r) != before[r.name]]
    assert len(changed) > 30
    platform.unit.reset()
    assert {r.name: platform.register(r) for r in REGISTERS.values()} == before


@pytest.mark.parametrize(
    ("lacking", "absent", "left"),
    [
        ("afl", ["AFLOG"], ["PMEN"]),
        ("plmr", ["PLMBASE", "PLMLIMIT"], ["PMEN", "PHMBASE"]),
        ("phmr", ["PHMBASE", "PHMLIMIT"], ["PMEN", "PLMBASE"]),
        ("plmr phmr", ["PMEN"], ["AFLOG"]),
        ("eim", ["FEUADDR", "IEUADDR"], ["FEADDR", "IEADDR"]),
        ("prs", ["PQA", "PECTL", "PEDATA", "PEADDR"], ["IQA", "IECTL"]),
        ("mts", ["MTRRDEF", "MTRR_PHYSMASK9"], ["PMEN"]),
        ("pms", ["PERFINTRCTL"], ["PMEN"]),
        ("ecmds", ["ECMD", "ECEO"], ["PMEN"]),
    ],
)
def test_what_is_not_announced_is_not_there(
    make_platform: MakePlatform, lacking: str, absent: list[str], left: list[str]
) -> None:
    platform = make_platform(**EVERY | dict.fromkeys(lacking.split(), 0))
    for name in absent + left:
        register = REGISTERS[name]
        platform.program(register, ones(register))
        assert bool(platform.register(register)) == (name in left), name


# -- writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", PLAIN, ids=lambda register: register.name)
def test_only_writable_bits_can_be_written(platform: Platform, register: Register) -> None:
    reset = platform.register(register)
    platform.program(register, ones(register))
    assert platform.register(register) == reset & ~register.writable | register.writable
    platform.program(register, 0)
    assert platform.register(register) == reset & ~register.writable


@pytest.mark.parametrize(
    ("register", "written", "read"),
    [
        (vtd.RTADDR, ONES, ONES & ~0x3FF),
        (vtd.FECTL, 0x7FFFFFFF, 0),
        (vtd.FECTL, 0xFFFFFFFF, IM),
        (vtd.FEDATA, 0xFFFFFFFF, 0xFFFF),
        (vtd.FEADDR, 0xFFFFFFFF, 0xFFFFFFFC),
        (vtd.FEUADDR, 0xFFFFFFFF, 0xFFFFFFFF),
        (vtd.IQT, ONES, 0x7FFF0),
        (vtd.IQA, ONES, ONES & ~0x7F8),
        (vtd.IQH, ONES, 0),
        (vtd.IEADDR, 0xFFFFFFFF, 0xFFFFFFFC),
        (vtd.IRTA, ONES, ONES & ~0x7F0),
        (vtd.PQA, ONES, ONES & ~0xFF8),
        (vtd.PMEN, 0xFFFFFFFF, IM),
        (vtd.GSTS, 0xFFFFFFFF, 0),
        (vtd.IQERCD, ONES, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Register) else hex(value),
)
def test_masks(platform: Platform, register: Register, written: int, read: int) -> None:
    platform.program(register, written)
    assert platform.register(register) == read


def test_capabilities_cannot_be_written(platform: Platform) -> None:
    for register in (vtd.VER, vtd.CAP, vtd.ECAP):
        before = platform.register(register)
        platform.program(register, ~before & ones(register))
        assert platform.register(register) == before


def test_write_only_fields_read_as_zero(platform: Platform) -> None:
    platform.program(vtd.GCMD, 1 << 23)
    assert platform.register(vtd.GCMD) == 0
    platform.program(vtd.IVA, 0x1234_5012)
    assert platform.register(vtd.IVA) == 0
    platform.program(vtd.CCMD, 0x3_FFFF_1234)
    assert platform.register(vtd.CCMD) == 0x1234


@pytest.mark.parametrize("register", [vtd.RTADDR, vtd.IQA, vtd.IRTA, vtd.PHMBASE])
def test_halves_of_eight_bytes(platform: Platform, register: Register) -> None:
    unit, offset = platform.unit, register.offset
    platform.program(register, 0x1111_1000_2222_2000)
    assert unit.read_register(offset, 4) == 0x2222_2000
    assert unit.read_register(offset + 4, 4) == 0x1111_1000
    unit.write_register(offset, 4, 0x3333_3000)
    assert platform.register(register) == 0x1111_1000_3333_3000
    unit.write_register(offset + 4, 4, 0x4444_4000)
    assert platform.register(register) == 0x4444_4000_3333_3000


def test_eight_bytes_reach_two_registers(platform: Platform) -> None:
    unit = platform.unit
    unit.write_register(vtd.FEADDR.offset, 8, 0x1_FEE0_1000)
    assert platform.register(vtd.FEADDR) == 0xFEE0_1000
    assert platform.register(vtd.FEUADDR) == 1
    assert unit.read_register(vtd.FEADDR.offset, 8) == 0x1_FEE0_1000


def test_a_command_may_be_written_with_eight_bytes(platform: Platform) -> None:
    platform.unit.write_register(vtd.GCMD.offset, 8, 1 << 31)
    assert platform.field(vtd.GSTS, "tes") == 1


@pytest.mark.parametrize("size", [1, 2])
def test_small_accesses_are_not_taken(platform: Platform, size: int) -> None:
    platform.program(vtd.FEADDR, 0x1234_5678)
    platform.unit.write_register(vtd.FEADDR.offset, size, 0xFF)
    assert platform.register(vtd.FEADDR) == 0x1234_5678
    assert platform.unit.read_register(vtd.FEADDR.offset, size) == (1 << 8 * size) - 1


@pytest.mark.parametrize("offset", [0x41, 0x42, 0x43])
def test_accesses_that_are_not_aligned_are_not_taken(platform: Platform, offset: int) -> None:
    platform.program(vtd.FEADDR, 0x1234_5678)
    platform.unit.write_register(offset, 4, ONES >> 32)
    assert platform.register(vtd.FEADDR) == 0x1234_5678
    assert platform.unit.read_register(offset, 4) == ONES >> 32


@pytest.mark.parametrize("offset", [0x6000, 0x5FFC, 0xFFFFFFF8])
def test_accesses_beyond_the_page_are_not_taken(platform: Platform, offset: int) -> None:
    platform.unit.write_register(offset, 8, ONES)
    assert platform.unit.read_register(offset, 8) == ONES


def test_what_is_no_register_reads_as_zero(platform: Platform) -> None:
    platform.unit.write_register(0x700, 8, ONES)
    assert platform.unit.read_register(0x700, 8) == 0


# -- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [("te", "tes"), ("eafl", "afls"), ("qie", "qies"), ("ire", "ires"), ("cfi", "cfis")],
)
def test_level_commands_are_followed(platform: Platform, command: str, status: str) -> None:
    platform.command(**{command: 1})
    assert platform.field(vtd.GSTS, status) == 1
    platform.command(**{command: 0})
    assert platform.field(vtd.GSTS, status) == 0


@pytest.mark.parametrize(("command", "status"), [("srtp", "rtps"), ("sirtp", "irtps")])
def test_one_shot_commands_stay_done(platform: Platform, command: str, status: str) -> None:
    platform.command(**{command: 1})
    assert platform.field(vtd.GSTS, status) == 1
    platform.command(te=1)
    assert platform.field(vtd.GSTS, status) == 1


def test_a_flushed_write_buffer_is_done_at_once(platform: Platform) -> None:
    platform.command(wbf=1)
    assert platform.field(vtd.GSTS, "wbfs") == 0


def test_a_command_keeps_the_levels_that_are_set(platform: Platform) -> None:
    platform.command(te=1)
    platform.command(qie=1)
    assert (platform.field(vtd.GSTS, "tes"), platform.field(vtd.GSTS, "qies")) == (1, 1)


# -- placement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("iro", "fro"), [(0x10, 0x40), (0x3FF, 0x200), (0x20, 0x3FF)])
def test_capabilities_place_registers(make_platform: MakePlatform, iro: int, fro: int) -> None:
    platform = make_platform(iro=iro, fro=fro)
    assert platform.place(vtd.IOTLB) == 16 * iro + 8
    assert platform.place(vtd.FRCD_LOW) == 16 * fro
    platform.program(vtd.IOTLB, 1 << 63 | 1 << 60)
    assert platform.field(vtd.IOTLB, "iaig") == 1
    platform.context()
    platform.read(0x1000)
    assert platform.field(vtd.FRCD_HIGH, "f") == 1


def test_the_version_is_the_one_of_the_unit(make_platform: MakePlatform) -> None:
    platform = make_platform()
    assert platform.register(vtd.VER) == platform.config.version == 0x10
