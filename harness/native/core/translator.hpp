// The permitted set of a request: the fresh outcome, and what stale cache entries would give.
#pragma once

#include "caches.hpp"

namespace dmarewind {

// Answers a request in abort mode: there is no reason, and nothing is recorded.
inline constexpr Outcome aborted{OutcomeType::fault, 0, 0, 0};

// The cache whose entry differs from memory and gives an outcome.
enum class CacheName : u8 { none, context, pasid, paging_structure, iotlb };

constexpr const char *text(CacheName name) {
    constexpr const char *texts[] = {"", "context", "pasid", "paging-structure", "iotlb"};
    return texts[static_cast<unsigned>(name)];
}

// Numbers of events and domains in reports; -1 where there is none.
using Number = std::int64_t;

// One permitted outcome and where it comes from. filled_by is the event that put the stale entry
// there, changed_by the store that made it differ from memory.
struct Candidate {
    Outcome outcome;
    bool fault_disable = false;
    CacheName cache = CacheName::none;
    Number domain = -1;
    Number filled_by = -1;
    Number changed_by = -1;
    Trail trail;
};

// What the fresh path saw, for filling the caches once its outcome is adopted. The steps of the
// entries are the first ones of the fresh candidate's trail.
struct Fresh {
    bool has_context = false; // or why there is none
    bool has_pasid = false;
    bool has_root = false;
    bool has_result = false;
    unsigned context_steps = 0;
    unsigned pasid_steps = 0;
    Number context_domain = -1;
    u32 pasid_number = 0;
    EntryResult context;
    EntryResult pasid;
    PagingRoot root;
    WalkResult result;
};

// The permitted outcomes, the fresh one first, none twice.
class Permitted {
  public:
    const Candidate &fresh_candidate() const { return candidates_[0]; }
    std::span<const Candidate> candidates() const { return {candidates_.data(), count_}; }

    Fresh fresh;

  private:
    friend class Translator;
    std::vector<Candidate> candidates_; // reused: only the first count_ mean anything
    std::size_t count_ = 0;
};

class Translator {
  public:
    Translator(const UnitConfig &config, Memory &memory);

    // Compute the permitted set; it stays valid until the next call.
    Permitted &permitted(const Request &request);

    // Fill the caches with what the fresh path used and make its A/D updates.
    void adopt(const Request &request, const Permitted &permitted, u64 event);

    // The store that first made one of the entries differ, -1 when none is known.
    Number changed_by(const Step *first, unsigned count) const;

    Lookup &lookup() { return lookup_; }
    const Lookup &lookup() const { return lookup_; }
    Caches &caches() { return caches_; }
    const Caches &caches() const { return caches_; }
    bool enabled = false;

    // Remember the root, for rewind, which empties the caches.
    void mark() { marked_ = {enabled, lookup_.root_pointer(), lookup_.mode()}; }
    void rewind() {
        enabled = marked_.enabled;
        lookup_.set_root(marked_.root, marked_.mode);
        caches_.restart();
    }

  private:
    struct Marked {
        bool enabled = false;
        u64 root = 0;
        u64 mode = legacy_mode;
    };

    // How a path differs from the fresh one.
    struct Stale {
        CacheName cache = CacheName::none;
        const CachedWords *way = nullptr;
    };

    void compute(const Request &request, Permitted &out);
    void through_context(const Request &request, const EntryResult &context, Trail &trail,
                         bool fresh, Stale stale, Permitted &out);
    void through_pasid(const Request &request, const u64 *context, const u64 *entry,
                       bool fault_disable, Trail &trail, bool fresh, Stale stale, Permitted &out);
    void through_root(const Request &request, const PagingRoot &root, Trail &trail, bool fresh,
                      Stale stale, Permitted &out);
    void through_host(const Request &request, const PagingRoot &root, const Trail &trail,
                      unsigned number, const Below &below, Permitted &out);
    void blocked(const EntryResult &found, const Trail &trail, Stale stale, Permitted &out) const;
    void blocked(u8 reason, bool fault_disable, const Trail &trail, Stale stale,
                 Permitted &out) const;
    Candidate &kept(const PagingRoot &root, const Trail &trail, CacheName cache, u64 filled_by,
                    const Step *own, unsigned count, Permitted &out) const;
    // Call function with kept non-leaf entries that lead elsewhere than a fresh walk went.
    template <class Function>
    void stale_structures(const PagingRoot &root, u64 address, const Request &request,
                          const NonLeaf *nonleaf, unsigned count, Function function) const;
    // Call function with kept leaves that answer otherwise than a fresh walk did, and the answer.
    template <class Function>
    void stale_leaves(const PagingRoot &root, u64 address, const Request &request,
                      const Outcome &fresh, Function function) const;
    EntryResult blocked_entry(const EntryResult &found) const;
    void fill(const PagingRoot &root, u64 address, const Outcome &outcome, Rights rights,
              std::span<const NonLeaf> nonleaf, std::span<const Step> steps, u64 event);
    Candidate &next(Permitted &out) const;
    void finish(Permitted &out) const;
    void stamp(Candidate &candidate, Stale stale) const;
    Outcome identity() const;
    Outcome pass_through(const Request &request) const;
    Number changed_below(const Trail &above, const Step *first, unsigned count,
                         u64 filled_by) const;
    static bool allows(const PagingRoot &root, Rights rights, const Request &request);

    const UnitConfig &config_;
    Memory &memory_;
    RuleBook rules_;
    Lookup lookup_;
    Caches caches_;
    Permitted first_;
    Permitted second_;
    Trail scratch_;
    WalkResult stale_result_;
    Marked marked_;
};

} // namespace dmarewind
