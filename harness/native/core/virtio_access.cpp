#include "virtio_access.hpp"

namespace dmarewind::virtio {
namespace {

using wire::FaultFlag;
using wire::FaultReason;
using wire::MapFlag;

Permitted translation(u64 address, u64 mask) {
    Permitted made;
    made.outcome.type = OutcomeType::translation;
    made.outcome.address = address;
    made.outcome.mask = mask;
    return made;
}

Permitted identity(const State &state, u64 iova) {
    const u64 mask = state.parameters.granule() - 1;
    return translation(iova & ~mask, mask);
}

u32 flag_of(AccessKind kind) {
    switch (kind) {
    case AccessKind::read:
        return FaultFlag::read;
    case AccessKind::write:
        return FaultFlag::write;
    case AccessKind::execute:
        return FaultFlag::exec;
    default:
        return 0;
    }
}

Permitted fault(const State &state, u8 reason, AccessKind kind, bool lacks_right) {
    Permitted made;
    made.outcome.type = OutcomeType::fault;
    made.outcome.reason = reason;
    made.flags = FaultFlag::address;
    if (lacks_right || !state.dialect.fault_flags_of_rights_only)
        made.flags |= flag_of(kind);
    return made;
}

Permitted unmapped(const State &state, AccessKind kind) {
    return fault(state, static_cast<u8>(FaultReason::mapping), kind, false);
}

std::optional<Permitted> reserved(const State &state, u32 endpoint, u64 iova, AccessKind kind) {
    if (const auto *regions = state.regions_of(endpoint))
        for (const Region &region : *regions)
            if (region.start <= iova && iova <= region.end)
                return region.subtype == static_cast<u8>(wire::ResvSubtype::msi)
                           ? identity(state, iova)
                           : unmapped(state, kind);
    return std::nullopt;
}

// The mappings that a lookup may find, null where there are less than two.
std::array<const Mapping *, 2> lookup(const State &state, const Domain &domain, u64 iova) {
    const Mapping *here = domain.at(iova);
    if (!state.dialect.reaches_next_byte)
        return {here, nullptr};
    if (iova == top) {
        const bool all = here != nullptr && here->start == 0 && here->end == top;
        return {all ? here : nullptr, nullptr};
    }
    const Mapping *behind = domain.at(iova + 1);
    if (here == nullptr || here == behind)
        return {behind, nullptr};
    return {here, behind};
}

void add_mapped(const State &state, const Mapping &mapping, u64 iova, AccessKind kind,
                std::vector<Permitted> &found) {
    const auto add_answers = [&] {
        const u64 mask = mapping.holds(iova) ? mapping.block(iova) : 0;
        const u64 address = mapping.address(iova);
        const u64 offset = state.parameters.granule() - 1;
        if (state.dialect.keeps_page_offset && ((address ^ iova) & offset) != 0) {
            found.push_back(translation((address & ~offset) | (iova & offset), 0));
            found.back().mapping = mapping;
        }
        found.push_back(translation(address & ~mask, mask));
        found.back().mapping = mapping;
    };
    const auto add_refused = [&](AccessKind wanted) {
        const u32 right = wanted == AccessKind::write ? MapFlag::write : MapFlag::read;
        if ((mapping.flags & right) != 0)
            return false;
        found.push_back(fault(state, static_cast<u8>(FaultReason::mapping), wanted, true));
        return true;
    };
    if (kind == AccessKind::unknown) {
        // What was wanted is not known, so that each right that is missing may be the one.
        add_answers();
        add_refused(AccessKind::read);
        add_refused(AccessKind::write);
        return;
    }
    const bool implied = state.dialect.write_may_imply_read && kind != AccessKind::write &&
                         (mapping.flags & MapFlag::write) != 0;
    if (!add_refused(kind) || implied)
        add_answers();
}

} // namespace

void permitted(const State &state, u32 endpoint, u64 iova, AccessKind kind,
               std::vector<Permitted> &found) {
    const Dialect &dialect = state.dialect;
    const auto number = state.domain_of(endpoint);
    const Domain *domain = number.has_value() ? state.domain(*number) : nullptr;
    found.clear();
    if (domain == nullptr ? state.bypasses() : domain->bypass) {
        found.push_back(identity(state, iova));
        return;
    }
    if (dialect.remembers_endpoints && !state.is_seen(endpoint)) {
        found.push_back(fault(state, static_cast<u8>(FaultReason::unknown), kind, false));
        return;
    }
    if (domain != nullptr || dialect.reserved_regions_without_domain)
        if (const auto inside = reserved(state, endpoint, iova, kind)) {
            found.push_back(*inside);
            return;
        }
    if (domain == nullptr) {
        for (const u8 reason : dialect.unattached_reasons)
            found.push_back(fault(state, reason, kind, false));
        return;
    }
    const Mapping *doubtful = nullptr;
    bool certain = false;
    for (const Mapping *mapping : lookup(state, *domain, iova))
        if (mapping != nullptr) {
            add_mapped(state, *mapping, iova, kind, found);
            if (!domain->is_doubtful(*mapping))
                certain = true;
            else if (doubtful == nullptr)
                doubtful = mapping;
        }
    if (found.empty()) {
        found.push_back(unmapped(state, kind));
    } else if (!certain) {
        found.push_back(unmapped(state, kind));
        found.back().mapping = *doubtful;
        found.back().gone = true;
    }
}

} // namespace dmarewind::virtio
