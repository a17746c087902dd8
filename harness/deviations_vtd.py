"""What QEMU's intel-iommu does otherwise than the specification says, as data.

A row stands for members of a dialect, or for findings that one of its conditions fits. Source,
unless said: hw/i386/intel_iommu.c of QEMU 10.0.2, the function in brackets; sections are those of
the VT-d specification 4.1. All were seen on the versions named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from harness.deviations import Crash
from harness.deviations_device_tlb import DEVICE_TLB
from harness.deviations_dialect import MEMBERS
from harness.differential.deviation import BEFORE_11, NO_RECORD, Condition, Situation, VtdDeviation
from harness.model.dialects import Dialect

DEVIATIONS: Final = (
    *MEMBERS,
    VtdDeviation(
        "fence-only-wait",
        "6.5.2.8",
        "a wait descriptor that asks for a fence only is an error",
        "vtd_process_wait_desc",
        fixed="57ac646a2e",
        last=BEFORE_11,
        shows=(Condition(("IQH",), notes=("stopped at a wait that only fences",)),),
    ),
    VtdDeviation(
        "empty-wait",
        "6.5.2.8",
        "a wait descriptor that asks for nothing at all is an error; the specification does not "
        "say that it is one",
        "vtd_process_wait_desc",
        shows=(Condition(("IQH",), notes=("stopped at a wait that asks for nothing",)),),
    ),
    VtdDeviation(
        "page-response-refused",
        "6.5.2",
        "a page group response is an error where the unit takes no page requests; the "
        "specification does not say that it is one",
        "vtd_process_inv_desc",
        shows=(Condition(("IQH",), notes=("stopped at a page group response without PRS",)),),
    ),
    VtdDeviation(
        "pasid-cache-ignored",
        "6.5.2.2",
        "a PASID-cache invalidation is not looked at: its reserved bits are no error, and a device "
        "keeps passing through that did when its context entry was invalidated",
        "vtd_process_inv_desc (VTD_INV_DESC_PC)",
        fixed="c9cf33075a, 43b8c43397",
        last=BEFORE_11,
        shows=(
            Condition(("IQH", "IQT", "status-write"), notes=("PASID-cache descriptor is wrong",)),
            Condition(
                ("access",),
                observed=("identity", NO_RECORD),
                notes=("passed through before a PASID-cache invalidation",),
            ),
            Condition(
                ("interrupt",),
                observed=("nothing",),
                permitted=("Interrupt",),
                notes=("PASID-cache descriptor is wrong", "tail written"),
            ),
        ),
    ),
    VtdDeviation(
        "pass-through-kept",
        "6.5.2.2",
        "a device that passes through because its PASID entry was changed without an invalidation "
        "goes on to do so after the entry was changed back and everything was invalidated "
        "(docs/findings/vtd-pass-through-kept.md)",
        "observed on QEMU 11.1.3",
        since=(11,),
        shows=(
            Condition(
                ("access",),
                observed=("identity", NO_RECORD),
                notes=("passed through before a PASID-cache invalidation",),
            ),
        ),
    ),
    VtdDeviation(
        "refused-without-record",
        "7.1",
        "an access that meets a cached translation without the right it needs is refused without a "
        "fault record (docs/findings/vtd-cached-permission.md)",
        "vtd_do_iommu_translate (IOTLB hit)",
        shows=(Condition(("access",), observed=(NO_RECORD,), notes=("cached without the right",)),),
    ),
    VtdDeviation(
        "dirty-bit-lost",
        "3.6.2",
        "D stays clear when a write uses a translation that a read has cached "
        "(docs/findings/vtd-dirty-bit.md)",
        "vtd_do_iommu_translate (IOTLB hit)",
        shows=(Condition(("table",), notes=("D clear of what a read has cached",)),),
    ),
    VtdDeviation(
        "one-flag-suffices",
        "3.6.2",
        "a write leaves a leaf as it is that has A or D: D stays clear where A is set, A where D "
        "is (docs/findings/vtd-one-flag.md)",
        "vtd_set_flag_in_pte (returns when any of the flags is set)",
        shows=(
            Condition(("table",), notes=("A clear where D was set",)),
            Condition(("table",), notes=("D clear where A was set",)),
        ),
    ),
    VtdDeviation(
        "dirty-though-refused",
        "3.6.2",
        "a write that is refused because its translation leads into the interrupt range has set A "
        "and D",
        "vtd_iova_to_flpte (sets them before vtd_do_iommu_translate looks at the output)",
        shows=(Condition(("table",), notes=("D set on the way to the interrupt range",)),),
    ),
    VtdDeviation(
        "pass-through-width-unchecked",
        "3.4",
        "an address beyond the host address width passes through",
        "vtd_do_iommu_translate (vtd_dev_pt_enabled)",
        shows=(
            Condition(
                ("access",),
                observed=(NO_RECORD, "identity"),
                permitted=("fault 0x83", "fault 0x04"),
                notes=("passed through",),
            ),
        ),
    ),
    VtdDeviation(
        "iotlb-by-source",
        "6.2.4",
        "cached translations are found by source id, not by domain id: a device that was moved to "
        "another domain keeps those of the old one until they are invalidated",
        "vtd_lookup_iotlb",
        shows=(Condition(("access",), observed=("translation",), notes=("tag left",)),),
    ),
    VtdDeviation(
        "interrupt-range-reason",
        "7.1.3",
        "output in the interrupt range has the reason of scalable mode in legacy mode, too, where "
        "the unit has both",
        "vtd_do_iommu_translate (scalable_mode, not root_scalable)",
        shows=(Condition(("access",), observed=("fault 0x87",), permitted=("fault 0x0e",)),),
    ),
    VtdDeviation(
        "pasid-entry-unchecked",
        "7.3",
        "while FPD of what leads to it is set, a PASID entry that cannot be used is used "
        "nevertheless (docs/findings/vtd-pasid-not-present.md)",
        "vtd_do_iommu_translate (is_fpd_set), vtd_get_iova_pgtbl_base",
        shows=(
            Condition(
                ("access",),
                permitted=("fault 0x50", "fault 0x51", "fault 0x58", "fault 0x59", "fault 0x5b"),
                notes=("FPD above the PASID entry",),
            ),
        ),
    ),
    VtdDeviation(
        "pasid-present-unchecked",
        "9.6",
        "a PASID entry that is not present any more is used while the context entry is cached "
        "(docs/findings/vtd-pasid-not-present.md)",
        "vtd_do_iommu_translate (vtd_ce_get_pasid_fpd does not look at P)",
        shows=(
            Condition(("access",), permitted=("fault 0x59",), notes=("context entry is cached",)),
        ),
    ),
    VtdDeviation(
        "canonical-by-width",
        "3.6",
        "AW of a PASID entry, which is the second stage's, limits addresses of the first stage",
        "vtd_iova_fl_check_canonical (vtd_iova_limit)",
        shows=(
            Condition(
                ("access",),
                observed=("fault 0x80", NO_RECORD),
                notes=("beyond AW of a first stage",),
            ),
        ),
    ),
    VtdDeviation(
        "cached-fault-disable",
        "6.2.2",
        "FPD is that of an entry that is cached; the specification allows it, the model does not "
        "follow it",
        "vtd_do_iommu_translate (context_cache_entry)",
        shows=(
            Condition(
                ("fault-record", "access", "FSTS"), notes=("FPD of an entry that is cached",)
            ),
        ),
    ),
    VtdDeviation(
        "pasid-fault-disable-unread",
        "7.3",
        "FPD of PASID structures counts only once all of them have been found sound",
        "vtd_do_iommu_translate (vtd_dev_to_context_entry fails before vtd_ce_get_pasid_fpd)",
        shows=(
            Condition(
                ("fault-record", "FSTS"),
                observed=("FaultRecord", "0x3", "0x13"),
                notes=("FPD of a PASID structure",),
            ),
        ),
    ),
    VtdDeviation(
        "source-of-dma-unknown",
        "5.1.4, 9.10",
        "a message that is written by DMA has no source id: SID of its entry is not checked, and a "
        "fault record names ff:1f.7 (docs/findings/vtd-source-of-dma.md)",
        "vtd_mem_ir_write (MEMTXATTRS_UNSPECIFIED of pci_dma_write)",
        shows=(
            Condition(
                ("interrupt-request",),
                permitted=("fault 0x26",),
                notes=("message written by DMA",),
            ),
            Condition(
                ("fault-record",),
                observed=("FaultRecord",),
                notes=("message written by DMA", "record without a source"),
            ),
        ),
    ),
    VtdDeviation(
        "compatibility-format-status",
        "11.4.4",
        "GCMD.CFI is ignored: GSTS.CFIS stays 0",
        "vtd_handle_gcmd_write",
        shows=(Condition(("GSTS",), notes=("CFIS alone",)),),
    ),
    VtdDeviation(
        "queue-error-unnamed",
        "11.4.9",
        "IQERCD says nothing of what is wrong with a descriptor: it reads as 0",
        "vtd_init",
        shows=(Condition(("IQERCD",), observed=("0x0",)),),
    ),
    *DEVICE_TLB,
)


SEVERAL: Final = VtdDeviation(
    "several-at-once",
    "",
    "no single member of the dialect gives it, but all of them together do",
    "",
)


CRASHES: Final = (
    Crash(
        "wide-register-write",
        BEFORE_11,
        "an 8-byte write to FECTL, IECTL or IEADDR aborts (a35c5755d942)",
        re.compile(r"vtd_mem_write: Assertion `size == 4'"),
    ),
    Crash(
        "wait-write-and-interrupt",
        BEFORE_11,
        "a wait descriptor that asks for a status write and an interrupt aborts (e8145dcd31)",
        re.compile(r"vtd_process_wait_desc: Assertion `!\(inv_desc->lo & VTD_INV_DESC_WAIT_IF\)'"),
    ),
    Crash(
        "level-assertion",
        (11, 1),
        "DMA through a PASID entry with more levels than there are aborts while FPD above it is "
        "set and the context entry is cached (docs/findings/vtd-level-assertion.md)",
        re.compile(r"vtd_[a-z]+_nonzero_rsvd: Assertion `level < VTD_[SF]PTE_RSVD_LEN'"),
    ),
)


def crashes_of(version: tuple[int, ...]) -> list[Crash]:
    """Return the crashes that a version is known for."""
    return [crash for crash in CRASHES if version[: len(crash.last)] <= crash.last]


def known_crash(message: str, version: tuple[int, ...]) -> Crash | None:
    """Return the crash that a message of a version is about, if it is known."""
    return next((crash for crash in crashes_of(version) if crash.said.search(message)), None)


def explanation(found: Situation, version: tuple[int, ...]) -> VtdDeviation | None:
    """Return the deviation that a finding is, of those that are no part of a dialect."""
    return next((row for row in DEVIATIONS if row.condition(found, version) is not None), None)


def without_each(dialect: Dialect) -> Iterator[tuple[VtdDeviation, Dialect]]:
    """Yield each deviation that a dialect has, with the dialect that lacks it."""
    for row in DEVIATIONS:
        changed = row.without(dialect)
        if any(getattr(changed, member.name) != getattr(dialect, member.name)
               for member in fields(dialect)):  # fmt: skip
            yield row, changed
