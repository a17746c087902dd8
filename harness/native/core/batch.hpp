// Translating many requests at once: one outcome each, no caches of permitted entries, no faults
// recorded. A translation is what Unit::access would answer freshly (cold), or what a unit with the
// finite cache of FastTlb answers (warm); A/D bits are set as by any walk.
#pragma once

#include "kernel.hpp"

namespace dmarewind {

class BatchTranslator {
  public:
    BatchTranslator(const UnitConfig &config, Memory &memory, const Lookup &lookup)
        : config_(config), memory_(memory), lookup_(lookup), kernels_(kernels(true)) {}

    // Whether to use what only some processors have: for tests and benchmarks.
    void use_wide_registers(bool wide) { kernels_ = kernels(wide); }

    // Walk from the root for each request.
    void cold(const BatchRequests &requests, bool enabled);
    // Ask tlb first and fill it.
    void warm(const BatchRequests &requests, bool enabled, FastTlb &tlb);

  private:
    struct Answer {
        u64 address;
        u8 status;
        bool paged;      // page tables gave it
        bool large;      // the page has more than 4 KiB
        Rights rights;   // of the page in all stages, as far as the walk checked them
        PagingRoot root; // when paged
    };

    void warm_group(const Memory::View &view, const BatchRequests &requests, std::size_t base,
                    std::size_t end, FastTlb &tlb);
    Answer one(const Memory::View &view, const Request &request, bool enabled);
    Answer one_of_kind(const Memory::View &view, const Request &request);
    u8 find_root(const Memory::View &view, const Request &request, PagingRoot &root) const;
    void fill(const Memory::View &view, FastTlb &tlb, const Request &request, const Answer &answer);
    u64 identity(u64 iova) const { return iova; }

    const UnitConfig &config_;
    Memory &memory_;
    const Lookup &lookup_;
    Kernels kernels_;
    KnownDevices devices_;
    WalkResult result_;
};

} // namespace dmarewind
