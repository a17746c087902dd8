// Find out what is wrong with a request to a virtio-iommu, and carry out one that succeeded.
#pragma once

#include "virtio_state.hpp"

#include <string>

namespace dmarewind::virtio {

using Bytes = std::span<const u8>;

// What is wrong with a request, in the order in which it is looked for.
class Conditions {
  public:
    void add(Condition condition) { list_[count_++] = condition; }
    // Leave out what the dialect does not look for.
    void ignore(ConditionSet ignored);
    // Put those that are in a set in front of the others.
    void put_first(ConditionSet first);

    const Condition *begin() const { return list_.data(); }
    const Condition *end() const { return list_.data() + count_; }
    bool begins_with(Condition condition) const { return count_ != 0 && list_[0] == condition; }
    ConditionSet set() const;

  private:
    std::array<Condition, wire::conditions> list_;
    std::size_t count_ = 0;
};

// What a device reads of each request; nothing for an unknown one.
std::optional<u32> readable_size(u8 type);

// Collect the reserved regions among properties, up to damage; whether there is none.
bool read_regions(Bytes payload, std::vector<Region> *regions);

class Handler {
  public:
    explicit Handler(State &state) : state_(state) {}

    // What is wrong with a request, as far as the dialect looks for it.
    Conditions conditions(Bytes data, u64 room) const;
    // Whether NOENT is as good an answer, because nobody said if the endpoint is there.
    bool may_be_absent(Bytes data) const;
    // What a whole PROBE writes before the tail; nothing when that is not known.
    std::optional<std::string> payload(Bytes data) const;
    // Carry out a request that was answered with OK.
    void succeed(Bytes data, Bytes answer);
    // Take over what a refused request may still have changed.
    void fail(Bytes data, const Conditions &conditions, std::optional<u8> status);

  private:
    void look_at_attach(const u8 *data, Conditions &found) const;
    void look_at_detach(const u8 *data, Conditions &found) const;
    void look_at_map(const u8 *data, Conditions &found) const;
    void look_at_unmap(const u8 *data, Conditions &found) const;
    void look_at_probe(const u8 *data, Conditions &found) const;
    void doubt(Bytes data);

    State &state_;
};

} // namespace dmarewind::virtio
