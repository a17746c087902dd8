// Translate an access at a virtio-iommu: what is permitted, and what a fault report says.
#pragma once

#include "layout.hpp"
#include "virtio_state.hpp"

namespace dmarewind::virtio {

using layout::AccessKind;

// One permitted outcome: the flags of its report, and the mapping it came from. gone says that the
// mapping may be gone, and has to be for this outcome.
struct Permitted {
    Outcome outcome;
    u32 flags = 0;
    std::optional<Mapping> mapping;
    bool gone = false;
};

// Put what an access may be answered into found, the expected outcome first.
void permitted(const State &state, u32 endpoint, u64 iova, AccessKind kind,
               std::vector<Permitted> &found);

} // namespace dmarewind::virtio
