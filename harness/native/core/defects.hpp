// Defects that are planted in the core, to see whether the fuzzers find them (docs/defects.md).
//
// Only a bench build (DMAREWIND_DEFECTS) can make them, one at a time; in any other a question for
// one is a constant, which leaves no code. Each row: its name; the fuzz targets that can reach it,
// the likeliest first; the commit of QEMU that fixed such a mistake, or "kind" for one that people
// make as often, in what QEMU does not have; what is wrong.
#pragma once

#include <cstdint>
#include <string_view>

// clang-format off
#define DMAREWIND_DEFECTS_LIST(X) \
    /* invalidation queue */ \
    X(wait_with_status_and_interrupt, "descriptors trace stateful", "e8145dcd31", \
      "a wait descriptor with SW and IF asserts") \
    X(wait_of_fence_refused, "descriptors trace stateful", "57ac646a2e", \
      "a wait descriptor that is a fence only is an error") \
    X(queue_tail_bit_ignored, "trace", "e70e83f561", \
      "a tail in the middle of a 256-bit descriptor is rounded down") \
    X(queue_upper_half_unchecked, "descriptors trace", "8e761fb61c", \
      "reserved bits in the upper half of a 256-bit descriptor are not looked at") \
    X(interrupt_entry_descriptor_unchecked, "descriptors trace", "096d96e7be", \
      "reserved bits of an interrupt entry cache descriptor are not looked at") \
    X(pasid_descriptors_in_narrow_queue, "descriptors trace", "3b52cea829", \
      "descriptors about PASIDs are taken from a queue of 128-bit ones") \
    X(descriptor_type_of_four_bits, "descriptors trace", "663168943d", \
      "only the lower bits of a descriptor's type are decoded") \
    X(queue_width_reads_zero, "stateful trace", "515457757f", \
      "IQA.DW reads as 0") \
    X(queue_head_shift, "descriptors trace stateful", "a4544c45e1", \
      "the head moves by 128-bit descriptors in a queue of 256-bit ones") \
    X(queue_width_kept, "trace", "147a372e75", \
      "a queue that was wide stays so when it is set up again") \
    /* caches */ \
    X(pasid_cache_invalidation_ignored, "descriptors trace stateful", "c9cf33075a", \
      "PASID cache descriptors do nothing: a device keeps its old translation mode") \
    X(page_invalidation_skips_regions, "descriptors stateful trace", "36d2d52bdb", \
      "a page-selective invalidation that covers whole tables is skipped") \
    X(page_invalidation_skips_large_pages, "descriptors stateful trace", "36d2d52bdb", \
      "a page-selective invalidation looks for small pages only") \
    X(function_mask_not_inverted, "descriptors trace stateful", "6cb99acc28", \
      "a device-selective invalidation compares the bits that its mask excludes") \
    X(context_key_without_bus, "trace stateful", "bacabb0afa", \
      "the key of a cached context entry loses the bus number") \
    X(pasid_key_of_table_index, "trace", "bacabb0afa", \
      "the key of a cached PASID entry is the index in its table") \
    X(domain_invalidation_keeps_tables, "descriptors trace stateful", "3e090e3489", \
      "an invalidation of a domain leaves cached table entries") \
    X(device_tlb_range_of_32_bits, "descriptors trace", "04eb6247eb", \
      "the range of a device-TLB invalidation is computed in 32 bits") \
    X(ways_never_full, "trace stateful", "kind", \
      "a fifth entry under one key is written beyond the array (UBSan)") \
    X(store_pointer_stale, "trace stateful descriptors", "kind", \
      "the last store stays at hand after it was given back") \
    X(interrupt_range_not_aligned, "stateful trace", "kind", \
      "an interrupt entry invalidation does not round its index down to the mask") \
    /* registers */ \
    X(wide_event_write_aborts, "trace", "a35c5755d942", \
      "an 8-byte write to FECTL, IECTL or IEADDR aborts") \
    X(wide_fault_address_write_aborts, "trace", "b7a7bb358f", \
      "an 8-byte write to FEADDR aborts") \
    X(root_mode_reads_zero, "trace stateful", "8fdee7118d", \
      "RTADDR.TTM reads as 0") \
    X(reset_keeps_interrupt_remapping, "trace", "d7bb469afa", \
      "a reset leaves interrupt remapping on") \
    X(reset_keeps_root, "trace", "ceb058955a", \
      "a reset leaves the root table and its mode") \
    X(masked_event_lost, "stateful trace", "kind", \
      "a fault event that came while it was masked is not sent later") \
    /* tables that lead to paging */ \
    X(rid_pasid_without_capability, "pasid descriptors trace", "c629b030a2", \
      "RID_PASID is honoured although ECAP.RPS is 0") \
    X(pass_through_from_context, "pasid trace", "5178d78f4b", \
      "scalable pass-through is decided from the context entry") \
    X(pasid_directory_present_unchecked, "pasid trace stateful", "56fc1e6ac6", \
      "a PASID directory entry need not be present") \
    X(pasid_entry_present_unchecked, "pasid trace stateful", "56fc1e6ac6", \
      "a PASID entry need not be present") \
    X(upper_context_table_index, "trace stateful", "kind", \
      "the upper scalable context table is indexed with all bits of the function") \
    /* paging */ \
    X(second_stage_interrupt_range, "pagetables stateful trace", "ea97a1bde7", \
      "output of the second stage in the interrupt range is let through") \
    X(first_stage_interrupt_range, "pagetables stateful trace", "fed51ee5e0", \
      "output of the first stage in the interrupt range is let through") \
    X(snoop_bit_reserved, "pagetables stateful", "0192d6677c", \
      "SNP is reserved although the unit has snoop control") \
    X(transient_bit_allowed, "pagetables stateful", "e48929c787", \
      "TM is not reserved") \
    X(large_page_mask, "pagetables stateful", "ce586f3b8d", \
      "reserved bits of a large page are those of a table entry") \
    X(canonical_off_by_one, "trace stateful", "kind", \
      "the sign of a first-stage address is one bit too high") \
    X(nested_write_leaves_no_dirty, "pagetables trace", "kind", \
      "setting A or D does not make the second-stage page under the table dirty") \
    X(rights_of_last_level, "pagetables stateful", "kind", \
      "the leaf alone says what may be done") \
    /* faults */ \
    X(fault_pasid_present, "pagetables pasid trace", "dde3f966f0fe", \
      "FRCD.PP is set for a request without a PASID") \
    X(fault_record_sign_extended, "trace", "a3c8d7e385", \
      "the PASID of a fault record is sign-extended over other fields") \
    X(fault_address_not_page, "trace stateful", "kind", \
      "a fault record has all bits of the address") \
    /* interrupts and page requests */ \
    X(interrupt_index_unbounded, "stateful trace", "3c507c26ec", \
      "an interrupt index beyond the table is read") \
    X(interrupt_faults_unreported, "stateful trace", "c7016bf700", \
      "faults of interrupt remapping leave no record") \
    X(page_request_group_of_8_bits, "trace", "kind", \
      "the group index of a page request loses its ninth bit") \
    /* traces */ \
    X(trace_length_unchecked, "trace virtio", "kind", \
      "bytes of an event may be more than are left (ASan)") \
    /* virtio-iommu */ \
    X(virtio_probe_overrun, "virtio", "cf2f89edf3", \
      "more properties than fit are written behind the answer of a PROBE (ASan)") \
    X(virtio_short_request_asserts, "virtio", "704391f94a", \
      "a request without a whole head asserts") \
    X(virtio_domain_used_after_end, "virtio", "4bf58c7213", \
      "a domain that ended with its last endpoint is used once more (ASan)") \
    X(virtio_endpoint_kept, "virtio", "1993d634d5", \
      "a domain keeps an endpoint that was detached") \
    X(virtio_block_not_power_of_two, "virtio", "0522be9a0c", \
      "the block of an answer is the whole mapping, whatever its size") \
    X(virtio_bypass_reads_old, "virtio", "7b140d2359", \
      "config space still shows the old bypass after a write") \
    X(virtio_overlap_misses_last_byte, "virtio", "kind", \
      "a range that meets the last byte of a mapping does not overlap it") \
    X(virtio_input_range_unchecked, "virtio", "kind", \
      "the input range binds the start of a mapping only") \
    X(virtio_body_unchecked, "virtio", "704391f94a", \
      "a request shorter than its type takes is read to its end (ASan)") \
    /* ACPI */ \
    X(acpi_length_unchecked, "viot acpi", "kind", \
      "the length of a table is believed, however little is there (ASan)") \
    X(acpi_array_product_wraps, "acpi", "kind", \
      "the size of an array is computed in 32 bits") \
    X(acpi_scope_overruns, "acpi", "kind", \
      "a device scope may be longer than its node (ASan)") \
    X(acpi_uid_overruns, "acpi", "kind", \
      "a UID may be longer than its node (ASan)") \
    X(acpi_circle_unnoticed, "acpi", "kind", \
      "mappings that lead round in a circle are followed forever") \
    X(acpi_id_count_exclusive, "acpi", "kind", \
      "the number of ids of a mapping is taken for one more than there are") \
    X(acpi_segment_ignored, "viot acpi", "kind", \
      "the last segment of a PCI range does not count") \
    X(acpi_endpoint_of_16_bits, "viot acpi", "kind", \
      "endpoint ids are computed in 16 bits") \
    X(acpi_secondary_bus_lost, "acpi", "bacabb0afa", \
      "a path over bridges stays on the bus that it began on") \
    X(acpi_all_before_scopes, "acpi", "kind", \
      "INCLUDE_PCI_ALL counts before units that name the device")
// clang-format on

namespace dmarewind {

enum class Defect : std::uint8_t {
#define DMAREWIND_NAME(name, targets, source, what) name,
    DMAREWIND_DEFECTS_LIST(DMAREWIND_NAME)
#undef DMAREWIND_NAME
        none,
};

#if defined(DMAREWIND_DEFECTS)
struct PlantedDefect {
    std::string_view name, targets, source, what;
};
inline constexpr PlantedDefect defects[] = {
#define DMAREWIND_ROW(name, targets, source, what) {#name, targets, source, what},
    DMAREWIND_DEFECTS_LIST(DMAREWIND_ROW)
#undef DMAREWIND_ROW
};

inline Defect planted_defect = Defect::none;

// Whether a mistake is to be made.
inline bool defect(Defect which) {
    return planted_defect == which;
}
#else
constexpr bool defect(Defect) {
    return false;
}
#endif

} // namespace dmarewind
