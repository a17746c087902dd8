"""The register page."""

from __future__ import annotations

from itertools import pairwise

import pytest

from decoders.layout import layout
from decoders.vtd import Capability, ExtendedCapability, build, decode, words
from decoders.vtd import registers as r
from decoders.vtd.registers import REGISTERS, Kind, Register, register_map

# Linux drivers/iommu/intel/iommu.h, DMAR_*_REG.
OFFSETS = {
    "VER": 0x00,
    "CAP": 0x08,
    "ECAP": 0x10,
    "GCMD": 0x18,
    "GSTS": 0x1C,
    "RTADDR": 0x20,
    "CCMD": 0x28,
    "FSTS": 0x34,
    "FECTL": 0x38,
    "FEDATA": 0x3C,
    "FEADDR": 0x40,
    "FEUADDR": 0x44,
    "AFLOG": 0x58,
    "PMEN": 0x64,
    "PLMBASE": 0x68,
    "PLMLIMIT": 0x6C,
    "PHMBASE": 0x70,
    "PHMLIMIT": 0x78,
    "IQH": 0x80,
    "IQT": 0x88,
    "IQA": 0x90,
    "ICS": 0x9C,
    "IECTL": 0xA0,
    "IEDATA": 0xA4,
    "IEADDR": 0xA8,
    "IEUADDR": 0xAC,
    "IQERCD": 0xB0,
    "IRTA": 0xB8,
    "PQH": 0xC0,
    "PQT": 0xC8,
    "PQA": 0xD0,
    "PRS": 0xDC,
    "PECTL": 0xE0,
    "PEDATA": 0xE4,
    "PEADDR": 0xE8,
    "PEUADDR": 0xEC,
    "MTRRCAP": 0x100,
    "MTRRDEF": 0x108,
    "MTRR_FIX64K_00000": 0x120,
    "MTRR_FIX16K_80000": 0x128,
    "MTRR_FIX16K_A0000": 0x130,
    "MTRR_FIX4K_C0000": 0x138,
    "MTRR_FIX4K_F8000": 0x170,
    "MTRR_PHYSBASE0": 0x180,
    "MTRR_PHYSMASK9": 0x218,
    "PERFCAP": 0x300,
    "PERFCFGOFF": 0x310,
    "PERFOVFOFF": 0x318,
    "PERFCNTROFF": 0x31C,
    "PERFINTRSTS": 0x324,
    "PERFINTRCTL": 0x328,
    "PERFEVNTCAP": 0x380,
    "ECMD": 0x400,
    "ECEO": 0x408,
    "ECRSP": 0x410,
    "ECCAP0": 0x430,
    "ECCAP3": 0x448,
}

# QEMU vtd_init: reset value, writable, cleared by writing 1, reads as zero.
QEMU = {
    "VER": (0x10, 0, 0, 0),
    "GCMD": (0, 0xFF800000, 0, 0xFF800000),
    "GSTS": (0, 0, 0, 0),
    "RTADDR": (0, 0xFFFFFFFF_FFFFFC00, 0, 0),
    "CCMD": (0, 0xE0000003_FFFFFFFF, 0, 0x3_FFFF0000),
    "FECTL": (0x80000000, 0x80000000, 0, 0),
    "FEDATA": (0, 0xFFFF, 0, 0),
    "FEADDR": (0, 0xFFFFFFFC, 0, 0),
    "IQH": (0, 0, 0, 0),
    "IQT": (0, 0x7FFF0, 0, 0),
    "IQA": (0, 0xFFFFFFFF_FFFFF807, 0, 0),
    "ICS": (0, 0, 1, 0),
    "IECTL": (0x80000000, 0x80000000, 0, 0),
    "IEDATA": (0, 0xFFFFFFFF, 0, 0),
    "IEADDR": (0, 0xFFFFFFFC, 0, 0),
    "IRTA": (0, 0xFFFFFFFF_FFFFF80F, 0, 0),
    "IOTLB": (0, 0xB003FFFF_00000000, 0, 0),
    "IVA": (0, 0xFFFFFFFF_FFFFF07F, 0, 0xFFFFFFFF_FFFFF07F),
    "FRCD_LOW": (0, 0, 0, 0),
    "FRCD_HIGH": (0, 0, 1 << 63, 0),
}
PLACED = {"IOTLB": r.IOTLB, "IVA": r.IVA, "FRCD_LOW": r.FRCD_LOW, "FRCD_HIGH": r.FRCD_HIGH}


def test_offsets() -> None:
    assert {name: REGISTERS[name].offset for name in OFFSETS} == OFFSETS


@pytest.mark.parametrize("name", QEMU)
def test_masks_are_those_of_qemu(name: str) -> None:
    register = (REGISTERS | PLACED)[name]
    found = (register.reset, register.writable, register.w1c, register.write_only)
    assert found == QEMU[name]


def test_masks_where_qemu_lacks_the_feature() -> None:
    assert r.FSTS.w1c == 0xFD  # QEMU: 0x11
    assert r.FEUADDR.writable == r.IEUADDR.writable == 0xFFFFFFFF  # QEMU: 0 without x2APIC mode
    assert r.PMEN.writable == 1 << 31  # QEMU: 0
    assert r.PRS.w1c == 0x3
    assert (r.PQH.writable, r.PQT.writable, r.PQA.writable) == (0x7FFE0, 0x7FFE0, 2**64 - 4089)


@pytest.mark.parametrize("register", REGISTERS.values(), ids=lambda register: register.name)
def test_a_register_is_consistent(register: Register) -> None:
    every = (1 << register.size * 8) - 1
    assert register.size in (4, 8)
    assert register.offset % register.size == 0
    assert (register.reset | register.writable | register.w1c) & ~every == 0
    assert register.writable & register.w1c == 0
    assert register.write_only & ~register.writable == 0
    if register.fields is not None:
        place = layout(register.fields)
        assert place.size == register.size
        assert (register.writable | register.w1c) & place.reserved[0] == 0
    if register.access is Kind.RO:
        assert register.writable == register.w1c == 0
    if register.access is Kind.RW1C:
        assert register.w1c
    if register.access is Kind.WO:
        assert register.write_only == register.writable


@pytest.mark.parametrize(
    "table",
    [REGISTERS, r.VIRTUAL_COMMAND_A, r.VIRTUAL_COMMAND_B],
    ids=["fixed", "virtual A", "virtual B"],
)
def test_registers_do_not_overlap(table: dict[str, Register]) -> None:
    ranges = sorted((x.offset, x.offset + x.size) for x in table.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))


def test_commands_are_level_or_one_shot() -> None:
    assert r.LEVEL_COMMANDS & r.ONE_SHOT_COMMANDS == 0
    assert r.GCMD.writable == r.LEVEL_COMMANDS | r.ONE_SHOT_COMMANDS
    assert r.LEVEL_COMMANDS == 0x96800000


def test_status_bits_are_where_their_commands_are() -> None:
    assert r.GSTS.fields is not None
    assert layout(r.GSTS.fields).reserved == layout(r.GlobalCommand).reserved


# Where QEMU (IRO 0xf, FRO 0x22) and OpenVMM (0x10, 0x12) put them.
@pytest.mark.parametrize(
    ("iro", "fro", "iva", "iotlb", "frcd"),
    [(0xF, 0x22, 0xF0, 0xF8, 0x220), (0x10, 0x12, 0x100, 0x108, 0x120)],
)
def test_placed_registers(iro: int, fro: int, iva: int, iotlb: int, frcd: int) -> None:
    (cap,) = words(build(Capability, fro=fro, nfr=1))
    (ecap,) = words(build(ExtendedCapability, iro=iro))
    assert (r.iva_offset(ecap), r.iotlb_offset(ecap)) == (iva, iotlb)
    assert r.fault_record_count(cap) == 2
    assert [r.fault_record_offset(cap, index) for index in (0, 1)] == [frcd, frcd + 16]


def test_the_map_of_a_unit() -> None:
    (cap,) = words(build(Capability, fro=0x22, nfr=1))
    (ecap,) = words(build(ExtendedCapability, iro=0xF))
    found = register_map(cap, ecap)
    assert all(register.offset == offset for offset, register in found.items())
    assert {register.name for register in found.values()}.isdisjoint({"PQA", "PMEN", "MTRRCAP"})
    assert {*REGISTERS} < {register.name for register in r.register_names(cap, ecap).values()}
    names = {offset: found[offset].name for offset in (0xF0, 0xF8, 0x220, 0x228, 0x230, 0x238)}
    assert names == {
        0xF0: "IVA",
        0xF8: "IOTLB",
        0x220: "FRCD0_LOW",
        0x228: "FRCD0_HIGH",
        0x230: "FRCD1_LOW",
        0x238: "FRCD1_HIGH",
    }


def test_a_register_may_stand_where_others_have_one() -> None:
    # OpenVMM's unit has IVA and IOTLB where MTRRCAP and MTRRDEF would be.
    (ecap,) = words(build(ExtendedCapability, iro=0x10))
    assert [register_map(0, ecap)[offset].name for offset in (0x100, 0x108)] == ["IVA", "IOTLB"]
    (ecap,) = words(build(ExtendedCapability, iro=0x10, mts=1))
    assert register_map(0, ecap)[0x100] is REGISTERS["MTRRCAP"]


def test_a_unit_cannot_hide_a_fixed_register() -> None:
    found = register_map(0, 0)
    assert found[0x8] is r.CAP
    assert found[0x0] is r.VER


def test_qemus_capabilities() -> None:
    # -device intel-iommu of QEMU 10.0: 48 bits, one fault record, 18 bits of address mask.
    cap = decode(Capability, [0x00D2008C22260286], "CAP")
    assert (cap.nd, cap.cm, cap.sagaw, cap.mgaw) == (6, 1, 2, 38)
    assert (cap.fro, cap.sslps, cap.psi, cap.nfr, cap.mamv) == (0x22, 3, 1, 0, 18)
    assert (cap.dwd, cap.drd) == (1, 1)
