#include "caches.hpp"

#include "defects.hpp"

#include <cassert>

namespace dmarewind {
namespace {

// Put entry behind the others; returns the one that had to go, or none.
u32 push(Ways &ways, u32 entry, u32 none) {
    u32 oldest = none;
    if (ways.count == max_ways && !defect(Defect::ways_never_full)) {
        oldest = ways.entry[0];
        std::copy(ways.entry + 1, ways.entry + max_ways, ways.entry);
        --ways.count;
    }
    ways.entry[ways.count++] = entry;
    return oldest;
}

} // namespace

// -- filling --------------------------------------------------------------------------------------

void Caches::add_words(WordsCache &cache, u64 key, const WordsView &view) {
    const EntryResult &found = view.entry;
    const Ways *kept = cache.keys.find(key);
    for (u32 i = 0; kept != nullptr && i < kept->count; ++i) {
        const CachedWords &way = words_[kept->entry[i]];
        if (way.count == found.count && way.is_of(found))
            return;
    }
    if (kept == nullptr || kept->count != max_ways) {
        if (cache.entries == max_entries)
            drop_words(cache);
        ++cache.entries;
    }
    const u32 number = words_.take();
    CachedWords &entry = words_[number];
    entry.filled_by = view.filled_by;
    entry.domain = view.domain;
    entry.reason = found.reason;
    entry.fault_disable = found.fault_disable;
    entry.count = found.count;
    std::fill(std::begin(entry.words), std::end(entry.words), 0);
    if (found.reason == 0)
        std::copy_n(found.words, entry.count, entry.words);
    entry.trail.count = 0;
    entry.trail.append(view.trail.steps.data(), view.steps);
    if (const u32 oldest = push(cache.keys[key], number, none); oldest != none)
        words_.release(oldest);
}

void Caches::add_context(u32 sid, const WordsView &entry) {
    add_words(contexts_, context_key(sid), entry);
}

void Caches::add_pasid(u32 sid, u32 pasid, const WordsView &entry) {
    add_words(pasids_, pasid_key(sid, pasid), entry);
}

Caches::Store &Caches::store_of(CacheTag tag) {
    if (Store *found = find(tag))
        return *found;
    const u32 number = stores_.take();
    tags_[tag.packed()] = number;
    first_stage_tags_ += tag.of_first_stage();
    last_tag_ = tag.packed();
    last_store_ = &stores_[number];
    return *last_store_;
}

void Caches::add_structure(CacheTag tag, u64 iova, const NonLeaf &nonleaf, u64 event) {
    Store *store = &store_of(tag);
    const unsigned level = nonleaf.step.level;
    const u64 key = structure_key(level, iova);
    u32 user = none;
    const Ways *kept = store->structures.find(key);
    for (u32 i = 0; kept != nullptr && i < kept->count; ++i) {
        const CachedStructure &way = structures_[kept->entry[i]];
        if (way.nonleaf.child != nonleaf.child)
            continue;
        if (way.nonleaf.rights == nonleaf.rights)
            return;
        user = way.table_user;
    }
    if (kept == nullptr || kept->count != max_ways) {
        if (structures_kept_ == max_entries) {
            empty_structures();
            store = &store_of(tag);
            user = none;
        }
        ++structures_kept_;
    }
    Ways &ways = store->structures[key];
    if (ways.count == 0)
        ++store->of_level[level];
    const u32 number = structures_.take();
    structures_[number] = {nonleaf, event,
                           user != none ? user : remember_table(nonleaf.child, tag, key)};
    const u32 gone = push(ways, number, none);
    if (gone == none)
        return;
    const CachedStructure &oldest = structures_[gone];
    if (!leads_to(ways, oldest.nonleaf.child))
        forget_table(oldest.nonleaf.child, oldest.table_user);
    structures_.release(gone);
}

void Caches::add_translation(CacheTag tag, unsigned shift, u64 iova, const Outcome &outcome,
                             Rights rights, std::span<const Step> steps, u64 event) {
    Store *store = &store_of(tag);
    const unsigned level = (shift - layout::page_bits) / layout::index_bits + 1;
    const u64 key = leaf_key(level, iova);
    const Ways *kept = store->leaves.find(key);
    for (u32 i = 0; kept != nullptr && i < kept->count; ++i) {
        const CachedTranslation &way = translations_[kept->entry[i]];
        if (way.outcome == outcome && way.rights == rights)
            return;
    }
    if (kept == nullptr || kept->count != max_ways) {
        if (translations_kept_ == max_entries) {
            empty_leaves();
            store = &store_of(tag);
        }
        ++translations_kept_;
    }
    Ways &ways = store->leaves[key];
    if (store->leaves.size() == 1 && ways.count == 0)
        store->first_leaf = ++births_;
    if (ways.count == 0)
        ++store->of_leaf[level];
    const u32 number = translations_.take();
    CachedTranslation &entry = translations_[number];
    entry.outcome = outcome;
    entry.rights = rights;
    entry.filled_by = event;
    entry.steps_count = static_cast<u8>(steps.size());
    std::copy(steps.begin(), steps.end(), entry.steps);
    if (const u32 oldest = push(ways, number, none); oldest != none)
        translations_.release(oldest);
}

// Make room for more entries than are ever kept.
void Caches::empty_structures() {
    std::vector<u64> tags;
    tags_.for_each([&](u64 packed, u32 &number) {
        stores_[number].clear_structures();
        tags.push_back(packed);
    });
    structures_.clear();
    structures_kept_ = 0;
    tables_.clear();
    table_users_.clear();
    for (const u64 packed : tags)
        discard_if_empty(CacheTag::unpack(packed), stores_[*tags_.find(packed)]);
}

void Caches::empty_leaves() {
    std::vector<u64> tags;
    tags_.for_each([&](u64 packed, u32 &number) {
        stores_[number].clear_leaves();
        tags.push_back(packed);
    });
    translations_.clear();
    translations_kept_ = 0;
    for (const u64 packed : tags)
        discard_if_empty(CacheTag::unpack(packed), stores_[*tags_.find(packed)]);
}

// -- table pages ----------------------------------------------------------------------------------

bool Caches::leads_to(const Ways &ways, u64 page) const {
    return std::any_of(ways.entry, ways.entry + ways.count,
                       [&](u32 number) { return structures_[number].nonleaf.child == page; });
}

u32 Caches::remember_table(u64 page, CacheTag tag, u64 key) {
    const u32 number = table_users_.take();
    TableUsers &users = tables_[page];
    if (users.first != none)
        table_users_[users.first].previous = number;
    table_users_[number] = {tag.packed(), key, users.first, none};
    users.first = number;
    ++users.count;
    return number;
}

void Caches::forget_table(u64 page, u32 user) {
    TableUsers &users = *tables_.find(page);
    const TableUser &gone = table_users_[user];
    if (gone.next != none)
        table_users_[gone.next].previous = gone.previous;
    if (gone.previous != none)
        table_users_[gone.previous].next = gone.next;
    else
        users.first = gone.next;
    table_users_.release(user);
    if (--users.count == 0)
        tables_.erase(page);
}

void Caches::tables_at(u64 page,
                       std::vector<std::pair<CacheTag, const CachedStructure *>> &out) const {
    out.clear();
    const TableUsers *users = tables_.find(page);
    if (users == nullptr || users->count > max_table_users)
        return;
    std::array<std::pair<u64, u64>, max_table_users> order;
    auto end = order.begin();
    for (u32 at = users->first; at != none; at = table_users_[at].next)
        *end++ = {table_users_[at].tag, table_users_[at].key};
    std::sort(order.begin(), end);
    for (const auto &[packed, key] : std::span(order.begin(), end)) {
        const CacheTag tag = CacheTag::unpack(packed);
        // A user is forgotten with its last entry that leads to the page: there is one.
        const Store *store = find(tag);
        assert(store != nullptr);
        const Ways *found = store->structures.find(key);
        assert(found != nullptr);
        const Ways &ways = *found;
        for (u32 i = 0; i < ways.count; ++i) {
            const CachedStructure &way = structures_[ways.entry[i]];
            if (way.nonleaf.child == page)
                out.emplace_back(tag, &way);
        }
    }
}

// -- invalidation ---------------------------------------------------------------------------------

void Caches::drop_words(WordsCache &cache) {
    cache.keys.for_each([&](u64, Ways &ways) {
        for (u32 i = 0; i < ways.count; ++i)
            words_.release(ways.entry[i]);
    });
    cache.keys.clear();
    cache.entries = 0;
}

// Keep the entries keep(key, entry) wants.
template <class Keep> void Caches::drop_words_unless(WordsCache &cache, Keep keep) {
    looked_at_ += cache.keys.size();
    keys_.clear();
    cache.keys.for_each([&](u64 key, Ways &ways) {
        u32 kept = 0;
        for (u32 i = 0; i < ways.count; ++i)
            if (keep(key, words_[ways.entry[i]]))
                ways.entry[kept++] = ways.entry[i];
            else
                words_.release(ways.entry[i]);
        cache.entries -= ways.count - kept;
        ways.count = kept;
        if (kept == 0)
            keys_.push_back(key);
    });
    for (const u64 key : keys_)
        cache.keys.erase(key);
}

void Caches::drop_all(u64 event) {
    drop_words(contexts_);
    drop_words(pasids_);
    drop_iotlb(event);
}

void Caches::restart() {
    contexts_.clear();
    pasids_.clear();
    words_.clear();
    tags_.for_each([&](u64, u32 &number) { stores_[number].clear(); });
    tags_.clear();
    stores_.clear();
    last_store_ = nullptr;
    first_stage_tags_ = 0;
    empty_structures();
    empty_leaves();
    dropped_.clear();
    fast.drop_all();
    looked_at_ = 0;
    births_ = 0;
}

void Caches::drop_contexts() {
    fast.drop_devices();
    drop_words(contexts_);
}

void Caches::drop_contexts_of_domain(u32 domain) {
    fast.drop_devices();
    // Scalable context entries carry no domain, and all of them go.
    drop_words_unless(contexts_, [&](u64, const CachedWords &entry) {
        return entry.domain != domain && entry.domain != -1;
    });
}

void Caches::drop_contexts_of_device(u32 sid, u64 function_mask, std::optional<u32> domain) {
    // FM 0 compares all function bits, 1 ignores bit 2, 2 bits 2:1, 3 bits 2:0.
    constexpr u64 ignored_bits[] = {0, 4, 6, 7};
    const u64 ignored = ignored_bits[function_mask & 3];
    fast.drop_devices();
    drop_words_unless(contexts_, [&](u64 other, const CachedWords &entry) {
        const u64 compared = defect(Defect::function_mask_not_inverted) ? ignored : ~ignored;
        if (((other ^ sid) & compared) != 0)
            return true;
        return domain.has_value() && entry.domain >= 0 && entry.domain != *domain;
    });
}

void Caches::drop_pasids() {
    fast.drop_devices();
    drop_words(pasids_);
}

void Caches::drop_pasids_of_domain(u32 domain) {
    fast.drop_devices();
    drop_words_unless(pasids_,
                      [&](u64, const CachedWords &entry) { return entry.domain != domain; });
}

void Caches::drop_pasid_entries(u32 domain, u32 pasid) {
    fast.drop_devices();
    drop_words_unless(pasids_, [&](u64 key, const CachedWords &entry) {
        return static_cast<u32>(key) != pasid || (entry.reason == 0 && entry.domain != domain);
    });
}

void Caches::drop_leaves(Store &store, CacheTag tag, const std::vector<u64> &keys, u64 event) {
    if (keys.empty())
        return;
    // The limit is applied to whole invalidations so that it does not depend on their order.
    if (dropped_.size() + keys.size() > dropped_limit)
        dropped_.clear();
    for (const u64 key : keys) {
        const Ways ways = *store.leaves.find(key);
        store.leaves.erase(key);
        --store.of_leaf[key_level(key)];
        translations_kept_ -= ways.count;
        if (keys.size() <= dropped_limit) {
            DroppedWays &dropped = dropped_[{tag.packed(), key}];
            dropped.count = 0;
            for (u32 i = ways.count; i-- != 0;) {
                const CachedTranslation &way = translations_[ways.entry[i]];
                dropped.entry[dropped.count++] = {way.outcome, way.filled_by, event};
            }
        }
        for (u32 i = 0; i < ways.count; ++i)
            translations_.release(ways.entry[i]);
    }
}

void Caches::drop_structures(Store &store, const std::vector<u64> &keys) {
    for (const u64 key : keys) {
        Ways ways = *store.structures.find(key);
        store.structures.erase(key);
        --store.of_level[key_level(key)];
        structures_kept_ -= ways.count;
        while (ways.count != 0) {
            const u32 number = ways.entry[--ways.count];
            const CachedStructure &way = structures_[number];
            if (!leads_to(ways, way.nonleaf.child))
                forget_table(way.nonleaf.child, way.table_user);
            structures_.release(number);
        }
    }
}

void Caches::discard_if_empty(CacheTag tag, const Store &store) {
    if (!store.leaves.empty() || !store.structures.empty())
        return;
    const u32 *number = tags_.find(tag.packed());
    stores_.release(*number);
    tags_.erase(tag.packed());
    first_stage_tags_ -= tag.of_first_stage();
    if (!defect(Defect::store_pointer_stale))
        last_store_ = nullptr;
}

void Caches::drop_pasid(u64 event, u32 domain, u32 pasid) {
    fast.drop_domain(domain);
    drop_all_of_tag(event, CacheTag::first_stage(domain, pasid));
    drop_all_of_tag(event, CacheTag::nested(domain, pasid));
}

void Caches::drop_all_of_tag(u64 event, CacheTag tag) {
    Store *store = find(tag);
    if (store == nullptr)
        return;
    keys_.clear();
    store->leaves.for_each([&](u64 key, Ways &) { keys_.push_back(key); });
    drop_leaves(*store, tag, keys_, event);
    keys_.clear();
    if (!defect(Defect::domain_invalidation_keeps_tables))
        store->structures.for_each([&](u64 key, Ways &) { keys_.push_back(key); });
    drop_structures(*store, keys_);
    discard_if_empty(tag, *store);
}

// Drop the stores of the chosen tags in the order their first leaf came in: the limit on
// remembered entries makes the order visible.
template <class Chosen> void Caches::drop_tags(u64 event, Chosen chosen) {
    std::vector<std::pair<u64, u64>> order;
    tags_.for_each([&](u64 packed, u32 &number) {
        const Store &store = stores_[number];
        looked_at_ += (store.leaves.empty() ? 0U : 1U) + (store.structures.empty() ? 0U : 1U);
        if (chosen(CacheTag::unpack(packed)))
            order.emplace_back(store.first_leaf, packed);
    });
    std::sort(order.begin(), order.end());
    for (const auto &[birth, packed] : order)
        drop_all_of_tag(event, CacheTag::unpack(packed));
}

void Caches::drop_iotlb(u64 event) {
    fast.drop_all();
    drop_tags(event, [](CacheTag) { return true; });
}

void Caches::drop_iotlb_of_domain(u64 event, u32 domain) {
    fast.drop_domain(domain);
    drop_tags(event, [&](CacheTag tag) { return tag.domain() == domain; });
}

// List in keys_ those whose page touches [first, last], by asking for each or by looking at all.
void Caches::collect(FlatMap<Ways> &map, u64 first, u64 last, const u32 *of_level, unsigned lowest,
                     unsigned highest) {
    keys_.clear();
    u64 probes = 0;
    for (unsigned level = lowest; level <= highest; ++level) {
        const unsigned shift = layout::page_shift[level];
        probes += (last >> shift) - (first >> shift) + 1;
    }
    looked_at_ += std::min<u64>(probes, map.size());
    if (probes > map.size()) {
        map.for_each([&](u64 key, Ways &) {
            const unsigned shift = layout::page_shift[key_level(key)];
            const u64 page = key_page(key);
            if (page >= first >> shift && page <= last >> shift)
                keys_.push_back(key);
        });
        return;
    }
    for (unsigned level = lowest; level <= highest; ++level) {
        if (of_level[level] == 0)
            continue;
        const unsigned shift = layout::page_shift[level];
        for (u64 page = first >> shift; page <= last >> shift; ++page) {
            const u64 key = u64{level} << level_shift | page;
            if (map.find(key) != nullptr)
                keys_.push_back(key);
        }
    }
}

void Caches::drop_second_stage(u64 event, u32 domain, u64 address, u64 mask, bool leaves_only) {
    drop_range(event, CacheTag::second_stage(domain), address, mask, leaves_only);
    if (first_stage_tags_ == 0)
        return;
    std::vector<std::pair<u64, u64>> order;
    tags_.for_each([&](u64 packed, u32 &number) {
        const CacheTag tag = CacheTag::unpack(packed);
        if (tag.domain() == domain && tag.of_first_stage())
            order.emplace_back(stores_[number].first_leaf, packed);
    });
    looked_at_ += order.size();
    std::sort(order.begin(), order.end());
    for (const auto &[birth, packed] : order)
        drop_all_of_tag(event, CacheTag::unpack(packed));
}

void Caches::drop_pasid_pages(u64 event, u32 domain, u32 pasid, u64 address, u64 mask,
                              bool leaves_only) {
    drop_range(event, CacheTag::first_stage(domain, pasid), address, mask, leaves_only);
    drop_range(event, CacheTag::nested(domain, pasid), address, mask, leaves_only);
}

void Caches::drop_range(u64 event, CacheTag tag, u64 address, u64 mask, bool leaves_only) {
    const u64 bits = layout::page_bits + mask;
    const u64 low = bits >= 64 ? ~u64{0} : (u64{1} << bits) - 1;
    const u64 first = address & ~low;
    const u64 last = first | low;
    fast.drop_pages(tag, first, last);
    Store *store = find(tag);
    const bool skipped =
        defect(Defect::page_invalidation_skips_regions) && mask >= layout::index_bits;
    if (store == nullptr || skipped)
        return;
    const bool small = defect(Defect::page_invalidation_skips_large_pages);
    collect(store->leaves, first, last, store->of_leaf, 1, small ? 1 : layout::largest_leaf);
    drop_leaves(*store, tag, keys_, event);
    if (!leaves_only) {
        collect(store->structures, first, last, store->of_level, 2, max_levels);
        drop_structures(*store, keys_);
    }
    discard_if_empty(tag, *store);
}

} // namespace dmarewind
