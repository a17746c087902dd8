// Drives a unit with a trace and compares the observations that follow.
#pragma once

#include "replay_base.hpp"
#include "unit.hpp"

namespace dmarewind {

class Replay : public ReplayBase {
  public:
    Replay(UnitConfig config, std::size_t findings_kept, std::size_t bytes_kept);

    // Apply the events of one block's raw content; damage ends it after the events before. stop is
    // asked now and then whether to give up, which it does by throwing.
    std::optional<Damage> feed(std::span<const std::byte> raw, const std::function<void()> &stop);
    // Apply one event; its number is the count of those before it.
    void apply(const Event &event);
    Unit &unit() { return unit_; }
    // Whether registers, memory and counts are all that was changed.
    bool plain() const { return ReplayBase::plain() && unit_.plain(); }
    // Remember the state of a replay that is plain, for rewind; guest memory is its own affair.
    void mark() {
        ReplayBase::mark();
        unit_.mark();
    }
    void rewind() {
        ReplayBase::rewind();
        unit_.rewind();
    }
    // Apply a Snapshot of a page whose other bytes are zero already, and no table.
    void learn(u64 address, std::span<const std::byte> data) {
        unit_.memory().write(address, data, counters_.events + 1);
        ++counters_.events;
    }

  private:
    void access(const Event &event);
    void interrupt(const Event &event);
    void page_request(const Event &event);
    void register_read(const Event &event);
    void observe(const Observation &seen);
    bool same(const Observation &expected, const Observation &seen) const;

    Unit unit_;
    u64 compared_bits_; // of a fault record's upper quadword
};

} // namespace dmarewind
