// What a virtio-iommu is built from: features, config space, and its dialect, the deviations of a
// recorded unit.
//
// The dialects and the statuses are written in harness/model/virtio only and handed over at run
// time.
#pragma once

#include "layout.hpp"
#include "memory.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <vector>

namespace dmarewind::virtio {

namespace wire = layout::virtio_iommu;
using wire::Condition;

// The trace makes more mappings, domains and endpoints than it was allowed to.
class BudgetError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A set of conditions: bit n is condition n.
using ConditionSet = u64;
static_assert(wire::conditions <= 64);

constexpr ConditionSet bit(Condition condition) {
    return ConditionSet{1} << static_cast<unsigned>(condition);
}

struct Dialect {
    std::array<u8, wire::conditions> statuses{}; // of each condition
    std::array<u32, wire::conditions> others{};  // bit n: status n is permitted as well
    ConditionSet binding = 0;                    // those that do not allow success as well
    ConditionSet doubtful = 0;                   // those about mappings that may be gone
    ConditionSet ignored = 0;
    std::vector<u8> trouble;            // statuses that may come at any time
    std::vector<u8> unattached_reasons; // the first one by choice
    u32 fault_flags_ignored = 0;
    u32 endpoint_bits = 32;
    bool endpoint_ids_wrap = false;
    bool breaks = false;
    bool order_first = false;
    bool first_decides = false;
    bool flags_need_features = true;
    bool detaches_first = false;
    bool remembers_endpoints = false;
    bool reserved_regions_without_domain = false;
    bool write_may_imply_read = true;
    bool short_probe_tail_first = false;
    bool reaches_next_byte = false;
    bool keeps_page_offset = false;
    bool reset_keeps_domains = false;
    bool removes_before_split = false;
    bool fault_flags_of_rights_only = false;
};

struct Config {
    u64 features = 0;
    std::vector<u8> space;
    bool known = true; // space comes from the device; otherwise the first ConfigSpace gives it
    u64 mapping_budget = 0;
    Dialect dialect;
};

// The fields of a config space that decide how requests are answered.
struct Parameters {
    u64 page_size_mask = 0;
    u64 input_start = 0;
    u64 input_end = 0;
    u64 domain_start = 0;
    u64 domain_end = 0;
    u64 probe_size = 0;
    u64 bypass = 0;

    // What a config space is too short for is zero.
    static Parameters of(std::span<const u8> space) {
        using Fields = wire::Config;
        std::array<u8, Fields::size> whole{};
        std::copy_n(space.begin(), std::min(space.size(), whole.size()), whole.begin());
        const u8 *data = whole.data();
        return {Fields::page_size_mask.get(data),
                Fields::input_range_start.get(data),
                Fields::input_range_end.get(data),
                Fields::domain_range_start.get(data),
                Fields::domain_range_end.get(data),
                Fields::probe_size.get(data),
                Fields::bypass.get(data)};
    }

    // The smallest page size; 1 byte where the mask says nothing.
    u64 granule() const { return page_size_mask == 0 ? 1 : page_size_mask & (~page_size_mask + 1); }
};

} // namespace dmarewind::virtio
