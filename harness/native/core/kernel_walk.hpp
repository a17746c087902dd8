// Eight walks at once through page tables of one shape. Part of kernel_body.hpp.
#pragma once

#include "kernel.hpp"
#include "lanes.hpp"

#include <algorithm>

namespace dmarewind {
namespace {

inline constexpr unsigned entry_bits = 3;
static_assert(layout::entry_size == 1U << entry_bits);
inline constexpr u64 index_mask = ((u64{1} << layout::index_bits) - 1) << entry_bits;

inline bool in_interrupt_range(Lanes addresses) {
    return any(mask(addresses - interrupt_first <= all(interrupt_last - interrupt_first)));
}

// The bits of input addresses that none may have, or not only some of.
inline Lanes beyond_input(const KernelState::Stage &stage, Lanes addresses) {
    const auto top = reinterpret_cast<SignedLanes>(addresses) >> stage.input_shift;
    return reinterpret_cast<Lanes>(stage.rules->canonical ? top ^ (top >> 63) : top);
}

// Where eight entries of a leaf lead; what may not be there is in bad.
inline Lanes leaves_to(const WalkRules &rules, Lanes entry, Lanes addresses, unsigned shift,
                       Lanes &bad) {
    const u64 inside_page = (u64{1} << shift) - 1;
    const Lanes page = entry & (layout::SecondStageEntry::addr.mask() & ~inside_page);
    const Lanes out = page | (addresses & inside_page);
    const Lanes first = rules.interrupt_range_by_page ? page : out;
    const Lanes last = rules.interrupt_range_by_page ? page + inside_page : out;
    bad |= mask(first <= interrupt_last) & mask(last >= interrupt_first);
    return out;
}

// Walk one stage whose tables are where they say; return where the addresses lead.
[[gnu::always_inline]] inline Lanes walk_stage(const KernelState &state,
                                               const KernelState::Stage &stage, Lanes table,
                                               Lanes addresses, Lanes &bad) {
    const WalkRules &rules = *stage.rules;
    bad |= beyond_input(stage, addresses) | (table & ~(state.window - 1));
    const u64 pointer = layout::SecondStageEntry::addr.mask() & (state.window - 1);
    table &= pointer;
    for (unsigned level = stage.levels;; --level) {
        const unsigned shift = layout::page_shift[level];
        const Lanes places = table | (addresses >> (shift - entry_bits) & index_mask);
        Lanes entry;
        // Tables near the root are often shared by requests that arrive together. Not written with
        // gather_shared: that comes out slower where tables are not in cache (gcc 12, measured).
        if (const u64 shared = places[0]; level > 2 && !any(places ^ shared)) {
            u64 word;
            std::memcpy(&word, state.memory + shared, sizeof word);
            entry = all(word);
        } else {
            entry = gather(state.memory, places);
        }
        if (rules.all_ones_unreadable)
            bad |= mask(entry == ~u64{0});
        const u64 leaf_bit = rules.leaf_bit[level];
        if (level != 1 && !any(entry & leaf_bit)) [[likely]] {
            const KernelState::Stage::Plain &plain = stage.plain[level][0];
            bad |= (entry ^ plain.value) & plain.mask;
            table = entry & pointer;
            continue;
        }
        // A leaf; all of one size, or none of this.
        const KernelState::Stage::Plain &plain = stage.plain[level][1];
        bad |= (entry ^ plain.value) & plain.mask;
        if (level != 1)
            bad |= ~entry & leaf_bit;
        return leaves_to(rules, entry, addresses, shift, bad);
    }
}

// Walk a first stage whose tables, and what it leads to, a second stage translates.
[[gnu::noinline]] bool walk_nested(const KernelState &state, Lanes table, Lanes host,
                                   Lanes addresses, u64 *out) {
    const KernelState::Stage &stage = state.stage;
    const WalkRules &rules = *stage.rules;
    Lanes bad = beyond_input(stage, addresses);
    for (unsigned level = stage.levels;; --level) {
        const unsigned shift = layout::page_shift[level];
        Lanes places = table | (addresses >> (shift - entry_bits) & index_mask);
        places = walk_stage(state, state.host_table, host, places, bad);
        bad |= places & ~(state.window - 1);
        const Lanes entry = gather(state.memory, places & (state.window - 1));
        if (rules.all_ones_unreadable)
            bad |= mask(entry == ~u64{0});
        const u64 leaf_bit = rules.leaf_bit[level];
        const bool leaf = level == 1 || any(entry & leaf_bit);
        const KernelState::Stage::Plain &plain = stage.plain[level][leaf];
        bad |= (entry ^ plain.value) & plain.mask;
        if (!leaf) {
            table = entry & layout::SecondStageEntry::addr.mask();
            continue;
        }
        if (level != 1)
            bad |= ~entry & leaf_bit;
        const u64 inside_page = (u64{1} << shift) - 1;
        const Lanes page = entry & (layout::SecondStageEntry::addr.mask() & ~inside_page);
        const Lanes found =
            walk_stage(state, state.host_data, host, page | (addresses & inside_page), bad);
        if (any(bad)) [[unlikely]]
            return false;
        store_lanes(out, found);
        return true;
    }
}

} // namespace
} // namespace dmarewind
