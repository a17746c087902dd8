// Every entry a unit could have kept: context, PASID, paging-structure and IOTLB caches.
//
// What was used and not invalidated since may still be in use, so it is kept: up to max_ways
// different entries under one key, of which the oldest goes first, and max_entries in one cache,
// which is emptied when one more comes.
#pragma once

#include "fast_tlb.hpp"
#include "flat_map.hpp"
#include "lookup.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <unordered_map>

namespace dmarewind {

inline constexpr unsigned max_ways = 4;
// Entries kept in one cache: context, PASID, paging-structure or IOTLB.
inline constexpr u32 max_entries = u32{1} << 18;
// Regions of a tag that may lead to a table page; one with more is not watched for its reuse.
inline constexpr u32 max_table_users = 16;
// Keys of dropped IOTLB entries remembered to explain a unit that serves them still.
inline constexpr std::size_t dropped_limit = std::size_t{1} << 16;

// The quadwords read on the way to an answer.
template <unsigned Capacity> struct Steps {
    unsigned count = 0;
    std::array<Step, Capacity> steps; // those from count on are not initialised

    Steps() {}
    Steps(const Steps &other) { append(other); }
    template <unsigned Other> explicit Steps(const Steps<Other> &other) {
        static_assert(Other <= Capacity);
        append(other.steps.data(), other.count);
    }
    Steps &operator=(const Steps &other) {
        count = 0;
        append(other);
        return *this;
    }

    void add(const Step &step) { steps[count++] = step; }
    void append(const Steps &other) { append(other.steps.data(), other.count); }
    void append(const Step *first, unsigned number) {
        std::copy_n(first, number, steps.data() + count);
        count += number;
    }

    // As an observer of a lookup.
    void entry(Role role, unsigned level, u64 address, u64 value) {
        add({address, value, role, static_cast<u8>(level)});
    }
};

inline constexpr unsigned max_entry_steps =
    layout::RootEntry::words + layout::ScalableContextEntry::words +
    layout::PasidDirectoryEntry::words + layout::PasidEntry::words;
// To a context or PASID entry, and to the end of a walk that a kept entry may lead into.
using EntryTrail = Steps<max_entry_steps>;
using Trail = Steps<max_entry_steps + max_steps + 1>;

// A context or PASID entry as it was when an access used it. With a reason it is one that is not
// present or not valid, which caching mode allows to keep; then its words are zero, and so is its
// domain, because nothing in it counts.
struct CachedWords {
    u64 filled_by = 0;
    std::int64_t domain = -1;
    u8 reason = 0;
    bool fault_disable = false;
    u32 count = 0;
    u64 words[layout::PasidEntry::words] = {};
    EntryTrail trail;

    // Whether it says what the entry in memory does.
    bool is_of(const EntryResult &found) const {
        if (found.reason != 0 || reason != 0)
            return reason == found.reason;
        return count == found.count && std::equal(words, words + count, found.words);
    }
};

// The same, as an access has it at hand.
struct WordsView {
    const EntryResult &entry;
    const Trail &trail;
    unsigned steps; // of the trail
    u64 filled_by;
    std::int64_t domain;
};

// A non-leaf entry: what it said and the table it led to.
struct CachedStructure {
    NonLeaf nonleaf;
    u64 filled_by;
    u32 table_user; // number of the record that says who leads to the table
};

// A leaf, or in caching mode a not-present outcome.
struct CachedTranslation {
    Outcome outcome;
    Rights rights;
    u8 steps_count;
    u64 filled_by;
    Step steps[max_leaf_steps];
};

// An IOTLB entry that the invalidation of event dropped_by covered.
struct Dropped {
    Outcome outcome;
    u64 filled_by = 0;
    u64 dropped_by = 0;
};

// Those of one key, the one used last first.
struct DroppedWays {
    u32 count = 0;
    Dropped entry[max_ways];
};

// The entries under one key, oldest first, as numbers in a pool.
struct Ways {
    u32 count = 0;
    u32 entry[max_ways] = {};
};

class Caches {
  public:
    // entry is built only when it is a new one.
    void add_context(u32 sid, const WordsView &entry);
    void add_pasid(u32 sid, u32 pasid, const WordsView &entry);
    void add_structure(CacheTag tag, u64 iova, const NonLeaf &nonleaf, u64 event);
    void add_translation(CacheTag tag, unsigned shift, u64 iova, const Outcome &outcome,
                         Rights rights, std::span<const Step> steps, u64 event);

    // Call function with each kept entry, oldest first.
    template <class Function> void contexts(u32 sid, Function function) const {
        if (const Ways *ways = contexts_.keys.find(context_key(sid)))
            for (u32 i = 0; i < ways->count; ++i)
                function(words_[ways->entry[i]]);
    }
    template <class Function> void pasids(u32 sid, u32 pasid, Function function) const {
        if (const Ways *ways = pasids_.keys.find(pasid_key(sid, pasid)))
            for (u32 i = 0; i < ways->count; ++i)
                function(words_[ways->entry[i]]);
    }

    // The kept non-leaf entries of a level that serve iova, oldest first.
    template <class Function>
    void structures(CacheTag tag, unsigned level, u64 iova, Function function) const {
        const Store *store = find(tag);
        if (store == nullptr || store->of_level[level] == 0)
            return;
        if (const Ways *ways = store->structures.find(structure_key(level, iova)))
            for (u32 i = 0; i < ways->count; ++i)
                function(structures_[ways->entry[i]]);
    }

    // Every kept leaf that covers iova, small pages first, oldest first.
    template <class Function> void translations(CacheTag tag, u64 iova, Function function) const {
        const Store *store = find(tag);
        if (store == nullptr)
            return;
        for (unsigned level = 1; level <= layout::largest_leaf; ++level) {
            if (store->of_leaf[level] == 0)
                continue;
            if (const Ways *ways = store->leaves.find(leaf_key(level, iova)))
                for (u32 i = 0; i < ways->count; ++i)
                    function(translations_[ways->entry[i]]);
        }
    }

    // The kept non-leaf entries that lead to a table page, ordered by tag, level and region; none
    // if too many do.
    void tables_at(u64 page, std::vector<std::pair<CacheTag, const CachedStructure *>> &out) const;

    // The remembered invalidated entries that covered iova: small pages first, and of one page the
    // entry that was used last.
    template <class Function> void dropped_at(CacheTag tag, u64 iova, Function function) const {
        for (unsigned level = 1; level <= layout::largest_leaf; ++level) {
            const auto found = dropped_.find({tag.packed(), leaf_key(level, iova)});
            if (found != dropped_.end())
                for (u32 i = 0; i < found->second.count; ++i)
                    function(found->second.entry[i]);
        }
    }

    // Invalidation (VT-d specification 6.5); event is the number of the one that asked for it.
    void drop_all(u64 event);
    void drop_contexts();
    void drop_contexts_of_domain(u32 domain);
    // With a domain only those that were cached in it; scalable ones carry none.
    void drop_contexts_of_device(u32 sid, u64 function_mask, std::optional<u32> domain);
    void drop_pasids();
    void drop_pasids_of_domain(u32 domain);
    // One that was not present goes with its PASID in any domain.
    void drop_pasid_entries(u32 domain, u32 pasid);
    void drop_iotlb(u64 event);
    void drop_iotlb_of_domain(u64 event, u32 domain);
    // What covers 2^mask second-stage pages of a domain, and all that a first stage of it gave:
    // where nested tables lie is decided by the second stage.
    void drop_second_stage(u64 event, u32 domain, u64 address, u64 mask, bool leaves_only);
    // The same of the first-stage and nested pages of a PASID; all of them.
    void drop_pasid_pages(u64 event, u32 domain, u32 pasid, u64 address, u64 mask,
                          bool leaves_only);
    void drop_pasid(u64 event, u32 domain, u32 pasid);

    bool empty() const {
        return contexts_.keys.empty() && pasids_.keys.empty() && tags_.empty() && dropped_.empty();
    }
    // Be as new: forget what was dropped, too.
    void restart();

    // Keys that invalidations of less than everything have looked at so far.
    u64 looked_at() const { return looked_at_; }

    // The finite cache of batches, told of every invalidation.
    FastTlb fast;

  private:
    // The entries of one tag.
    struct Store {
        u64 first_leaf = 0; // when it last became non-empty: the order domains are dropped in
        u32 of_leaf[layout::largest_leaf + 1] = {};
        u32 of_level[max_levels + 1] = {};
        FlatMap<Ways> leaves;
        FlatMap<Ways> structures;

        void clear() {
            clear_leaves();
            clear_structures();
        }
        void clear_leaves() {
            leaves.clear();
            std::fill(std::begin(of_leaf), std::end(of_leaf), 0);
        }
        void clear_structures() {
            structures.clear();
            std::fill(std::begin(of_level), std::end(of_level), 0);
        }
    };
    struct DroppedKey {
        u64 tag;
        u64 leaf;
        bool operator==(const DroppedKey &) const = default;
    };
    struct DroppedHash {
        std::size_t operator()(const DroppedKey &key) const {
            return (key.tag * 0x9e37'79b9'7f4a'7c15) ^ (key.leaf * 0xc2b2'ae3d'27d4'eb4f);
        }
    };
    // Who may still lead to a table page: (tag, structure key), in one list per page.
    struct TableUser {
        u64 tag;
        u64 key;
        u32 next;
        u32 previous;
    };
    struct TableUsers {
        u32 first = none;
        u32 count = 0;
    };
    static constexpr u32 none = ~u32{0};

    // Keys hold the level in their upper bits, so their order is that of (level, page).
    static constexpr unsigned level_shift = 60;
    static u64 leaf_key(unsigned level, u64 iova) {
        return u64{level} << level_shift | iova >> layout::page_shift[level];
    }
    static u64 structure_key(unsigned level, u64 iova) { return leaf_key(level, iova); }
    static unsigned key_level(u64 key) { return static_cast<unsigned>(key >> level_shift); }
    static u64 key_page(u64 key) { return key & ((u64{1} << level_shift) - 1); }
    static u64 pasid_key(u32 sid, u32 pasid) {
        return u64{sid} << 32 | (defect(Defect::pasid_key_of_table_index) ? pasid & 63 : pasid);
    }
    static u64 context_key(u32 sid) {
        return defect(Defect::context_key_without_bus) ? sid & 0xff : sid;
    }

    const Store *find(CacheTag tag) const { return const_cast<Caches *>(this)->find(tag); }
    Store *find(CacheTag tag) {
        if (tag.packed() == last_tag_ && last_store_ != nullptr)
            return last_store_;
        const u32 *number = tags_.find(tag.packed());
        if (number == nullptr)
            return nullptr;
        last_tag_ = tag.packed();
        last_store_ = &stores_[*number];
        return last_store_;
    }
    Store &store_of(CacheTag tag);
    // Context or PASID entries.
    struct WordsCache {
        FlatMap<Ways> keys;
        u32 entries = 0;

        void clear() {
            keys.clear();
            entries = 0;
        }
    };
    void add_words(WordsCache &cache, u64 key, const WordsView &view);
    void drop_words(WordsCache &cache);
    template <class Keep> void drop_words_unless(WordsCache &cache, Keep keep);
    void drop_range(u64 event, CacheTag tag, u64 address, u64 mask, bool leaves_only);
    void drop_all_of_tag(u64 event, CacheTag tag);
    void drop_leaves(Store &store, CacheTag tag, const std::vector<u64> &keys, u64 event);
    void drop_structures(Store &store, const std::vector<u64> &keys);
    template <class Chosen> void drop_tags(u64 event, Chosen chosen);
    bool leads_to(const Ways &ways, u64 page) const;
    void forget_table(u64 page, u32 user);
    u32 remember_table(u64 page, CacheTag tag, u64 key);
    void discard_if_empty(CacheTag tag, const Store &store);
    void empty_structures();
    void empty_leaves();
    void collect(FlatMap<Ways> &map, u64 first, u64 last, const u32 *of_level, unsigned lowest,
                 unsigned highest);

    WordsCache contexts_;
    WordsCache pasids_;
    Pool<CachedWords> words_;
    FlatMap<u32> tags_;
    Pool<Store> stores_;
    u64 last_tag_ = 0;
    Store *last_store_ = nullptr;
    u64 births_ = 0;
    u32 first_stage_tags_ = 0;
    Pool<CachedTranslation> translations_;
    Pool<CachedStructure> structures_;
    u32 translations_kept_ = 0;
    u32 structures_kept_ = 0;
    FlatMap<TableUsers> tables_;
    Pool<TableUser> table_users_;
    std::unordered_map<DroppedKey, DroppedWays, DroppedHash> dropped_;
    u64 looked_at_ = 0;
    std::vector<u64> keys_; // scratch
};

} // namespace dmarewind
