// What eight requests have in common. Part of each kernel: compiled for its instruction set.
#pragma once

#include "kernel.hpp"

namespace dmarewind {
namespace {

inline u64 same_in_all(u8 byte) {
    return byte * u64{0x0101'0101'0101'0101};
}

// Whether eight requests are to be walked in one manner.
inline bool manner_of_eight(const BatchRequests &requests, std::size_t first, Manner &out) {
    u64 kinds;
    std::memcpy(&kinds, requests.kinds + first, sizeof kinds);
    u64 attributes = 0;
    if (requests.attributes != nullptr)
        std::memcpy(&attributes, requests.attributes + first, sizeof attributes);
    out = {static_cast<u8>(kinds), static_cast<u8>(attributes)};
    return kinds == same_in_all(out.kind) && attributes == same_in_all(out.attributes);
}

// Whether a kernel knows this manner.
inline bool walkable(Manner manner) {
    return manner.kind != static_cast<u8>(AccessKind::unknown) &&
           (manner.attributes & ~is_privileged) == 0;
}

} // namespace
} // namespace dmarewind
