// What a virtio-iommu remembers: who is behind it, domains, and who is attached to which.
#pragma once

#include "event.hpp"
#include "virtio_config.hpp"
#include "virtio_domain.hpp"

#include <deque>
#include <optional>

namespace dmarewind::virtio {

// A mapping that has ended: its domain, and the event that ended it.
struct Dropped {
    u32 domain;
    Mapping mapping;
    u64 event;
};

// The members mean what those of harness.model.virtio.state.State do. Ordered containers, as keys
// come from the trace and could be made to collide.
class State {
  public:
    explicit State(const Config &config);

    const Dialect dialect;
    u64 event = 0;
    u64 offered;
    u64 accepted = 0;
    bool broken = false;
    Parameters parameters;
    std::deque<Dropped> dropped;

    // Take back what a driver did, as a reset of the device does.
    void forget();
    // Learn that an endpoint is there, and what is reserved.
    void declare(u32 endpoint, std::span<const Region> regions);
    // Learn what is reserved for an endpoint.
    void learn(u32 endpoint, std::span<const Region> regions);

    // What is known.
    bool endpoint_is_absent(u32 endpoint) const;
    bool endpoint_is_unknown(u32 endpoint) const;
    bool is_seen(u32 endpoint) const { return seen_.contains(endpoint); }
    // What is reserved for an endpoint; null when that is not known.
    const std::vector<Region> *regions_of(u32 endpoint) const;
    bool offers(u64 feature) const { return (offered & feature) != 0; }
    // Whether a feature is in use; where nobody saw the negotiation, the offer counts.
    bool in_use(u64 feature) const { return ((accepted != 0 ? accepted : offered) & feature) != 0; }
    // The flags a request may have; flag is the one that belongs to a feature.
    u32 known_flags(u32 flag, u64 feature, u32 others) const {
        return !dialect.flags_need_features || in_use(feature) ? others | flag : others;
    }
    bool in_domain_range(u32 domain) const;
    bool in_input_range(u64 start, u64 end) const;
    // Whether a range touches what is reserved for an endpoint of a domain.
    bool meets_reserved_region(const Domain &domain, u64 start, u64 end) const;
    // Whether endpoints without a domain reach memory as it is.
    bool bypasses() const;
    std::optional<u32> domain_of(u32 endpoint) const { return find(attached_, endpoint); }
    std::optional<u32> left(u32 endpoint) const { return find(left_, endpoint); }
    const std::map<u32, Domain> &domains() const { return domains_; }
    // A domain, or null.
    Domain *domain(u32 number);
    const Domain *domain(u32 number) const { return const_cast<State *>(this)->domain(number); }

    // What requests change.
    void attach(u32 endpoint, u32 number, bool bypass);
    void detach(u32 endpoint);
    // Remember that an ATTACH named an endpoint.
    void see(u32 endpoint);
    void forget_endpoint(u32 endpoint);
    // Add a mapping; what it overlaps is replaced, if the recorded unit allowed it.
    void map(u32 number, const Mapping &mapping);
    // Remove the mappings that a range touches.
    void unmap(u32 number, u64 start, u64 end);
    // Remove one mapping of a domain.
    void drop(u32 number, const Mapping &mapping);

  private:
    static std::optional<u32> find(const std::map<u32, u32> &places, u32 endpoint);
    // The id of the endpoint that the unit takes an id for.
    u32 who(u32 endpoint) const;
    // Whether all endpoints are known that are on the same bus.
    bool is_listed(u32 endpoint) const;
    void spend(bool one);
    Domain &make(u32 number, bool bypass);
    void end(u32 number);
    void remember(u32 number, const Mapping &mapping);
    void drop_overlapping(u32 number, Domain &domain, u64 start, u64 end);

    std::map<u32, Domain> domains_;
    std::map<u32, u32> attached_; // the domain of each endpoint that has one
    std::map<u32, u32> left_;     // the one it had before
    std::set<u32> seen_;          // the endpoints that an ATTACH named
    std::set<u32> present_;       // those that were declared
    std::set<u32> buses_;
    std::map<u32, std::vector<Region>> regions_;
    std::set<u32> restricted_; // those with regions
    std::size_t region_count_ = 0;
    std::int64_t left_over_; // of the budget
};

} // namespace dmarewind::virtio
