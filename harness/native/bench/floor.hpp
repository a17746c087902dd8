// What translation cannot do without: the dependent loads, and not one check.
//
// This is the yardstick of tools/bench translate, never part of the product: the same address
// stream over the same memory, each entry's address computed from the one before.
#pragma once

#include "fast_tlb.hpp"

namespace dmarewind::bench {

struct Stream {
    std::size_t count;
    const u16 *sids;
    const u32 *pasids;
    const u64 *iovas;
    u64 *addresses;
};

// Cold: root and context entry, in scalable mode PASID directory and table entry, then one entry
// per level. levels 0 is pass-through; qword is the one of the PASID entry that holds the pointer.
void legacy_floor(const std::byte *memory, u64 root, unsigned levels, const Stream &stream);
void scalable_floor(const std::byte *memory, u64 root, unsigned levels, unsigned qword,
                    const Stream &stream);

// Warm: the device's slot, then (unless it passes through) the page's set.
void warm_floor(const FastTlb &tlb, bool pages, const Stream &stream);

} // namespace dmarewind::bench
