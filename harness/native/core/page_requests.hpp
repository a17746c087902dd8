// Page requests: what a device asks for goes into a queue, or is refused (VT-d 7.4 to 7.7).
#pragma once

#include "faults.hpp"

#include <optional>

namespace dmarewind {

// What a device asks for; flags are those of layout::PageRequestFlag.
struct PageRequest {
    u32 sid;
    u32 pasid; // or no_pasid
    u64 address;
    u32 flags;
    u32 group;
};

// Stores page requests at the queue's tail, and tells devices what became of them.
class PageRequestQueue {
  public:
    PageRequestQueue(const UnitConfig &config, Memory &memory, RegisterFile &registers,
                     Translator &translator, FaultRecorder &faults, Observations &emitted);

    // Queue a page request, or refuse it; one that ends its group is then answered here.
    void request(const PageRequest &asked, u64 event);
    // Execute a page group response descriptor.
    void respond(const u64 *words);
    // Take over a record that the recorded unit stored and this one did not.
    void adopt(const Observation &seen, u64 event);
    // React to a software write that reached PRS or PECTL.
    void registers_written(u32 offset, u32 size);

  private:
    // What became of a group of page requests (PCIe 10.4.2.2).
    enum class Code : u8 { success = 0, invalid = 1, failure = 15 };
    struct Ring {
        u64 base;
        u64 size;
        u64 tail;
    };

    std::optional<Code> admit(const PageRequest &asked);
    Code refuse(const PageRequest &asked, u64 reason, bool fault_disable);
    std::optional<Code> enqueue(const PageRequest &asked, u64 event);
    Ring ring() const;
    void store(const Observation &record, u64 event);
    void raise(u64 before, layout::Field status);
    void answer(u64 sid, u64 pasid, u64 group, u64 code);

    const UnitConfig &config_;
    Memory &memory_;
    RegisterFile &registers_;
    Translator &translator_;
    FaultRecorder &faults_;
    Observations &emitted_;
    EventMessage event_;
};

} // namespace dmarewind
