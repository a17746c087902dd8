"""The register page of a unit (VT-d chapter 11; Linux iommu.h).

REGISTERS holds the registers with a fixed place. The invalidation and fault recording registers
are where ECAP.IRO and CAP.FRO put them; register_map resolves those for one unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.register_fields import (
    AdvancedFaultLog,
    Capability,
    ContextCommand,
    EventAddress,
    EventData,
    ExtendedCapability,
    FaultEventControl,
    FaultStatus,
    GlobalCommand,
    GlobalStatus,
    Ics,
    InvalidationEventControl,
    InvalidationQueueAddress,
    InvalidationQueueHead,
    InvalidationQueueTail,
    IotlbRegister,
    Irta,
    Iva,
    PageRequestEventControl,
    PerformanceCapability,
    PerformanceInterruptStatus,
    Pqa,
    Pqh,
    Pqt,
    ProtectedMemoryEnable,
    Prs,
    QueueErrorRecord,
    RootTableAddress,
    Version,
    VirtualCommandA,
    VirtualCommandB,
    VirtualCommandCapability,
    VirtualResponseA,
    VirtualResponseB,
)

__all__ = [
    "AFLOG",
    "CAP",
    "CCMD",
    "ECAP",
    "ECEO",
    "ECMD",
    "ECRSP",
    "FEADDR",
    "FECTL",
    "FEDATA",
    "FEUADDR",
    "FRCD_HIGH",
    "FRCD_LOW",
    "FSTS",
    "GCMD",
    "GSTS",
    "ICS",
    "IEADDR",
    "IECTL",
    "IEDATA",
    "IEUADDR",
    "IOTLB",
    "IQA",
    "IQERCD",
    "IQH",
    "IQT",
    "IRTA",
    "IVA",
    "LEVEL_COMMANDS",
    "MTRRCAP",
    "MTRRDEF",
    "ONE_SHOT_COMMANDS",
    "PEADDR",
    "PECTL",
    "PEDATA",
    "PERFCAP",
    "PERFCFGOFF",
    "PERFCNTROFF",
    "PERFEVNTCAP",
    "PERFINTRCTL",
    "PERFINTRSTS",
    "PERFOVFOFF",
    "PEUADDR",
    "PHMBASE",
    "PHMLIMIT",
    "PLMBASE",
    "PLMLIMIT",
    "PMEN",
    "PQA",
    "PQH",
    "PQT",
    "PRS",
    "REGISTERS",
    "RTADDR",
    "VER",
    "VIRTUAL_COMMANDS",
    "VIRTUAL_COMMAND_A",
    "VIRTUAL_COMMAND_B",
    "AdvancedFaultLog",
    "Capability",
    "ContextCommand",
    "EventAddress",
    "EventData",
    "ExtendedCapability",
    "FaultEventControl",
    "FaultStatus",
    "GlobalCommand",
    "GlobalStatus",
    "Ics",
    "InvalidationEventControl",
    "InvalidationQueueAddress",
    "InvalidationQueueHead",
    "InvalidationQueueTail",
    "IotlbRegister",
    "Irta",
    "Iva",
    "Kind",
    "PageRequestEventControl",
    "PerformanceCapability",
    "PerformanceInterruptStatus",
    "Pqa",
    "Pqh",
    "Pqt",
    "ProtectedMemoryEnable",
    "Prs",
    "QueueErrorRecord",
    "Register",
    "RootTableAddress",
    "Version",
    "VirtualCommandA",
    "VirtualCommandB",
    "VirtualCommandCapability",
    "VirtualResponseA",
    "VirtualResponseB",
    "address_width",
    "fault_record_count",
    "fault_record_offset",
    "iotlb_offset",
    "iva_offset",
    "register_map",
    "register_names",
]


class Kind(StrEnum):
    """Say how software may use a register; the masks tell it bit by bit."""

    RO = "RO"
    RW = "RW"
    WO = "WO"
    RW1C = "RW1C"


@dataclass(frozen=True, slots=True)
class Register:
    """Describe one register: place, size in bytes, value after reset and what a write does.

    writable bits take the written value, w1c bits are cleared by writing 1, all others keep
    theirs; write_only bits read as zero. offset is relative to the base IRO or FRO gives for the
    registers placed by those. What a unit's capabilities decide (CAP, ECAP) resets to 0 here.
    A unit has the register when CAP or ECAP has one of the bits in capability or
    extended_capability, and always when both are 0.
    """

    name: str
    offset: int
    size: int
    access: Kind
    reset: int
    writable: int
    w1c: int
    write_only: int
    fields: type[Structure] | None
    capability: int = 0
    extended_capability: int = 0

    def present(self, cap: int, ecap: int) -> bool:
        """Say whether a unit with these capabilities has it."""
        needed = self.capability | self.extended_capability
        return not needed or bool(cap & self.capability | ecap & self.extended_capability)


REGISTERS: dict[str, Register] = {}
"""The registers with a fixed offset, by name."""


def _register(
    name: str,
    offset: int,
    size: int,
    access: Kind,
    fields: type[Structure] | None = None,
    *,
    word: int = 0,
    writable: str = "",
    w1c: str = "",
    write_only: str = "",
    reset: int = 0,
    cap: str = "",
    ecap: str = "",
    fixed: bool = True,
) -> Register:
    # Masks are given as names of fields. Unless it says otherwise a register is writable wherever
    # it is not reserved. word is the one of the structure that this register holds.
    def mask(names: str) -> int:
        return layout(fields).mask(*names.split()) if fields is not None else 0

    every = (1 << size * 8) - 1
    if fields is not None:
        every &= ~layout(fields).reserved[word]
    register = Register(
        name,
        offset,
        size,
        access,
        reset,
        every if access in (Kind.RW, Kind.WO) and not writable else mask(writable),
        mask(w1c),
        every if access is Kind.WO else mask(write_only),
        fields,
        layout(Capability).mask(*cap.split()),
        layout(ExtendedCapability).mask(*ecap.split()),
    )
    if fixed:
        REGISTERS[name] = register
    return register


_MGAW = layout(Capability)["mgaw"]
_IM = layout(FaultEventControl)["im"].mask

VER = _register("VER", 0x000, 4, Kind.RO, Version, reset=0x10)
CAP = _register("CAP", 0x008, 8, Kind.RO, Capability)
ECAP = _register("ECAP", 0x010, 8, Kind.RO, ExtendedCapability)
GCMD = _register("GCMD", 0x018, 4, Kind.WO, GlobalCommand)
GSTS = _register("GSTS", 0x01C, 4, Kind.RO, GlobalStatus)
RTADDR = _register("RTADDR", 0x020, 8, Kind.RW, RootTableAddress)
CCMD = _register(
    "CCMD", 0x028, 8, Kind.RW, ContextCommand, writable="did sid fm cirg icc", write_only="sid fm"
)
# QEMU makes only PFO and IQE writable: it never sets the others.
FSTS = _register("FSTS", 0x034, 4, Kind.RW1C, FaultStatus, w1c="pfo afo apf iqe ice ite pro")
FECTL = _register("FECTL", 0x038, 4, Kind.RW, FaultEventControl, writable="im", reset=_IM)
FEDATA = _register("FEDATA", 0x03C, 4, Kind.RW, EventData, writable="imd")
FEADDR = _register("FEADDR", 0x040, 4, Kind.RW, EventAddress)
# Without extended interrupt mode a unit may have no upper halves of addresses.
FEUADDR = _register("FEUADDR", 0x044, 4, Kind.RW, ecap="eim")
AFLOG = _register("AFLOG", 0x058, 8, Kind.RW, AdvancedFaultLog, cap="afl")
PMEN = _register("PMEN", 0x064, 4, Kind.RW, ProtectedMemoryEnable, writable="epm", cap="plmr phmr")
PLMBASE = _register("PLMBASE", 0x068, 4, Kind.RW, cap="plmr")
PLMLIMIT = _register("PLMLIMIT", 0x06C, 4, Kind.RW, cap="plmr")
PHMBASE = _register("PHMBASE", 0x070, 8, Kind.RW, cap="phmr")
PHMLIMIT = _register("PHMLIMIT", 0x078, 8, Kind.RW, cap="phmr")
IQH = _register("IQH", 0x080, 8, Kind.RO, InvalidationQueueHead)
IQT = _register("IQT", 0x088, 8, Kind.RW, InvalidationQueueTail)
IQA = _register("IQA", 0x090, 8, Kind.RW, InvalidationQueueAddress)
ICS = _register("ICS", 0x09C, 4, Kind.RW1C, Ics, w1c="iwc")
IECTL = _register("IECTL", 0x0A0, 4, Kind.RW, InvalidationEventControl, writable="im", reset=_IM)
# The upper half is writable in QEMU, and an old revision has a field there.
IEDATA = _register("IEDATA", 0x0A4, 4, Kind.RW, EventData)
IEADDR = _register("IEADDR", 0x0A8, 4, Kind.RW, EventAddress)
IEUADDR = _register("IEUADDR", 0x0AC, 4, Kind.RW, ecap="eim")
IQERCD = _register("IQERCD", 0x0B0, 8, Kind.RO, QueueErrorRecord)
IRTA = _register("IRTA", 0x0B8, 8, Kind.RW, Irta)
PQH = _register("PQH", 0x0C0, 8, Kind.RW, Pqh, ecap="prs")
PQT = _register("PQT", 0x0C8, 8, Kind.RW, Pqt, ecap="prs")
PQA = _register("PQA", 0x0D0, 8, Kind.RW, Pqa, ecap="prs")
PRS = _register("PRS", 0x0DC, 4, Kind.RW1C, Prs, w1c="ppr pro", ecap="prs")
PECTL = _register(
    "PECTL", 0x0E0, 4, Kind.RW, PageRequestEventControl, writable="im", reset=_IM, ecap="prs"
)
PEDATA = _register("PEDATA", 0x0E4, 4, Kind.RW, EventData, ecap="prs")
PEADDR = _register("PEADDR", 0x0E8, 4, Kind.RW, EventAddress, ecap="prs")
PEUADDR = _register("PEUADDR", 0x0EC, 4, Kind.RW, ecap="prs")
MTRRCAP = _register("MTRRCAP", 0x100, 8, Kind.RO, ecap="mts")
MTRRDEF = _register("MTRRDEF", 0x108, 8, Kind.RW, ecap="mts")
_register("MTRR_FIX64K_00000", 0x120, 8, Kind.RW, ecap="mts")
_register("MTRR_FIX16K_80000", 0x128, 8, Kind.RW, ecap="mts")
_register("MTRR_FIX16K_A0000", 0x130, 8, Kind.RW, ecap="mts")
for _n in range(8):
    _register(f"MTRR_FIX4K_{0xC0000 + _n * 0x8000:X}", 0x138 + 8 * _n, 8, Kind.RW, ecap="mts")
for _n in range(10):
    _register(f"MTRR_PHYSBASE{_n}", 0x180 + 16 * _n, 8, Kind.RW, ecap="mts")
    _register(f"MTRR_PHYSMASK{_n}", 0x188 + 16 * _n, 8, Kind.RW, ecap="mts")
PERFCAP = _register("PERFCAP", 0x300, 8, Kind.RO, PerformanceCapability, ecap="pms")
PERFCFGOFF = _register("PERFCFGOFF", 0x310, 4, Kind.RO, ecap="pms")
PERFOVFOFF = _register("PERFOVFOFF", 0x318, 4, Kind.RO, ecap="pms")
PERFCNTROFF = _register("PERFCNTROFF", 0x31C, 4, Kind.RO, ecap="pms")
PERFINTRSTS = _register(
    "PERFINTRSTS", 0x324, 4, Kind.RW1C, PerformanceInterruptStatus, w1c="pis", ecap="pms"
)
PERFINTRCTL = _register("PERFINTRCTL", 0x328, 4, Kind.RW, ecap="pms")
PERFEVNTCAP = _register("PERFEVNTCAP", 0x380, 8, Kind.RO, ecap="pms")
ECMD = _register("ECMD", 0x400, 8, Kind.RW, cap="ecmds")
ECEO = _register("ECEO", 0x408, 8, Kind.RW, cap="ecmds")
ECRSP = _register("ECRSP", 0x410, 8, Kind.RO, cap="ecmds")
for _n in range(4):
    _register(f"ECCAP{_n}", 0x430 + 8 * _n, 8, Kind.RO, cap="ecmds")

IVA = _register("IVA", 0x0, 8, Kind.WO, Iva, fixed=False)
"""Relative to ECAP.IRO * 16."""

IOTLB = _register(
    "IOTLB", 0x8, 8, Kind.RW, IotlbRegister, writable="did dw dr iirg ivt", fixed=False
)
"""Relative to ECAP.IRO * 16."""

FRCD_LOW = _register("FRCD_LOW", 0x0, 8, Kind.RO, FaultRecordRegister, fixed=False)
"""Relative to CAP.FRO * 16 + 16 * index."""

FRCD_HIGH = _register(
    "FRCD_HIGH", 0x8, 8, Kind.RW1C, FaultRecordRegister, word=1, w1c="f", fixed=False
)
"""Relative to CAP.FRO * 16 + 16 * index."""

# The virtual command registers moved between revisions, under the same names.
VIRTUAL_COMMAND_A: dict[str, Register] = {
    register.name: register
    for register in (
        _register("VCCAP", 0xE00, 8, Kind.RO, VirtualCommandCapability, fixed=False),
        _register("VCMD", 0xE10, 8, Kind.RW, VirtualCommandA, fixed=False),
        _register("VCRSP", 0xE20, 8, Kind.RO, VirtualResponseA, fixed=False),
    )
}
"""Revisions up to 3.2 (ECAP.VCS); which of the two a unit has cannot be read from it."""

VIRTUAL_COMMAND_B: dict[str, Register] = {
    register.name: register
    for register in (
        _register("VCMD", 0xE00, 8, Kind.RW, VirtualCommandB, fixed=False),
        _register("VCMD_OPERAND", 0xE08, 8, Kind.RW, fixed=False),
        _register("VCRSP", 0xE10, 8, Kind.RO, VirtualResponseB, fixed=False),
        _register("VCCAP", 0xE30, 8, Kind.RO, VirtualCommandCapability, fixed=False),
    )
}
"""Revision 3.3 (ECAP.VCS)."""

VIRTUAL_COMMANDS = {
    registers["VCCAP"].offset: registers for registers in (VIRTUAL_COMMAND_A, VIRTUAL_COMMAND_B)
}
"""The two by where VCCAP is."""

LEVEL_COMMANDS = layout(GlobalCommand).mask("te", "eafl", "qie", "ire", "cfi")
"""Commands of GCMD whose status bit follows the written bit."""

ONE_SHOT_COMMANDS = layout(GlobalCommand).mask("srtp", "sfl", "wbf", "sirtp")
"""Commands of GCMD that are done once per written 1."""

_FRO = layout(Capability)["fro"]
_NFR = layout(Capability)["nfr"]
_IRO = layout(ExtendedCapability)["iro"]
_VCS = layout(ExtendedCapability)["vcs"]


def iva_offset(ecap: int) -> int:
    """Return where ECAP places IVA."""
    return _IRO.get((ecap,)) * 16 + IVA.offset


def iotlb_offset(ecap: int) -> int:
    """Return where ECAP places IOTLB."""
    return _IRO.get((ecap,)) * 16 + IOTLB.offset


def fault_record_offset(cap: int, index: int) -> int:
    """Return where CAP places a fault recording register."""
    return (_FRO.get((cap,)) + index) * 16


def fault_record_count(cap: int) -> int:
    """Return how many fault recording registers CAP announces."""
    return _NFR.get((cap,)) + 1


def address_width(cap: int) -> int:
    """Return the width of the addresses that a unit takes (CAP.MGAW is one less)."""
    return _MGAW.get((cap,)) + 1


def register_map(cap: int, ecap: int, vccap: int = 0) -> dict[int, Register]:
    """Return every register that a unit has by offset; where two collide the fixed one wins.

    vccap is where VCCAP is, 0 without virtual commands.
    """
    found = [
        replace(IVA, offset=iva_offset(ecap)),
        replace(IOTLB, offset=iotlb_offset(ecap)),
    ]
    for index in range(fault_record_count(cap)):
        base = fault_record_offset(cap, index)
        for half in (FRCD_LOW, FRCD_HIGH):
            name = half.name.replace("FRCD", f"FRCD{index}")
            found.append(replace(half, name=name, offset=base + half.offset))
    found += VIRTUAL_COMMANDS[vccap].values() if vccap and _VCS.get((ecap,)) else ()
    found += (register for register in REGISTERS.values() if register.present(cap, ecap))
    return {register.offset: register for register in found}


def register_names(cap: int, ecap: int, vccap: int = 0) -> dict[int, Register]:
    """Return names for all offsets: the unit's registers, and elsewhere those that others have."""
    return {register.offset: register for register in REGISTERS.values()} | register_map(
        cap, ecap, vccap
    )
