#include "virtio_state.hpp"

#include "defects.hpp"

#include <string>

namespace dmarewind::virtio {

State::State(const Config &config)
    : dialect(config.dialect), offered(config.features), parameters(Parameters::of(config.space)),
      left_over_(static_cast<std::int64_t>(config.mapping_budget)) {}

void State::forget() {
    while (!domains_.empty())
        end(domains_.begin()->first);
    left_over_ += static_cast<std::int64_t>(attached_.size() + left_.size() + seen_.size());
    attached_.clear();
    left_.clear();
    seen_.clear();
    accepted = 0;
    broken = false;
}

void State::declare(u32 endpoint, std::span<const Region> regions) {
    endpoint = who(endpoint);
    spend(!present_.contains(endpoint));
    present_.insert(endpoint);
    buses_.insert(endpoint >> wire::bus_shift);
    learn(endpoint, regions);
}

void State::learn(u32 endpoint, std::span<const Region> regions) {
    endpoint = who(endpoint);
    const auto known = regions_.find(endpoint);
    const std::size_t before = known == regions_.end() ? 0 : known->second.size();
    if (region_count_ - before + regions.size() > wire::regions_kept)
        throw BudgetError("the trace has more than " + std::to_string(wire::regions_kept) +
                          " reserved regions");
    spend(known == regions_.end());
    region_count_ = region_count_ - before + regions.size();
    regions_[endpoint].assign(regions.begin(), regions.end());
    if (regions.empty())
        restricted_.erase(endpoint);
    else
        restricted_.insert(endpoint);
}

void State::spend(bool one) {
    left_over_ -= one;
    if (left_over_ < 0)
        throw BudgetError(
            "the trace makes more mappings, domains and endpoints than --mapping-budget allows");
}

bool State::endpoint_is_absent(u32 endpoint) const {
    endpoint = who(endpoint);
    return !present_.contains(endpoint) && is_listed(endpoint);
}

bool State::endpoint_is_unknown(u32 endpoint) const {
    endpoint = who(endpoint);
    return !present_.contains(endpoint) && !is_listed(endpoint);
}

u32 State::who(u32 endpoint) const {
    const u64 ids = u64{1} << dialect.endpoint_bits;
    return dialect.endpoint_ids_wrap ? static_cast<u32>(endpoint & (ids - 1)) : endpoint;
}

bool State::is_listed(u32 endpoint) const {
    return buses_.contains(endpoint >> wire::bus_shift) ||
           u64{endpoint} >> dialect.endpoint_bits != 0;
}

const std::vector<Region> *State::regions_of(u32 endpoint) const {
    const auto found = regions_.find(who(endpoint));
    return found == regions_.end() ? nullptr : &found->second;
}

bool State::in_domain_range(u32 domain) const {
    return !offers(wire::Feature::domain_range) ||
           (parameters.domain_start <= domain && domain <= parameters.domain_end);
}

bool State::in_input_range(u64 start, u64 end) const {
    return !offers(wire::Feature::input_range) ||
           (parameters.input_start <= start &&
            (end <= parameters.input_end || defect(Defect::virtio_input_range_unchecked)));
}

bool State::meets_reserved_region(const Domain &domain, u64 start, u64 end) const {
    // At most regions_kept endpoints have regions, but there may be many others.
    for (const u32 endpoint : restricted_)
        if (domain.endpoints.contains(endpoint))
            for (const Region &region : regions_.at(endpoint))
                if (region.start <= end && start <= region.end)
                    return true;
    return false;
}

bool State::bypasses() const {
    if (offers(wire::Feature::bypass_config) && (parameters.bypass & 1) != 0)
        return true;
    return (accepted & wire::Feature::bypass) != 0;
}

std::optional<u32> State::find(const std::map<u32, u32> &places, u32 endpoint) {
    const auto found = places.find(endpoint);
    return found == places.end() ? std::nullopt : std::optional(found->second);
}

Domain *State::domain(u32 number) {
    const auto found = domains_.find(number);
    return found == domains_.end() ? nullptr : &found->second;
}

Domain &State::make(u32 number, bool bypass) {
    if (Domain *found = domain(number))
        return *found;
    spend(true);
    return domains_.emplace(number, bypass).first->second;
}

void State::attach(u32 endpoint, u32 number, bool bypass) {
    if (domain_of(endpoint) == number && !dialect.detaches_first)
        return;
    detach(endpoint);
    make(number, bypass).endpoints.insert(endpoint);
    spend(true);
    attached_[endpoint] = number;
    see(endpoint);
}

void State::see(u32 endpoint) {
    spend(!is_seen(endpoint));
    seen_.insert(endpoint);
}

void State::forget_endpoint(u32 endpoint) {
    left_over_ += static_cast<std::int64_t>(seen_.erase(endpoint));
}

void State::detach(u32 endpoint) {
    const auto place = attached_.find(endpoint);
    if (place == attached_.end())
        return;
    const u32 number = place->second;
    attached_.erase(place);
    ++left_over_;
    spend(!left_.contains(endpoint));
    left_[endpoint] = number;
    Domain &domain = domains_.at(number);
    if (!defect(Defect::virtio_endpoint_kept))
        domain.endpoints.erase(endpoint);
    if (domain.endpoints.empty())
        end(number);
    if (defect(Defect::virtio_domain_used_after_end))
        domain.endpoints.erase(endpoint);
}

void State::end(u32 number) {
    const auto ended = domains_.extract(number);
    const auto &mappings = ended.mapped().mappings();
    left_over_ += static_cast<std::int64_t>(1 + mappings.size());
    for (const auto &[start, mapping] : mappings)
        remember(number, mapping);
}

void State::remember(u32 number, const Mapping &mapping) {
    if (dropped.size() == wire::dropped_kept)
        dropped.pop_front();
    dropped.push_back({number, mapping, event});
}

void State::map(u32 number, const Mapping &mapping) {
    Domain &domain = make(number, false);
    drop_overlapping(number, domain, mapping.start, mapping.end);
    spend(true);
    domain.add(mapping);
}

void State::unmap(u32 number, u64 start, u64 end) {
    if (Domain *found = domain(number))
        drop_overlapping(number, *found, start, end);
}

void State::drop_overlapping(u32 number, Domain &domain, u64 start, u64 end) {
    const auto row = domain.overlapping(start, end);
    for (auto at = row.begin(); at != row.end();)
        drop(number, (at++)->second);
}

void State::drop(u32 number, const Mapping &mapping) {
    remember(number, mapping);
    domains_.at(number).remove(mapping.start);
    ++left_over_;
}

} // namespace dmarewind::virtio
