// What the replays of both kinds of units have in common: counts, findings, what is still expected.
#pragma once

#include "observation.hpp"
#include "reader.hpp"

#include <deque>
#include <functional>
#include <optional>

namespace dmarewind {

// What a replay compared. agreed and divergences add up the comparisons and the findings.
struct Counters {
    u64 events = 0;
    u64 translations = 0;
    u64 faults = 0;
    u64 requests = 0;
    u64 interrupt_requests = 0;
    u64 descriptors = 0;
    u64 fault_records = 0;
    u64 status_writes = 0;
    u64 interrupts = 0;
    u64 page_requests = 0;
    u64 device_messages = 0;
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

class ReplayBase {
  public:
    // So many findings are kept at most, and no more once their answers have so many bytes.
    ReplayBase(std::size_t findings_kept, std::size_t bytes_kept)
        : findings_kept_(findings_kept), bytes_kept_(bytes_kept) {}

    // Report what the unit did and the recording lacks.
    void finish() { flush(); }

    // Expect nothing of what the unit is seen doing: a trace without observations is not judged by
    // their absence.
    void ignore_observations() { listens_ = false; }

    const Counters &counters() const { return counters_; }
    const std::vector<Finding> &findings() const { return findings_; }

    // Remember what was counted, for rewind; nothing was found and nothing is expected.
    void mark() { marked_ = counters_; }
    void rewind() {
        counters_ = marked_;
        if (!expected_.empty())
            expected_.clear();
        findings_.clear();
        lost_ = false;
        bytes_ = 0;
    }

  protected:
    struct Expected {
        u64 cause;
        Observation observation;
    };

    // Decode the events of one block's raw content for apply, which gives null or why it refuses
    // an event. stop is asked now and then whether to give up, which it does by throwing.
    template <class Apply>
    std::optional<Damage> each_event(std::span<const std::byte> raw,
                                     const std::function<void()> &stop, Apply apply) {
        EventReader reader(raw);
        Event event;
        for (;;) {
            if (counters_.events % events_per_pause == 0)
                stop();
            const std::size_t offset = reader.offset();
            const char *problem = nullptr;
            switch (reader.next(event)) {
            case ReadResult::event:
                problem = apply(event);
                break;
            case ReadResult::end:
                return std::nullopt;
            case ReadResult::damaged:
                problem = reader.problem();
            }
            if (problem != nullptr)
                return Damage{counters_.events, offset, problem};
        }
    }

    void count_outcome(const Outcome &outcome);
    // Expect what a unit was seen doing, and forget that it was.
    void expect(Observations &emitted);
    void report(Finding finding);
    // Report what a unit found, and forget it there.
    void report_all(std::vector<Finding> &findings);
    // Report a register that was read with another value than the unit has.
    void report_register(const char *subject, u64 observed, u64 now);
    // Report an observation that nothing expected, or something else.
    void report_observation(const Observation &seen);
    void missing(const Expected &expected);
    void flush();

    bool plain() const { return expected_.empty() && findings_.empty() && !lost_; }

    Counters counters_;
    std::deque<Expected> expected_;
    bool lost_ = false; // something was, and there was no reset since
    bool listens_ = true;

  private:
    Counters marked_;
    static constexpr u64 events_per_pause = 256; // between two questions whether to stop

    Finding divergence(u64 event, const char *subject) const;

    std::vector<Finding> findings_;
    std::size_t findings_kept_;
    std::size_t bytes_kept_;
    std::size_t bytes_ = 0; // of the answers in findings_
};

} // namespace dmarewind
