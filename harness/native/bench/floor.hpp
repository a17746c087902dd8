// What translation cannot do without: the dependent loads, and not one check.
//
// This is the yardstick of tools/bench translate, never part of the product: the same address
// stream over the same memory, each entry's address computed from the one before, one request after
// the other. Nothing is shared with what is measured: no lanes, no order of requests, no knowledge
// kept from one request to the next. So a request that costs the core more than its loads shows,
// whatever shape the core's code has; a core that needs fewer loads may come out below its floor.
#pragma once

#include "memory.hpp"

#include <vector>

namespace dmarewind::bench {

struct Stream {
    std::size_t count;
    const u16 *sids;
    const u32 *pasids;
    const u64 *iovas;
    u64 *addresses;
};

// Cold: root and context entry, in scalable mode PASID directory and table entry, then one entry
// per level. levels 0 is pass-through; qword is the one of the PASID entry that holds the pointer.
void legacy_floor(const std::byte *memory, u64 root, unsigned levels, const Stream &stream);
void scalable_floor(const std::byte *memory, u64 root, unsigned levels, unsigned qword,
                    const Stream &stream);
// Nested: each table of the first stage, and the page at last, by way of the second.
void nested_floor(const std::byte *memory, u64 root, unsigned levels, const Stream &stream);

// Warm: plain hash tables of the same keys, the next slot after a collision. One leads from a
// request to its address space, another from that and a page to an address. A quarter full:
// emptier and fuller ones are slower (measured).
class HashFloor {
  public:
    // Learn right answers; shared: all devices have one address space, else each PASID has its own;
    // not pages: they pass through.
    HashFloor(const Stream &answered, bool shared, bool pages);
    void run(const Stream &stream) const;

  private:
    class Table {
      public:
        void reserve(std::size_t keys);
        void add(u64 key, u64 value);
        u64 find(u64 key) const;

      private:
        struct Slot {
            u64 key = 0; // 0: empty
            u64 value = 0;
        };
        std::size_t slot(u64 key) const { return key * 0xff51'afd7'ed55'8ccd >> shift_; }

        unsigned shift_ = 0;
        std::vector<Slot> slots_;
    };

    bool pages_;
    Table spaces_;
    Table places_;
};

} // namespace dmarewind::bench
