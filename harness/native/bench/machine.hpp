// The machine a benchmark runs on: a unit that can do everything, and tables for one mode.
#pragma once

#include "unit.hpp"

namespace dmarewind::bench {

inline constexpr u64 root = 0x1000;
inline constexpr u64 data = 0x3'0000'0000; // where address 0 leads

struct Mode {
    const char *name;
    bool scalable;
    unsigned levels;      // 0: pass-through
    unsigned type;        // TT or PGTT
    unsigned host_levels; // of the second stage under a nested first one
};

class Machine {
  public:
    Machine(const Mode &mode, u32 devices) : unit(everything()), mode_(mode), devices_(devices) {}

    // Device n has source id and PASID n; all share the page tables.
    void build(u64 pages);

    Unit unit;

  private:
    // One stage of page tables; its flags mark an entry that leads on.
    struct Stage {
        unsigned levels;
        u64 top;
        u64 flags;
    };

    static UnitConfig everything();
    void store(u64 address, u64 value) { unit.memory().store(address, sizeof value, value); }
    void describe(u32 device);
    u64 place(u64 address) const;
    u64 allocate_for(const Stage &stage);
    void map(const Stage &stage, u64 iova, u64 target);

    const Mode &mode_;
    u32 devices_;
    u64 next_table_ = 0;
    Stage host_{};
};

} // namespace dmarewind::bench
