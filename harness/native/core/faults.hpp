// Fault recording and the fault event (VT-d specification 7.3 and 7.4).
#pragma once

#include "observation.hpp"
#include "registers.hpp"

namespace dmarewind {

// One of the unit's own interrupts, with its control, data and address registers.
class EventMessage {
  public:
    EventMessage(RegisterFile &registers, Observations &emitted, const Register &control,
                 const Register &data, const Register &address, const Register &upper)
        : registers_(registers), emitted_(emitted), control_(control), data_(data),
          address_(address), upper_(upper) {}

    // Send the message, or leave it pending (IP) while it is masked (IM).
    void request();
    // Send a pending message once software unmasks it.
    void send_if_unmasked();
    // Clear a pending message whose cause software has cleared.
    void withdraw();

  private:
    RegisterFile &registers_;
    Observations &emitted_;
    const Register &control_;
    const Register &data_;
    const Register &address_;
    const Register &upper_;
};

// Fills the fault recording registers and keeps the fault status.
class FaultRecorder {
  public:
    FaultRecorder(const UnitConfig &config, RegisterFile &registers, Observations &emitted);

    // Start with the first register again.
    void reset() { next_ = 0; }
    // Remember which is the next one, for rewind.
    void mark() { marked_ = next_; }
    void rewind() { next_ = marked_; }

    // Record a fault unless FPD suppresses it, a record of the same source is pending, or the
    // registers have overflowed.
    void record(const Request &request, u64 reason, bool fault_disable, bool page_request = false);

    // Take over a record that the recorded unit made and this one did not.
    void adopt(const Observation &seen);

    // The bits of a register read whose content the dialect leaves open.
    u64 undefined(u32 offset, u32 size) const;

    // Raise the fault event when nothing was pending in the status before.
    void raise_event(u64 before);

    // React to a software write that reached FSTS, FECTL or a fault record.
    void registers_written(u32 offset, u32 size);

  private:
    bool qualified(u64 reason) const;
    bool pending(u64 index) const;
    bool pending_from(u64 index, u32 sid) const;
    void fill(u64 index, const u64 *words);
    void report(u64 index, u64 before);

    const UnitConfig &config_;
    RegisterFile &registers_;
    Observations &emitted_;
    EventMessage event_;
    u32 count_;
    u64 next_ = 0;
    u64 marked_ = 0;
};

} // namespace dmarewind
