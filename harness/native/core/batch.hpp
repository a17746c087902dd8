// Translating many requests at once: one outcome each, no caches of permitted entries, no faults
// recorded. A translation is what Unit::access would answer freshly (cold), or what a unit with the
// finite cache of FastTlb answers (warm); A/D bits are set as by any walk.
#pragma once

#include "fast_tlb.hpp"
#include "lookup.hpp"

namespace dmarewind {

struct BatchRequests {
    std::size_t count;
    const u16 *sids;
    const u32 *pasids; // no_pasid for none
    const u64 *iovas;
    const u8 *kinds; // AccessKind
    u64 *addresses;  // out: where the request leads, 0 on a fault
    u8 *statuses;    // out: 0 or the fault reason
};

class BatchTranslator {
  public:
    BatchTranslator(const UnitConfig &config, Memory &memory, const Lookup &lookup)
        : config_(config), memory_(memory), lookup_(lookup) {}

    // Walk from the root for each request.
    void cold(const BatchRequests &requests, bool enabled);
    // Ask tlb first and fill it.
    void warm(const BatchRequests &requests, bool enabled, FastTlb &tlb);

  private:
    struct Answer {
        u64 address;
        u8 status;
        u8 level;        // of the leaf; 0: no page tables were involved
        Rights rights;   // of the leaf, as far as the walk checked them
        PagingRoot root; // when level is not 0
    };

    Answer one(const Memory::View &view, u32 sid, u32 pasid, u64 iova, AccessKind kind,
               bool enabled);
    Answer one_of_kind(const Memory::View &view, u32 sid, u32 pasid, u64 iova, AccessKind kind);
    u8 find_root(const Memory::View &view, u32 sid, u32 pasid, AccessKind kind,
                 PagingRoot &root) const;
    void fill(const Memory::View &view, FastTlb &tlb, u32 sid, u32 pasid, u64 iova,
              const Answer &answer);
    u64 identity(u64 iova) const { return iova; }

    const UnitConfig &config_;
    Memory &memory_;
    const Lookup &lookup_;
    WalkResult result_;
};

} // namespace dmarewind
