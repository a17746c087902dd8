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
from harness.differential.deviation import NO_RECORD, Condition, Situation, VtdDeviation
from harness.model.dialects import Dialect

_FIXED_11: Final = (10, 0)
"""The last version measured that lacks what 11.1 has."""


DEVIATIONS: Final = (
    VtdDeviation(
        "record-has-pasid",
        "7.3",
        "PP of a fault record is set for a request without PASID",
        "vtd_do_iommu_translate (pasid is RID_PASID by then)",
        fixed="dde3f966f0fe",
        last=_FIXED_11,
        members=("fault_record_ignored",),
    ),
    VtdDeviation(
        "rid-pasid-honoured",
        "9.4",
        "RID_PASID of a context entry is used though ECAP.RPS is 0",
        "vtd_ce_get_rid2pasid_entry",
        fixed="c629b030a2",
        last=_FIXED_11,
        members=("honours_rid_pasid",),
    ),
    VtdDeviation(
        "fence-only-wait",
        "6.5.2.8",
        "a wait descriptor that asks for a fence only is an error",
        "vtd_process_wait_desc",
        fixed="57ac646a2e",
        last=_FIXED_11,
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
        "pasid-cache-ignored",
        "6.5.2.2",
        "a PASID-cache invalidation is not looked at: its reserved bits are no error, and a device "
        "keeps passing through that did when its context entry was invalidated",
        "vtd_process_inv_desc (VTD_INV_DESC_PC)",
        fixed="c9cf33075a, 43b8c43397",
        last=_FIXED_11,
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
        "scalable-reasons",
        "7.1.3",
        "faults in scalable mode carry the reasons of legacy mode",
        "vtd_get_root_entry, vtd_iova_to_slpte",
        members=("scalable_entries", "scalable_second_stage", "legacy_second_stage"),
    ),
    VtdDeviation(
        "root-mode-unchecked",
        "9.1",
        "RTADDR with a reserved TTM, or one that the unit lacks, is taken: bit 10 alone counts",
        "vtd_update_scalable_state",
        members=("root_mode_checked",),
    ),
    VtdDeviation(
        "root-bits-dropped",
        "9.1",
        "address bits of RTADDR beyond the host address width are dropped",
        "vtd_root_table_setup",
        members=("root_pointer_checked",),
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
        shows=(Condition(("table",), notes=("D clear",)),),
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
        "dirty-tracking-unchecked",
        "9.6",
        "SSADE of a PASID entry is no error in a unit without ECAP.SSADS",
        "vtd_get_pe_in_pasid_leaf_table",
        members=("dirty_tracking_checked",),
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
        shows=(Condition(("access",), permitted=("fault 0x59",)),),
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
        "snoop-bit",
        "9.8",
        "SNP of a second-stage leaf is no reserved bit in a unit with scalable mode",
        "vtd_init (vtd_spte_rsvd)",
        members=("snoop_bit_in_scalable",),
    ),
    VtdDeviation(
        "execute-disable-unchecked",
        "9.7",
        "XD of a first-stage entry is no reserved bit while NXE is 0",
        "vtd_init (vtd_fpte_rsvd)",
        members=("execute_disable_reserved",),
    ),
    VtdDeviation(
        "interrupt-range-by-page",
        "3.15",
        "a page that overlaps the interrupt range is blocked as a whole",
        "vtd_do_iommu_translate",
        members=("interrupt_range_by_page",),
    ),
    VtdDeviation(
        "pasid-type-first",
        "7.1.3",
        "the type of a PASID entry is looked at before it is known to be present",
        "vtd_get_pe_in_pasid_leaf_table",
        members=("pasid_type_before_present",),
    ),
    VtdDeviation(
        "pasid-structures-unchecked",
        "9.4 to 9.6",
        "reserved bits and missing capabilities in PASID structures, PDTS and PASIDE are not "
        "checked",
        "vtd_get_pe_from_pasid_table",
        members=("pasid_structures_checked",),
    ),
    VtdDeviation(
        "pass-through-width",
        "9.3",
        "AW of a pass-through context entry may be any that is supported",
        "vtd_dev_to_context_entry",
        members=("pass_through_any_width",),
    ),
    VtdDeviation(
        "rights-by-level",
        "7.1.3",
        "rights of first-stage entries are checked level by level",
        "vtd_iova_to_flpte",
        members=("first_stage_rights_by_level",),
    ),
    VtdDeviation(
        "all-ones-unreadable",
        "7.1.3",
        "a paging entry of all ones is taken for one that cannot be read",
        "vtd_iova_to_slpte, vtd_iova_to_flpte",
        members=("all_ones_unreadable",),
    ),
    VtdDeviation(
        "context-reserved-unqualified",
        "7.1.3",
        "FPD does not suppress the fault about reserved bits of a context entry",
        "vtd_qualified_faults",
        members=("context_reserved_unqualified",),
    ),
    VtdDeviation(
        "queue-does-not-resume",
        "6.5.2.10",
        "the queue goes on with the next write of its tail, not once IQE is cleared",
        "vtd_handle_fsts_write",
        members=("resumes_after_queue_error",),
    ),
    VtdDeviation(
        "compatibility-format-passes",
        "5.1.4",
        "messages of the compatibility format pass whatever GCMD.CFI and IRTA.EIME say "
        "(docs/findings/vtd-compatibility-format.md)",
        "vtd_interrupt_remap_msi",
        members=("compatibility_format_passes",),
    ),
    VtdDeviation(
        "source-of-dma-unknown",
        "5.1.4, 9.10",
        "a message that is written by DMA has no source id: SID of its entry is not checked, and a "
        "fault record names ff:1f.7 (docs/findings/vtd-source-of-dma.md)",
        "vtd_mem_ir_write (MEMTXATTRS_UNSPECIFIED of pci_dma_write)",
        shows=(
            Condition(
                ("interrupt-request", "fault-record", "FSTS", "interrupt"),
                notes=("message written by DMA",),
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
    VtdDeviation(
        "subhandle-checked-last",
        "5.1.4.1",
        "reserved data bits of a message with a subhandle are looked at behind its entry, and "
        "recorded without its index",
        "vtd_interrupt_remap_msi",
        members=("request_data_checked_last",),
    ),
    VtdDeviation(
        "interrupt-index-wraps",
        "5.1.3",
        "the sum of handle and subhandle is cut to 16 bits",
        "vtd_interrupt_remap_msi (uint16_t index)",
        members=("interrupt_index_wraps",),
    ),
    VtdDeviation(
        "interrupt-destination-unchecked",
        "9.10",
        "bits of a destination that an xAPIC id has no use for are not checked",
        "vtd_irte_get",
        members=("interrupt_destination_checked",),
    ),
    VtdDeviation(
        "posted-entry-remaps",
        "9.10",
        "IM of an interrupt entry is not looked at: one that posts remaps, though CAP.PI is 0",
        "vtd_irte_get",
        members=("posted_taken_for_remapped",),
    ),
    VtdDeviation(
        "handle-mask-unchecked",
        "6.5.2.7",
        "an interrupt-entry invalidation with IM above ECAP.MHMV is no error",
        "vtd_process_inv_iec_desc",
        members=("handle_mask_checked",),
    ),
    VtdDeviation(
        "upper-event-address",
        "11.4",
        "FEUADDR and IEUADDR stay 0 in a unit with extended interrupt mode, too",
        "vtd_init (vtd_define_long with a write mask of 0)",
        members=("upper_event_addresses",),
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
        _FIXED_11,
        "an 8-byte write to FECTL, IECTL or IEADDR aborts (a35c5755d942)",
        re.compile(r"vtd_mem_write: Assertion `size == 4'"),
    ),
    Crash(
        "wait-write-and-interrupt",
        _FIXED_11,
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
