// Interrupt remapping: what becomes of a message that a device writes (VT-d specification 5.1).
#pragma once

#include "observation.hpp"

#include <map>
#include <optional>

namespace dmarewind {

inline constexpr u32 interrupt_entry_words = layout::InterruptRemapEntry::words;

// One interrupt request as it arrives.
struct InterruptMessage {
    u32 sid; // or no_source
    u64 address;
    u32 data;
};

// An entry as it was when a request used it.
struct KeptEntry {
    u64 words[interrupt_entry_words] = {};
    u64 address = 0;
    u64 filled_by = 0;
    u64 dropped_by = 0; // meaningful once it was

    bool says(const u64 *other) const {
        return std::equal(words, words + interrupt_entry_words, other);
    }
};

// Up to max_ways entries of one index, the oldest first.
class EntryWays {
  public:
    void add(const KeptEntry &entry) {
        if (count_ == max_ways)
            std::copy(ways_.begin() + 1, ways_.end(), ways_.begin());
        else
            ++count_;
        ways_[count_ - 1] = entry;
    }
    std::span<const KeptEntry> ways() const { return {ways_.data(), count_}; }

  private:
    std::array<KeptEntry, max_ways> ways_;
    std::size_t count_ = 0;
};

// The entries that a unit may have kept.
class EntryCache {
  public:
    std::span<const KeptEntry> at(u32 index) const { return find(kept_, index); }
    // What was kept before it was invalidated, the oldest first.
    std::span<const KeptEntry> dropped_at(u32 index) const { return find(dropped_, index); }

    // Keep an entry, unless it is kept already.
    void add(u32 index, const KeptEntry &entry);

    // Drop all entries, or the 2^order whose index differs from the given one in low bits only.
    void drop(u64 event);
    void drop_range(u64 event, u32 index, u64 order);

    bool empty() const { return kept_.empty() && dropped_.empty(); }
    // Be as new.
    void restart() {
        kept_.clear();
        dropped_.clear();
        looked_at_ = 0;
    }

    // Keys that invalidations of less than everything have looked at so far.
    u64 looked_at() const { return looked_at_; }

  private:
    using Entries = std::map<u32, EntryWays>;

    static std::span<const KeptEntry> find(const Entries &entries, u32 index) {
        const auto place = entries.find(index);
        return place == entries.end() ? std::span<const KeptEntry>() : place->second.ways();
    }
    void drop(u64 event, Entries::iterator first, Entries::iterator last);

    Entries kept_;
    Entries dropped_;
    u64 looked_at_ = 0;
};

// One permitted outcome and where it comes from; index is what a fault record names.
struct Remapping {
    Outcome outcome;
    u32 step_count = 0;
    Step steps[interrupt_entry_words];
    bool fault_disable = false;
    u32 index = 0;
    const char *cache = "";
    Number filled_by = -1;
    Number changed_by = -1;
};

// The permitted outcomes, the fresh one first, none twice; what was read for it; what an entry that
// was invalidated would give, the newest first.
struct RemappingResult {
    std::vector<Remapping> permitted;
    bool has_fresh = false;
    u32 index = 0;
    KeptEntry fresh;
    std::vector<std::pair<KeptEntry, Outcome>> dropped;
};

// Computes permitted outcomes over the table, the cache and the state of interrupt remapping.
class Remapper {
  public:
    Remapper(const UnitConfig &config, Memory &memory) : config_(config), memory_(memory) {}

    // Return to power-on state.
    void reset(u64 event);
    // Follow GCMD.SIRTP: take over IRTA.
    void latch(u64 value, u64 event);
    bool enabled = false;
    bool compatibility = false; // messages of the compatibility format pass (GSTS.CFIS)

    // Remember the table, for rewind, which empties the cache.
    void mark() { marked_ = {enabled, compatibility, extended_, table_, entries_}; }
    void rewind() {
        enabled = marked_.enabled;
        compatibility = marked_.compatibility;
        extended_ = marked_.extended;
        table_ = marked_.table;
        entries_ = marked_.entries;
        cache.restart();
    }

    RemappingResult permitted(const InterruptMessage &request) const;

    // Fill the cache with the entry that the fresh path used.
    void adopt(const RemappingResult &result, u64 event);

    // Set a vector in a posted descriptor; the notification that this sends, if any.
    std::optional<Observation> post(const Outcome &posting);

    EntryCache cache;

  private:
    std::optional<Remapping> without_entry(const InterruptMessage &request) const;
    u32 index_of(const InterruptMessage &request) const;
    u64 place_of(u32 index) const;
    Remapping remapping(u32 index, const KeptEntry &entry, const InterruptMessage &request) const;
    Outcome outcome_of(const u64 *words, const InterruptMessage &request) const;
    u8 check(const u64 *words) const;
    bool posts(const u64 *words) const;
    u32 destination(u64 field) const;
    Outcome posting(const u64 *words) const;
    Number changed_by(const KeptEntry &way, u32 index) const;

    const UnitConfig &config_;
    Memory &memory_;
    u64 table_ = 0;
    u64 entries_ = 0;
    bool extended_ = false;
    struct Marked {
        bool enabled = false;
        bool compatibility = false;
        bool extended = false;
        u64 table = 0;
        u64 entries = 0;
    };
    Marked marked_;
};

// What is wrong with the recorded outcome of an interrupt, nothing when nothing is.
std::optional<Finding> judge_interrupt(u64 event, const Outcome &recorded,
                                       const RemappingResult &result);

} // namespace dmarewind
