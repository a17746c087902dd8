// Says whether a recorded outcome may be right, given what was permitted.
#pragma once

#include "observation.hpp"

#include <optional>

namespace dmarewind {

// What is wrong with a recorded outcome, nothing when nothing is. dropped are cache entries that
// covered iova and have been invalidated.
std::optional<Finding> judge(u64 event, u64 iova, const Outcome &recorded,
                             std::span<const Candidate> permitted,
                             std::span<const Dropped> dropped);

} // namespace dmarewind
