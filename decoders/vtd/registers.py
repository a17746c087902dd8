"""The register page of a unit (VT-d chapter 11; Linux iommu.h).

REGISTERS holds the registers with a fixed place. The invalidation and fault recording registers
are where ECAP.IRO and CAP.FRO put them; register_map resolves those for one unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from decoders.fields import Structure, doubleword, quadwords
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister


class Version(Structure):
    """Give the revision of the architecture (VT-d 11.4.1)."""

    fields_desc = doubleword(("min", 4), ("max", 4), ("reserved", 24))


class Capability(Structure):
    """Say what a unit can do (VT-d 11.4.2; Linux cap_*)."""

    fields_desc = quadwords(
        [
            ("nd", 3),
            ("afl", 1),
            ("rwbf", 1),
            ("plmr", 1),
            ("phmr", 1),
            ("cm", 1),
            ("sagaw", 5),
            ("reserved", 3),
            ("mgaw", 6),
            ("zlr", 1),
            ("reserved", 1),  # ISOCH in revision 1
            ("fro", 10),
            ("sslps", 4),
            ("reserved", 1),
            ("psi", 1),
            ("nfr", 8),
            ("mamv", 6),
            ("dwd", 1),
            ("drd", 1),
            ("fs1gp", 1),
            ("reserved", 2),
            ("pi", 1),
            ("fs5lp", 1),
            ("ecmds", 1),
            ("esirtps", 1),
            ("esrtps", 1),
        ],
    )


class ExtendedCapability(Structure):
    """Say what else a unit can do (VT-d 11.4.3; Linux ecap_*)."""

    fields_desc = quadwords(
        [
            ("c", 1),
            ("qi", 1),
            ("dt", 1),
            ("ir", 1),
            ("eim", 1),
            ("reserved", 1),
            ("pt", 1),
            ("sc", 1),
            ("iro", 10),
            ("reserved", 2),
            ("mhmv", 4),
            ("reserved", 1),  # ECS in revision 2
            ("mts", 1),
            ("nest", 1),
            ("dis", 1),  # revision 2
            ("reserved", 1),  # PASID before it moved to bit 40
            ("prs", 1),
            ("ers", 1),
            ("srs", 1),
            ("reserved", 1),
            ("nwfs", 1),
            ("eafs", 1),
            ("pss", 5),
            ("pasid", 1),
            ("dit", 1),
            ("pds", 1),
            ("smts", 1),
            ("vcs", 1),
            ("ssads", 1),
            ("ssts", 1),
            ("fsts", 1),
            ("smpwcs", 1),
            ("rps", 1),
            ("reserved", 1),
            ("pms", 1),
            ("adms", 1),
            ("rprivs", 1),
            ("reserved", 4),
            ("sms", 1),
            ("reserved", 5),
        ],
    )


class GlobalCommand(Structure):
    """Take commands; one may change per write (VT-d 11.4.4.1)."""

    fields_desc = doubleword(
        ("reserved", 23),
        ("cfi", 1),
        ("sirtp", 1),
        ("ire", 1),
        ("qie", 1),
        ("wbf", 1),
        ("eafl", 1),
        ("sfl", 1),
        ("srtp", 1),
        ("te", 1),
    )


class GlobalStatus(Structure):
    """Answer the commands, bit by bit (VT-d 11.4.4.2)."""

    fields_desc = doubleword(
        ("reserved", 23),
        ("cfis", 1),
        ("irtps", 1),
        ("ires", 1),
        ("qies", 1),
        ("wbfs", 1),
        ("afls", 1),
        ("fls", 1),
        ("rtps", 1),
        ("tes", 1),
    )


class RootTableAddress(Structure):
    """Point to the root table; ttm 0 legacy, 1 scalable, 3 abort (VT-d 11.4.5)."""

    fields_desc = quadwords([("reserved", 10), ("ttm", 2), ("rta", 52)])


class ContextCommand(Structure):
    """Invalidate context entries without a queue (VT-d 11.4.6.1)."""

    fields_desc = quadwords(
        [
            ("did", 16),
            ("sid", 16),
            ("fm", 2),
            ("reserved", 25),
            ("caig", 2),
            ("cirg", 2),
            ("icc", 1),
        ],
    )


class IotlbRegister(Structure):
    """Invalidate translations without a queue (VT-d 11.4.6.3)."""

    fields_desc = quadwords(
        [
            ("reserved", 32),
            ("did", 16),
            ("dw", 1),
            ("dr", 1),
            ("reserved", 7),
            ("iaig", 2),
            ("reserved", 1),
            ("iirg", 2),
            ("reserved", 1),
            ("ivt", 1),
        ],
    )


class Iva(Structure):
    """Give the pages for IotlbRegister (VT-d 11.4.6.2)."""

    fields_desc = quadwords([("am", 6), ("ih", 1), ("reserved", 5), ("addr", 52)])


class FaultStatus(Structure):
    """Report pending faults and queue errors (VT-d 11.4.7.1). pro is obsolete."""

    fields_desc = doubleword(
        ("pfo", 1),
        ("ppf", 1),
        ("afo", 1),
        ("apf", 1),
        ("iqe", 1),
        ("ice", 1),
        ("ite", 1),
        ("pro", 1),
        ("fri", 8),
        ("reserved", 16),
    )


class FaultEventControl(Structure):
    """Mask the fault event (VT-d 11.4.7.2)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class InvalidationEventControl(Structure):
    """Mask the invalidation completion event (VT-d 11.4.9.5)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class PageRequestEventControl(Structure):
    """Mask the page request event (VT-d 11.4.11.5)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class EventData(Structure):
    """Hold the data of an event message (VT-d 11.4.7.3); eimd only in old revisions."""

    fields_desc = doubleword(("imd", 16), ("eimd", 16))


class EventAddress(Structure):
    """Hold bits 31:2 of the address of an event message (VT-d 11.4.7.4)."""

    fields_desc = doubleword(("reserved", 2), ("ma", 30))


class AdvancedFaultLog(Structure):
    """Point to the fault log in memory (VT-d 11.4.7.6)."""

    fields_desc = quadwords([("reserved", 9), ("fls", 3), ("fla", 52)])


class ProtectedMemoryEnable(Structure):
    """Enable the protected ranges (VT-d 11.4.8.1)."""

    fields_desc = doubleword(("prs", 1), ("reserved", 30), ("epm", 1))


class InvalidationQueueHead(Structure):
    """Say which descriptor is next, in 16-byte units (VT-d 11.4.9.1)."""

    fields_desc = quadwords([("reserved", 4), ("qh", 15), ("reserved", 45)])


class InvalidationQueueTail(Structure):
    """Say which descriptor is not written yet, in 16-byte units (VT-d 11.4.9.2)."""

    fields_desc = quadwords([("reserved", 4), ("qt", 15), ("reserved", 45)])


class InvalidationQueueAddress(Structure):
    """Place the queue of 4096 * 2^qs bytes; dw = 1 for 256-bit entries (VT-d 11.4.9.3)."""

    fields_desc = quadwords([("qs", 3), ("reserved", 8), ("dw", 1), ("iqa", 52)])


class Ics(Structure):
    """Report that a wait descriptor asked for an event (VT-d 11.4.9.4)."""

    fields_desc = doubleword(("iwc", 1), ("reserved", 31))


class QueueErrorRecord(Structure):
    """Say why the queue stopped; see QueueError (VT-d 11.4.9.9)."""

    fields_desc = quadwords([("iqei", 4), ("reserved", 28), ("itesid", 16), ("icesid", 16)])


class Irta(Structure):
    """Place the interrupt table of 2^(s+1) entries (VT-d 11.4.10.1)."""

    fields_desc = quadwords([("s", 4), ("reserved", 7), ("eime", 1), ("irta", 52)])


class Pqh(Structure):
    """Say which page request is read next, in 32-byte units (VT-d 11.4.11.1)."""

    fields_desc = quadwords([("reserved", 5), ("pqh", 14), ("reserved", 45)])


class Pqt(Structure):
    """Say where the next page request goes, in 32-byte units (VT-d 11.4.11.2)."""

    fields_desc = quadwords([("reserved", 5), ("pqt", 14), ("reserved", 45)])


class Pqa(Structure):
    """Place the page request queue of 4096 * 2^pqs bytes (VT-d 11.4.11.3)."""

    fields_desc = quadwords([("pqs", 3), ("reserved", 9), ("pqa", 52)])


class Prs(Structure):
    """Report pending and lost page requests (VT-d 11.4.11.4)."""

    fields_desc = doubleword(("ppr", 1), ("pro", 1), ("reserved", 30))


class PerformanceCapability(Structure):
    """Describe the performance monitoring counters (VT-d 11.4.13; Linux perfmon.h)."""

    fields_desc = quadwords(
        [
            ("counters", 16),
            ("counter_width", 7),
            ("reserved", 1),
            ("event_groups", 5),
            ("reserved", 3),
            ("filters", 5),
            ("reserved", 13),
            ("interrupt", 1),
            ("reserved", 1),
            ("stride", 3),
            ("reserved", 9),
        ],
    )


class PerformanceInterruptStatus(Structure):
    """Report that a counter overflowed (Linux DMAR_PERFINTRSTS_REG)."""

    fields_desc = doubleword(("pis", 1), ("reserved", 31))


class VirtualCommandCapability(Structure):
    """Say which virtual commands exist (VT-d 3.0 10.4.44)."""

    fields_desc = quadwords([("pas", 1), ("reserved", 63)])


class VirtualCommandA(Structure):
    """Take a virtual command, revisions up to 3.2 (Linux 5.13 and before)."""

    fields_desc = quadwords([("cmd", 8), ("operand", 56)])


class VirtualResponseA(Structure):
    """Answer a virtual command, revisions up to 3.2 (Linux 5.13 and before)."""

    fields_desc = quadwords([("ip", 1), ("sc", 2), ("reserved", 5), ("rslt", 56)])


class VirtualCommandB(Structure):
    """Take a virtual command, revision 3.3 (Linux 5.14)."""

    fields_desc = quadwords([("cmd", 8), ("reserved", 8), ("operand", 48)])


class VirtualResponseB(Structure):
    """Answer a virtual command, revision 3.3 (Linux 5.14)."""

    fields_desc = quadwords([("ip", 1), ("sc", 7), ("reserved", 8), ("rslt", 48)])


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


REGISTERS: dict[str, Register] = {}
"""The registers with a fixed offset, by name."""


def _describe(
    name: str,
    offset: int,
    size: int,
    access: Kind,
    fields: type[Structure] | None = None,
    *,
    writable: tuple[str, ...] = (),
    w1c: tuple[str, ...] = (),
    write_only: tuple[str, ...] = (),
    reset: int = 0,
) -> Register:
    # Unless it says otherwise a register is writable wherever it is not reserved.
    every = (1 << size * 8) - 1
    if fields is not None:
        every &= ~layout(fields).reserved[0]
    mask = layout(fields).mask if fields is not None else (lambda *names: 0)
    write = every if access in (Kind.RW, Kind.WO) and not writable else mask(*writable)
    hidden = every if access is Kind.WO else mask(*write_only)
    return Register(name, offset, size, access, reset, write, mask(*w1c), hidden, fields)


def _register(
    name: str,
    offset: int,
    size: int,
    access: Kind,
    fields: type[Structure] | None = None,
    *,
    writable: tuple[str, ...] = (),
    w1c: tuple[str, ...] = (),
    write_only: tuple[str, ...] = (),
    reset: int = 0,
) -> Register:
    register = _describe(
        name,
        offset,
        size,
        access,
        fields,
        writable=writable,
        w1c=w1c,
        write_only=write_only,
        reset=reset,
    )
    REGISTERS[name] = register
    return register


_IM = layout(FaultEventControl)["im"].mask

VER = _register("VER", 0x000, 4, Kind.RO, Version, reset=0x10)
CAP = _register("CAP", 0x008, 8, Kind.RO, Capability)
ECAP = _register("ECAP", 0x010, 8, Kind.RO, ExtendedCapability)
GCMD = _register("GCMD", 0x018, 4, Kind.WO, GlobalCommand)
GSTS = _register("GSTS", 0x01C, 4, Kind.RO, GlobalStatus)
RTADDR = _register("RTADDR", 0x020, 8, Kind.RW, RootTableAddress)
CCMD = _register(
    "CCMD",
    0x028,
    8,
    Kind.RW,
    ContextCommand,
    writable=("did", "sid", "fm", "cirg", "icc"),
    write_only=("sid", "fm"),
)
# QEMU makes only PFO and IQE writable: it never sets the others.
FSTS = _register(
    "FSTS",
    0x034,
    4,
    Kind.RW1C,
    FaultStatus,
    w1c=("pfo", "afo", "apf", "iqe", "ice", "ite", "pro"),
)
FECTL = _register("FECTL", 0x038, 4, Kind.RW, FaultEventControl, writable=("im",), reset=_IM)
FEDATA = _register("FEDATA", 0x03C, 4, Kind.RW, EventData, writable=("imd",))
FEADDR = _register("FEADDR", 0x040, 4, Kind.RW, EventAddress)
# QEMU keeps FEUADDR and IEUADDR at zero unless it offers extended interrupt mode.
FEUADDR = _register("FEUADDR", 0x044, 4, Kind.RW)
AFLOG = _register("AFLOG", 0x058, 8, Kind.RW, AdvancedFaultLog)
PMEN = _register("PMEN", 0x064, 4, Kind.RW, ProtectedMemoryEnable, writable=("epm",))
PLMBASE = _register("PLMBASE", 0x068, 4, Kind.RW)
PLMLIMIT = _register("PLMLIMIT", 0x06C, 4, Kind.RW)
PHMBASE = _register("PHMBASE", 0x070, 8, Kind.RW)
PHMLIMIT = _register("PHMLIMIT", 0x078, 8, Kind.RW)
IQH = _register("IQH", 0x080, 8, Kind.RO, InvalidationQueueHead)
IQT = _register("IQT", 0x088, 8, Kind.RW, InvalidationQueueTail)
IQA = _register("IQA", 0x090, 8, Kind.RW, InvalidationQueueAddress)
ICS = _register("ICS", 0x09C, 4, Kind.RW1C, Ics, w1c=("iwc",))
IECTL = _register("IECTL", 0x0A0, 4, Kind.RW, InvalidationEventControl, writable=("im",), reset=_IM)
# The upper half is writable in QEMU, and an old revision has a field there.
IEDATA = _register("IEDATA", 0x0A4, 4, Kind.RW, EventData)
IEADDR = _register("IEADDR", 0x0A8, 4, Kind.RW, EventAddress)
IEUADDR = _register("IEUADDR", 0x0AC, 4, Kind.RW)
IQERCD = _register("IQERCD", 0x0B0, 8, Kind.RO, QueueErrorRecord)
IRTA = _register("IRTA", 0x0B8, 8, Kind.RW, Irta)
PQH = _register("PQH", 0x0C0, 8, Kind.RW, Pqh)
PQT = _register("PQT", 0x0C8, 8, Kind.RW, Pqt)
PQA = _register("PQA", 0x0D0, 8, Kind.RW, Pqa)
PRS = _register("PRS", 0x0DC, 4, Kind.RW1C, Prs, w1c=("ppr", "pro"))
PECTL = _register("PECTL", 0x0E0, 4, Kind.RW, PageRequestEventControl, writable=("im",), reset=_IM)
PEDATA = _register("PEDATA", 0x0E4, 4, Kind.RW, EventData)
PEADDR = _register("PEADDR", 0x0E8, 4, Kind.RW, EventAddress)
PEUADDR = _register("PEUADDR", 0x0EC, 4, Kind.RW)
# Present with ECAP.MTS.
MTRRCAP = _register("MTRRCAP", 0x100, 8, Kind.RO)
MTRRDEF = _register("MTRRDEF", 0x108, 8, Kind.RW)
_register("MTRR_FIX64K_00000", 0x120, 8, Kind.RW)
_register("MTRR_FIX16K_80000", 0x128, 8, Kind.RW)
_register("MTRR_FIX16K_A0000", 0x130, 8, Kind.RW)
for _n in range(8):
    _register(f"MTRR_FIX4K_{0xC0000 + _n * 0x8000:X}", 0x138 + 8 * _n, 8, Kind.RW)
for _n in range(10):
    _register(f"MTRR_PHYSBASE{_n}", 0x180 + 16 * _n, 8, Kind.RW)
    _register(f"MTRR_PHYSMASK{_n}", 0x188 + 16 * _n, 8, Kind.RW)
# Present with ECAP.PMS, and CAP.ECMDS for the commands.
PERFCAP = _register("PERFCAP", 0x300, 8, Kind.RO, PerformanceCapability)
PERFCFGOFF = _register("PERFCFGOFF", 0x310, 4, Kind.RO)
PERFOVFOFF = _register("PERFOVFOFF", 0x318, 4, Kind.RO)
PERFCNTROFF = _register("PERFCNTROFF", 0x31C, 4, Kind.RO)
PERFINTRSTS = _register(
    "PERFINTRSTS", 0x324, 4, Kind.RW1C, PerformanceInterruptStatus, w1c=("pis",)
)
PERFINTRCTL = _register("PERFINTRCTL", 0x328, 4, Kind.RW)
PERFEVNTCAP = _register("PERFEVNTCAP", 0x380, 8, Kind.RO)
ECMD = _register("ECMD", 0x400, 8, Kind.RW)
ECEO = _register("ECEO", 0x408, 8, Kind.RW)
ECRSP = _register("ECRSP", 0x410, 8, Kind.RO)
for _n in range(4):
    _register(f"ECCAP{_n}", 0x430 + 8 * _n, 8, Kind.RO)

IVA = _describe("IVA", 0x0, 8, Kind.WO, Iva)
"""Relative to ECAP.IRO * 16."""

IOTLB = _describe(
    "IOTLB", 0x8, 8, Kind.RW, IotlbRegister, writable=("did", "dw", "dr", "iirg", "ivt")
)
"""Relative to ECAP.IRO * 16."""

FRCD_LOW = replace(_describe("FRCD_LOW", 0x0, 8, Kind.RO), fields=FaultRecordRegister)
"""Relative to CAP.FRO * 16 + 16 * index."""

FRCD_HIGH = replace(
    _describe("FRCD_HIGH", 0x8, 8, Kind.RW1C),
    w1c=layout(FaultRecordRegister)["f"].mask,
    fields=FaultRecordRegister,
)
"""Relative to CAP.FRO * 16 + 16 * index."""

# The virtual command registers moved between revisions, under the same names.
VIRTUAL_COMMAND_A: dict[str, Register] = {
    register.name: register
    for register in (
        _describe("VCCAP", 0xE00, 8, Kind.RO, VirtualCommandCapability),
        _describe("VCMD", 0xE10, 8, Kind.RW, VirtualCommandA),
        _describe("VCRSP", 0xE20, 8, Kind.RO, VirtualResponseA),
    )
}
"""Revisions up to 3.2 (ECAP.VCS); which of the two a unit has cannot be read from it."""

VIRTUAL_COMMAND_B: dict[str, Register] = {
    register.name: register
    for register in (
        _describe("VCMD", 0xE00, 8, Kind.RW, VirtualCommandB),
        _describe("VCMD_OPERAND", 0xE08, 8, Kind.RW),
        _describe("VCRSP", 0xE10, 8, Kind.RO, VirtualResponseB),
        _describe("VCCAP", 0xE30, 8, Kind.RO, VirtualCommandCapability),
    )
}
"""Revision 3.3 (ECAP.VCS)."""

LEVEL_COMMANDS = layout(GlobalCommand).mask("te", "eafl", "qie", "ire", "cfi")
"""Commands of GCMD whose status bit follows the written bit."""

ONE_SHOT_COMMANDS = layout(GlobalCommand).mask("srtp", "sfl", "wbf", "sirtp")
"""Commands of GCMD that are done once per written 1."""

_FRO = layout(Capability)["fro"]
_NFR = layout(Capability)["nfr"]
_IRO = layout(ExtendedCapability)["iro"]


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


def register_map(cap: int, ecap: int) -> dict[int, Register]:
    """Return every register of a unit by offset; where two collide the fixed one wins."""
    found = [
        replace(IVA, offset=iva_offset(ecap)),
        replace(IOTLB, offset=iotlb_offset(ecap)),
    ]
    for index in range(fault_record_count(cap)):
        base = fault_record_offset(cap, index)
        for half in (FRCD_LOW, FRCD_HIGH):
            name = half.name.replace("FRCD", f"FRCD{index}")
            found.append(replace(half, name=name, offset=base + half.offset))
    return {register.offset: register for register in [*found, *REGISTERS.values()]}
