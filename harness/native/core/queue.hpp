// The invalidation queue: fetch, check, execute (VT-d specification 6.5.2).
#pragma once

#include "device_tlb.hpp"
#include "interrupts.hpp"
#include "page_requests.hpp"

namespace dmarewind {

// The trace makes the unit execute more than it was allowed to; the message says how to allow more.
class DescriptorError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

class InvalidationQueue {
  public:
    // event is the number the unit is at: it names who invalidated or wrote.
    InvalidationQueue(const UnitConfig &config, Memory &memory, RegisterFile &registers,
                      Caches &caches, EntryCache &interrupts, DeviceTlbs &devices,
                      PageRequestQueue &page_requests, FaultRecorder &faults, Observations &emitted,
                      const u64 &event);

    // Stop and forget where the queue was.
    void reset();
    // Remember where the queue is, for rewind.
    void mark() { marked_ = place_; }
    void rewind() { place_ = marked_; }

    // Follow GCMD.QIE: latch IQA and start at its beginning, or stop.
    void enable(bool on);
    bool enabled() const { return place_.enabled; }

    // Whether a queue error (FSTS.IQE) keeps the queue from running.
    bool stopped() const;

    // Consume descriptors until head meets tail or one is bad. DescriptorError when that takes more
    // than the budget.
    void run();

    // Execute a descriptor that the recorded unit took and this one did not. When this queue had
    // stopped at that very slot it goes on behind it.
    void adopt(const Observation &seen);

    EventMessage completion;

  private:
    using Error = layout::QueueError;

    Error fetch(u64 address);
    Error consume(const u64 *words, u32 count);
    Error execute(u64 type, const u64 *words, bool waits);
    Error context_cache(const u64 *words);
    Error iotlb(const u64 *words);
    Error interrupt_entries(const u64 *words);
    Error pasid_iotlb(const u64 *words);
    Error pasid_cache(const u64 *words);
    void wait(const u64 *words);
    void charge();
    void advance();
    void fail(Error error);

    const UnitConfig &config_;
    Memory &memory_;
    RegisterFile &registers_;
    Caches &caches_;
    EntryCache &interrupts_;
    DeviceTlbs &devices_;
    PageRequestQueue &page_requests_;
    FaultRecorder &faults_;
    Observations &emitted_;
    const u64 &event_;
    struct Place {
        bool enabled = false;
        u64 base = 0;
        u64 size = 0;
        u32 step;
        u64 executed = 0;
    };
    Place place_;
    Place marked_;
};

} // namespace dmarewind
