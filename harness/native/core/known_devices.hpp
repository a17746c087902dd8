// What one batch has found out about devices: the paging tables a request leads to.
//
// It holds as long as memory does, so until the batch ends or sets an A or D bit. Direct-mapped:
// few devices with many requests each are found again, many devices soon are not looked for.
#pragma once

#include "memory.hpp"

namespace dmarewind {

class KnownDevices {
  public:
    static constexpr unsigned slot_bits = 8;
    static constexpr std::size_t slots = std::size_t{1} << slot_bits;
    static constexpr unsigned key_sid = 32;
    static constexpr unsigned key_generation = 48;
    static constexpr unsigned slot_pasid = 3; // so that equal numbers of both are told apart

    u64 keys[slots] = {};   // source id, PASID, generation; 0 is nobody
    u64 tables[slots] = {}; // of the first stage, or of the only one
    u64 hosts[slots] = {};  // of the second stage under a nested first one

    // What every key of today has.
    u64 generation() const { return generation_ << key_generation; }

    void forget() {
        if (++generation_ >> (64 - key_generation) != 0) {
            std::memset(keys, 0, sizeof keys);
            generation_ = 1;
        }
        idle_ = patience_ = 0;
    }

    // Whether looking may be worth while; after each miss it is not for a longer time.
    bool asked() {
        if (idle_ == 0)
            return true;
        --idle_;
        return false;
    }
    bool idle() const { return idle_ != 0; }
    void found() { patience_ = 0; }
    void missed() {
        patience_ = patience_ < most_idle ? 2 * patience_ + 1 : most_idle;
        idle_ = patience_;
    }

  private:
    static constexpr unsigned most_idle = 63;

    u64 generation_ = 1;
    unsigned idle_ = 0;     // times more not to look
    unsigned patience_ = 0; // how long not to after the next miss
};

} // namespace dmarewind
