// Drives a unit with a trace and compares the observations that follow.
#pragma once

#include "reader.hpp"
#include "unit.hpp"

#include <deque>
#include <functional>
#include <string>

namespace dmarewind {

// What a replay compared. agreed and divergences add up the comparisons and the findings.
struct Counters {
    u64 events = 0;
    u64 translations = 0;
    u64 faults = 0;
    u64 descriptors = 0;
    u64 fault_records = 0;
    u64 status_writes = 0;
    u64 interrupts = 0;
    u64 register_reads = 0;
    u64 unjudged = 0; // the recording lost something before them
    u64 agreed = 0;
    u64 divergences = 0;
};

// Damage in a block: the number of the event it is in, its offset in the raw content, the problem.
struct Damage {
    u64 event;
    std::size_t offset;
    const char *problem;
};

class Replay {
  public:
    Replay(UnitConfig config, std::size_t findings_kept);

    // Apply the events of one block's raw content; damage ends it after the events before. stop is
    // asked now and then whether to give up, which it does by throwing.
    std::optional<Damage> feed(std::span<const std::byte> raw, const std::function<void()> &stop);
    // Apply one event; its number is the count of those before it.
    void apply(const Event &event);
    // Report what the unit did and the recording lacks.
    void finish() { flush(); }

    const Counters &counters() const { return counters_; }
    const std::vector<Finding> &findings() const { return findings_; }
    Unit &unit() { return unit_; }

  private:
    struct Expected {
        u64 cause;
        Observation observation;
    };

    void access(const Event &event);
    void register_read(const Event &event);
    void observe(const Observation &seen);
    bool same(const Observation &expected, const Observation &seen) const;
    void report(Finding finding);
    void report_unit_findings();
    void missing(const Expected &expected);
    void flush();

    Unit unit_;
    Counters counters_;
    std::vector<Finding> findings_;
    std::size_t findings_kept_;
    std::deque<Expected> expected_;
    bool lost_ = false; // something was, and there was no reset since
    u64 compared_bits_; // of a fault record's upper quadword
};

} // namespace dmarewind
