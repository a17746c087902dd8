#include "caches.hpp"
#include "check.hpp"

using namespace dmarewind;
using dmarewind::tests::Test;

namespace {

// A PASID entry whose first word is this.
void add(Caches &caches, u32 sid, u32 pasid, u64 word) {
    EntryResult entry{};
    entry.count = layout::PasidEntry::words;
    entry.words[0] = word;
    const Trail trail{};
    caches.add_pasid(sid, pasid, {entry, trail, 0, 0, 1});
}

unsigned kept(const Caches &caches, u32 sid, u32 pasid) {
    unsigned count = 0;
    caches.pasids(sid, pasid, [&](const CachedWords &) { ++count; });
    return count;
}

void forgets_all_when_one_more_comes() {
    Caches caches;
    constexpr u32 pasids = 1 << 16;
    for (u32 number = 0; number < max_entries; ++number)
        add(caches, number / pasids, number % pasids, 1);
    // What is kept already, and what takes the place of another entry, is not one more.
    add(caches, 0, 7, 1);
    EXPECT(kept(caches, 0, 7) == 1 && kept(caches, 3, pasids - 1) == 1);
    add(caches, 9, 9, 1);
    EXPECT(kept(caches, 0, 7) == 0 && kept(caches, 3, pasids - 1) == 0);
    EXPECT(kept(caches, 9, 9) == 1);
    for (u64 word = 2; word < 9; ++word)
        add(caches, 9, 9, word);
    EXPECT(kept(caches, 9, 9) == max_ways);
}
const Test entries("caches: one PASID entry too many", forgets_all_when_one_more_comes);

// What an invalidation drops is remembered, but of more than the limit nothing is.
void remembers_no_more_than_its_limit() {
    const CacheTag tag = CacheTag::unpack(CacheTag(PagingRoot{}).packed());
    const auto remembered = [&](const Caches &caches, u64 page) {
        unsigned count = 0;
        caches.dropped_at(tag, page << layout::page_bits, [&](const Dropped &) { ++count; });
        return count;
    };
    for (const u64 more : {u64{0}, u64{1}}) {
        Caches caches;
        const auto fill = [&](u64 first, u64 count) {
            Outcome outcome;
            outcome.type = OutcomeType::translation;
            for (u64 page = first; page < first + count; ++page)
                caches.add_translation(tag, layout::page_bits, page << layout::page_bits, outcome,
                                       right_read, {}, 0);
        };
        fill(0, dropped_limit + more);
        caches.drop_iotlb(1);
        EXPECT(remembered(caches, 0) == (more ? 0 : 1));
        EXPECT(remembered(caches, dropped_limit - 1) == (more ? 0 : 1));
        // One more invalidation makes it forget those before.
        fill(dropped_limit + 7, 1);
        caches.drop_iotlb(2);
        EXPECT(remembered(caches, 0) == 0);
        EXPECT(remembered(caches, dropped_limit + 7) == 1);
    }
}
const Test limit("caches: what is remembered has a limit", remembers_no_more_than_its_limit);

} // namespace
