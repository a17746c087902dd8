"""The fields of the registers (VT-d chapter 11); decoders.vtd.registers says where they are.

Docstrings cite a register by its mnemonic, because its section number changes with the revision.
"""

from __future__ import annotations

from decoders.fields import Structure, doubleword, quadwords


class Version(Structure):
    """Give the revision of the architecture (VT-d VER_REG)."""

    fields_desc = doubleword(("min", 4), ("max", 4), ("reserved", 24))


class Capability(Structure):
    """Say what a unit can do (VT-d CAP_REG; Linux cap_*)."""

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
    """Say what else a unit can do (VT-d ECAP_REG; Linux ecap_*)."""

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
    """Take commands; one may change per write (VT-d GCMD_REG)."""

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
    """Answer the commands, bit by bit (VT-d GSTS_REG)."""

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
    """Point to the root table; ttm 0 legacy, 1 scalable, 3 abort (VT-d RTADDR_REG)."""

    fields_desc = quadwords([("reserved", 10), ("ttm", 2), ("rta", 52)])


class ContextCommand(Structure):
    """Invalidate context entries without a queue (VT-d CCMD_REG)."""

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
    """Invalidate translations without a queue (VT-d IOTLB_REG)."""

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
    """Give the pages for IotlbRegister (VT-d IVA_REG)."""

    fields_desc = quadwords([("am", 6), ("ih", 1), ("reserved", 5), ("addr", 52)])


class FaultStatus(Structure):
    """Report pending faults and queue errors (VT-d FSTS_REG). pro is obsolete."""

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
    """Mask the fault event (VT-d FECTL_REG)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class InvalidationEventControl(Structure):
    """Mask the invalidation completion event (VT-d IECTL_REG)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class PageRequestEventControl(Structure):
    """Mask the page request event (VT-d PECTL_REG)."""

    fields_desc = doubleword(("reserved", 30), ("ip", 1), ("im", 1))


class EventData(Structure):
    """Hold the data of an event message (VT-d FEDATA_REG); eimd only in old revisions."""

    fields_desc = doubleword(("imd", 16), ("eimd", 16))


class EventAddress(Structure):
    """Hold bits 31:2 of the address of an event message (VT-d FEADDR_REG)."""

    fields_desc = doubleword(("reserved", 2), ("ma", 30))


class AdvancedFaultLog(Structure):
    """Point to the fault log in memory (VT-d AFLOG_REG)."""

    fields_desc = quadwords([("reserved", 9), ("fls", 3), ("fla", 52)])


class ProtectedMemoryEnable(Structure):
    """Enable the protected ranges (VT-d PMEN_REG)."""

    fields_desc = doubleword(("prs", 1), ("reserved", 30), ("epm", 1))


class InvalidationQueueHead(Structure):
    """Say which descriptor is next, in 16-byte units (VT-d IQH_REG)."""

    fields_desc = quadwords([("reserved", 4), ("qh", 15), ("reserved", 45)])


class InvalidationQueueTail(Structure):
    """Say which descriptor is not written yet, in 16-byte units (VT-d IQT_REG)."""

    fields_desc = quadwords([("reserved", 4), ("qt", 15), ("reserved", 45)])


class InvalidationQueueAddress(Structure):
    """Place the queue of 4096 * 2^qs bytes; dw = 1 for 256-bit entries (VT-d IQA_REG)."""

    fields_desc = quadwords([("qs", 3), ("reserved", 8), ("dw", 1), ("iqa", 52)])


class Ics(Structure):
    """Report that a wait descriptor asked for an event (VT-d ICS_REG)."""

    fields_desc = doubleword(("iwc", 1), ("reserved", 31))


class QueueErrorRecord(Structure):
    """Say why the queue stopped; see QueueError (VT-d IQERCD_REG)."""

    fields_desc = quadwords([("iqei", 4), ("reserved", 28), ("itesid", 16), ("icesid", 16)])


class Irta(Structure):
    """Place the interrupt table of 2^(s+1) entries (VT-d IRTA_REG)."""

    fields_desc = quadwords([("s", 4), ("reserved", 7), ("eime", 1), ("irta", 52)])


class Pqh(Structure):
    """Say which page request is read next, in 32-byte units (VT-d PQH_REG)."""

    fields_desc = quadwords([("reserved", 5), ("pqh", 14), ("reserved", 45)])


class Pqt(Structure):
    """Say where the next page request goes, in 32-byte units (VT-d PQT_REG)."""

    fields_desc = quadwords([("reserved", 5), ("pqt", 14), ("reserved", 45)])


class Pqa(Structure):
    """Place the page request queue of 4096 * 2^pqs bytes (VT-d PQA_REG)."""

    fields_desc = quadwords([("pqs", 3), ("reserved", 9), ("pqa", 52)])


class Prs(Structure):
    """Report pending and lost page requests (VT-d PRS_REG)."""

    fields_desc = doubleword(("ppr", 1), ("pro", 1), ("reserved", 30))


class PerformanceCapability(Structure):
    """Describe the performance monitoring counters (VT-d PERFCAP_REG; Linux perfmon.h)."""

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
    """Say which virtual commands exist (VT-d VCCAP_REG)."""

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
