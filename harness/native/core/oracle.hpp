// Says whether a recorded outcome may be right, given what was permitted.
#pragma once

#include "observation.hpp"

#include <optional>

namespace dmarewind {

// Whether a unit that permits one outcome may answer with the recorded one: a translation may be a
// fraction of the permitted page, never more than it.
bool compatible(const Outcome &recorded, const Outcome &permitted, u64 iova);

// Whether two outcomes lead one access to the same address, or to the same fault.
bool same_place(const Outcome &left, const Outcome &right, u64 iova);

// What is wrong with a recorded outcome, nothing when nothing is. dropped are cache entries that
// covered iova and have been invalidated.
std::optional<Finding> judge(u64 event, u64 iova, const Outcome &recorded,
                             std::span<const Candidate> permitted,
                             std::span<const Dropped> dropped);

} // namespace dmarewind
