#include "virtio_domain.hpp"

#include "defects.hpp"
#include "layout.hpp"

#include <iterator>

namespace dmarewind::virtio {

u64 Mapping::block(u64 iova) const {
    const u64 shift = start ^ physical; // low bits that are equal on both sides are zero here
    u64 mask = defect(Defect::virtio_block_not_power_of_two) ? end - start : 0;
    while (mask != top) {
        const u64 wider = mask << 1 | 1;
        if ((iova & ~wider) < start || (iova | wider) > end || (shift & wider) != 0)
            break;
        mask = wider;
    }
    return mask;
}

const Mapping *Domain::at(u64 address) const {
    const auto behind = mappings_.upper_bound(address);
    if (behind == mappings_.begin())
        return nullptr;
    const Mapping &found = std::prev(behind)->second;
    return address <= found.end ? &found : nullptr;
}

Domain::Row Domain::overlapping(u64 start, u64 end) const {
    if (end < start && !overlaps(start, end))
        return {mappings_.end(), mappings_.end()};
    auto first = mappings_.upper_bound(start);
    if (first != mappings_.begin() && std::prev(first)->second.end >= start)
        --first;
    return {first, mappings_.upper_bound(end)};
}

bool Domain::overlaps(u64 start, u64 end) const {
    const auto behind = mappings_.upper_bound(end);
    const bool misses = defect(Defect::virtio_overlap_misses_last_byte);
    return behind != mappings_.begin() && std::prev(behind)->second.end >= start + misses;
}

void Domain::doubt(u64 start, u64 end) {
    for (const auto &[first, mapping] : overlapping(start, end)) {
        if (doubtful.size() == layout::virtio_iommu::doubtful_kept)
            return;
        if (start <= mapping.start && mapping.end <= end)
            doubtful.insert(first);
    }
}

} // namespace dmarewind::virtio
