// One virtio-iommu: what its driver does to it, and what it may answer.
#pragma once

#include "observation.hpp"
#include "virtio_access.hpp"
#include "virtio_requests.hpp"

namespace dmarewind::virtio {

// As harness.model.virtio.unit.VirtioUnit; its methods mean the same.
class Unit {
  public:
    explicit Unit(Config config);
    Unit(const Unit &) = delete;
    Unit &operator=(const Unit &) = delete;

    // The number the next findings are reported under.
    u64 event() const { return state_.event; }
    void set_event(u64 number) { state_.event = number; }

    // Return to power-on state; endpoints stay declared.
    void reset();
    // Reset the device as its driver does: config.bypass survives.
    void device_reset();
    // Learn what was offered, and what the driver has accepted.
    void features(u64 offered, u64 accepted);
    // Learn that an endpoint is there, and its reserved regions.
    void endpoint(u32 endpoint, std::span<const Region> regions) {
        state_.declare(endpoint, regions);
    }
    // Compare the config space as the driver sees it, and take it over.
    void config_space(Bytes data);

    // What the driver reads from the config space; zero beyond its end.
    u64 read_register(u64 offset, u32 size) const;
    // Write the config space: only bypass can be, and only to 0 or 1.
    void write_register(u64 offset, u32 size, u64 value);

    // Answer a request with what is permitted, the expected answer first; with a recorded answer,
    // judge it and take it over. data is what the device may read, room how many bytes it may
    // write. Nothing is returned, judged or taken over where an answer is longer than any that a
    // trace holds. The result stays valid until the next request.
    const std::vector<std::string> &request(Bytes data, u64 room, std::optional<Bytes> recorded);

    // Answer a DMA access with what is permitted, the expected outcome first; with a recorded
    // outcome, judge it. The result stays valid until the next access.
    const std::vector<Outcome> &access(u32 endpoint, u64 iova, AccessKind kind,
                                       const Outcome &recorded);

    // Whether a fault report may be the expected one, that of the last access.
    bool same_report(const Observation &expected, const Observation &seen) const;

    const State &state() const { return state_; }

    // What the unit did and found since the caller last cleared these.
    Observations emitted;
    std::vector<Finding> findings;

  private:
    void set_bypass(u64 value);
    void add_statuses(Bytes data, const Conditions &conditions, bool whole);
    void add_status(u8 status);
    void add_others(Condition condition);
    std::string answer(u8 status, bool probe, u64 room, const std::optional<std::string> &payload);
    bool has_room(u64 room) const;
    u64 answer_size(u64 room) const;
    bool is_probed(Bytes answer) const;
    void judge(u32 endpoint, u64 iova, const Outcome &recorded);
    void settle(u32 endpoint, const Permitted &chosen);
    void diverged(const char *subject, std::string observed, std::vector<std::string> expected);

    State state_;
    Handler handler_{state_};
    std::vector<u8> space_;
    bool known_;
    u64 boot_bypass_;
    u64 searches_ = 0;                 // of ended mappings, for one that explains a finding
    std::vector<u8> statuses_;         // scratch
    std::vector<std::string> answers_; // of the last request
    std::vector<Permitted> permitted_; // of the last access
    std::vector<Outcome> outcomes_;    // of the last access, none twice
    std::vector<u32> flags_;           // that a report of the last access may have
};

} // namespace dmarewind::virtio
