"""What QEMU's intel-iommu does otherwise in a way that members of its dialect stand for.

Rows as in harness.deviations_vtd, with the same sources. The model and the core know how to do
these, so that what follows from one is no finding.
"""

from __future__ import annotations

from typing import Final

from harness.differential.deviation import BEFORE_11, VtdDeviation

MEMBERS: Final = (
    VtdDeviation(
        "record-has-pasid",
        "7.3",
        "PP of a fault record is set for a request without PASID",
        "vtd_do_iommu_translate (pasid is RID_PASID by then)",
        fixed="dde3f966f0fe",
        last=BEFORE_11,
        members=("fault_record_ignored",),
    ),
    VtdDeviation(
        "rid-pasid-honoured",
        "9.4",
        "RID_PASID of a context entry is used though ECAP.RPS is 0",
        "vtd_ce_get_rid2pasid_entry",
        fixed="c629b030a2",
        last=BEFORE_11,
        members=("honours_rid_pasid",),
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
        "dirty-tracking-unchecked",
        "9.6",
        "SSADE of a PASID entry is no error in a unit without ECAP.SSADS",
        "vtd_get_pe_in_pasid_leaf_table",
        members=("dirty_tracking_checked",),
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
)
