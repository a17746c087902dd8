// What a unit is built from: capabilities, RAM, and its dialect, the deviations of a recorded unit.
//
// The dialects' tables are written in harness/model/dialects.py only and handed over at run time.
#pragma once

#include "layout.hpp"
#include "memory.hpp"

#include <algorithm>
#include <vector>

namespace dmarewind {

// Fault reasons of the root and context lookup.
struct EntryReasons {
    u8 root_read = 0;
    u8 root_not_present = 0;
    u8 root_reserved = 0;
    u8 context_read = 0;
    u8 context_not_present = 0;
    u8 context_reserved = 0;
    u8 context_invalid = 0;
};

// Fault reasons of the second-stage walk.
struct SecondStageReasons {
    u8 root_read = 0;
    u8 entry_read = 0;
    u8 not_present_read = 0;
    u8 not_present_write = 0;
    u8 no_read = 0;
    u8 no_write = 0;
    u8 reserved = 0;
    u8 beyond_width = 0;
    u8 interrupt_range = 0;
};

struct Dialect {
    EntryReasons legacy_entries;
    EntryReasons scalable_entries;
    SecondStageReasons legacy_second_stage;
    SecondStageReasons scalable_second_stage;
    bool snoop_bit_in_scalable = false;
    bool execute_disable_reserved = true;
    bool interrupt_range_by_page = false;
    bool pasid_type_before_present = false;
    bool pasid_structures_checked = true;
    bool root_pointer_checked = true;
    bool root_mode_checked = true;
    bool dirty_tracking_checked = true;
    bool pass_through_any_width = false;
    bool first_stage_rights_by_level = false;
    bool all_ones_unreadable = false;
    bool context_reserved_unqualified = false;
    bool honours_rid_pasid = false;
    bool compatibility_format_passes = false;
    bool request_data_checked_last = false;
    bool interrupt_index_wraps = false;
    bool interrupt_destination_checked = true;
    bool posted_taken_for_remapped = false;
    bool handle_mask_checked = true;
    bool nested_unsupported = false;
    bool device_selective_ignores_domain = false;
    bool upper_event_addresses = true;
    bool device_requests_unchecked = false;
    bool device_messages_traced = true;
    bool resumes_after_queue_error = true;
    u64 untraced_descriptors = 0; // bit n: descriptors of type n
    u64 fault_record_ignored = 0;
};

// How a unit fares when it has to set an A or D bit: refused unless the PASID entry's PWSNP is set,
// or failing.
enum class Updates : u8 { done, not_snooped, failing };
inline constexpr unsigned updates_count = 3;

// Invalidation descriptors a trace may have executed, beside some for each of its events.
inline constexpr u64 default_descriptor_budget = u64{1} << 18;

struct UnitConfig {
    u64 capability = 0;
    u64 extended_capability = 0;
    u32 version = 0;
    unsigned host_address_width = 46;
    std::vector<Range> ram;
    Dialect dialect;
    u64 page_budget = Memory::default_page_budget;
    u64 descriptor_budget = default_descriptor_budget;
    u32 virtual_commands = 0; // offset of VCCAP, or 0
    Updates updates = Updates::done;

    u64 cap(layout::Field field) const { return field.of(capability); }
    u64 ecap(layout::Field field) const { return field.of(extended_capability); }

    unsigned guest_address_width() const {
        return static_cast<unsigned>(cap(layout::Capability::mgaw)) + 1;
    }

    // The address bits (51:HAW) that no paging entry may set; 63:52 are not address.
    u64 beyond_host() const {
        return (u64{1} << 52) - (u64{1} << std::min(host_address_width, 52U));
    }

    // The bits (63:HAW) that no pointer in a root, context or PASID entry may set.
    u64 beyond_host_pointer() const {
        return host_address_width >= 64 ? 0 : ~u64{0} << host_address_width;
    }

    // Whether CAP.SAGAW offers an AW code (1: 39 bits, 2: 48, 3: 57).
    bool width_supported(u64 aw) const {
        return aw >= 1 && aw <= 3 && (cap(layout::Capability::sagaw) >> aw & 1) != 0;
    }

    u64 widest() const {
        for (u64 aw = 3; aw != 0; --aw)
            if (width_supported(aw))
                return aw;
        return 0;
    }
};

constexpr u8 code(layout::Reason reason) {
    return static_cast<u8>(reason);
}

} // namespace dmarewind
