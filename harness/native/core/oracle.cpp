#include "oracle.hpp"

namespace dmarewind {

bool compatible(const Outcome &recorded, const Outcome &permitted, u64 iova) {
    if (recorded.type != OutcomeType::translation || permitted.type != OutcomeType::translation)
        return recorded == permitted;
    if ((recorded.mask & ~permitted.mask) != 0)
        return false;
    const u64 inside = permitted.mask & ~recorded.mask;
    return recorded.address == ((permitted.address & ~permitted.mask) | (iova & inside));
}

bool same_place(const Outcome &left, const Outcome &right, u64 iova) {
    if (left.type == OutcomeType::translation && right.type == OutcomeType::translation)
        return (left.address | (iova & left.mask)) == (right.address | (iova & right.mask));
    return left == right;
}

namespace {

Finding finding(u64 event, FindingKind kind, const Outcome &recorded,
                std::span<const Candidate> permitted, const Candidate &source) {
    Finding found;
    found.event = static_cast<Number>(event);
    found.kind = kind;
    found.subject = "access";
    found.observed = Compared(recorded);
    for (const Candidate &candidate : permitted)
        found.permitted.emplace_back(candidate.outcome);
    const Trail &trail = permitted[0].trail;
    found.steps.assign(trail.steps.begin(), trail.steps.begin() + trail.count);
    found.cache = text(source.cache);
    found.domain = source.domain;
    found.filled_by = source.filled_by;
    found.changed_by = source.changed_by;
    return found;
}

} // namespace

std::optional<Finding> judge(u64 event, u64 iova, const Outcome &recorded,
                             std::span<const Candidate> permitted,
                             std::span<const Dropped> dropped) {
    const Candidate &fresh = permitted[0];
    const auto stale = permitted.subspan(1);
    if (compatible(recorded, fresh.outcome, iova)) {
        for (const Candidate &other : stale)
            if (!same_place(other.outcome, fresh.outcome, iova))
                return finding(event, FindingKind::unflushed, recorded, permitted, other);
        return std::nullopt;
    }
    for (const Candidate &other : stale)
        if (compatible(recorded, other.outcome, iova))
            return finding(event, FindingKind::stale_use, recorded, permitted, other);
    for (const Dropped &entry : dropped)
        if (compatible(recorded, entry.outcome, iova)) {
            Finding found =
                finding(event, FindingKind::stale_after_invalidation, recorded, permitted, fresh);
            found.cache = text(CacheName::iotlb);
            found.filled_by = static_cast<Number>(entry.filled_by);
            found.changed_by = -1;
            found.covered_by = static_cast<Number>(entry.dropped_by);
            return found;
        }
    return finding(event, FindingKind::divergence, recorded, permitted, fresh);
}

} // namespace dmarewind
