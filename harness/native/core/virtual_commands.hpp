// The virtual command registers: PASIDs that a virtual unit hands out (VT-d VCMD_REG).
#pragma once

#include "registers.hpp"

#include <set>

namespace dmarewind {

// Executes a command as it is written; the response is there at once, so IP is never seen.
class VirtualCommands {
  public:
    VirtualCommands(const UnitConfig &config, RegisterFile &registers);

    // Forget every PASID.
    void reset();
    // Whether nothing was asked for since.
    bool empty() const { return used_.empty() && freed_.empty() && guessed_ == 0; }
    // Execute the command that a software write has left in the lower half of VCMD.
    void registers_written(u32 offset, u32 size);
    // Take over the PASID that the recorded unit handed out: any free one will do.
    void adopt_read(u32 offset, u32 size, u64 value);

  private:
    // Where the registers and their fields are, which moved between revisions.
    struct Place {
        const Register *capability;
        const Register *command;
        const Register *response;
        layout::Field operand;
        layout::Field status;
        layout::Field result;
        u64 no_pasid;
        u64 not_allocated;
    };

    static const Place *place_at(u32 offset);
    u32 allocate();
    bool release(u32 pasid);
    void answer(u64 status, u64 result = 0);

    RegisterFile &registers_;
    const Place *place_;
    std::set<u32> used_;
    std::set<u32> freed_; // below next_
    u32 next_ = 0;
    u32 guessed_ = 0; // a PASID that the last command allocated
};

} // namespace dmarewind
