// The kernel for processors without wide registers: eight requests level by level, their checks
// gathered in one word, so that their loads overlap and nothing stands between one and the next.
#include "kernel_requests.hpp"

#include <algorithm>

namespace dmarewind::plain {
namespace {

constexpr unsigned lane_count = 8;

u64 load(const KernelState &state, u64 address) {
    u64 value;
    std::memcpy(&value, state.memory + address, sizeof value);
    return value;
}

// What is wrong with an entry that should pass a plain test.
constexpr u64 differs(u64 entry, u64 set, u64 clear) {
    return (entry ^ set) & (set | clear);
}

// The page tables of eight requests: of the first or only stage, and of the second under it.
struct Tables {
    u64 table[lane_count];
    u64 host[lane_count];
};

// Find the paging table of one request; what is wrong with the entries on the way is in bad.
inline u64 legacy_table(const KernelState &state, u64 sid, u32 pasid, u64 &bad) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const u64 beyond = lookup.beyond();
    const u64 outside = ~(state.window - 1);
    const u64 root = lookup.root_table() + (sid >> 8) * RootEntry::size;
    const u64 low = load(state, root);
    bad |= u64{pasid != no_pasid} | (load(state, root + sizeof(u64)) & RootEntry::reserved[1]) |
           differs(low, RootEntry::p.mask(),
                   RootEntry::reserved[0] | beyond | (RootEntry::ctp.mask() & outside));
    const u64 context =
        (low & (RootEntry::ctp.mask() & ~outside)) | (sid & 0xff) * ContextEntry::size;
    const u64 entry = load(state, context);
    bad |= ((entry ^ state.shape_value[0]) & state.shape_mask[0]) |
           ((load(state, context + sizeof(u64)) ^ state.shape_value[1]) & state.shape_mask[1]);
    return entry & ContextEntry::ssptptr.mask();
}

inline u64 scalable_table(const KernelState &state, u64 sid, u32 pasid, u64 &host, u64 &bad) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const u64 beyond = lookup.beyond();
    const u64 outside = ~(state.window - 1);
    const u64 half = lookup.root_table() + (sid >> 7) * sizeof(u64);
    const u64 low = load(state, half);
    bad |= (load(state, half ^ sizeof(u64)) & (ScalableRootEntry::reserved[0] | beyond)) |
           differs(low, ScalableRootEntry::lp.mask(),
                   ScalableRootEntry::reserved[0] | beyond |
                       (ScalableRootEntry::lctp.mask() & outside));
    const u64 context = (low & (ScalableRootEntry::lctp.mask() & ~outside)) |
                        (sid & 0x7f) * ScalableContextEntry::size;
    const u64 *reserved = lookup.context_reserved();
    const u64 context_low = load(state, context);
    const u64 context_high = load(state, context + 8);
    bad |= (context_low & reserved[0]) | (context_high & reserved[1]) | load(state, context + 16) |
           load(state, context + 24) |
           differs(context_low, ScalableContextEntry::p.mask(),
                   ScalableContextEntry::pasiddirptr.mask() & outside);
    u64 number = pasid;
    if (pasid == no_pasid)
        number = lookup.uses_rid_pasid() ? ScalableContextEntry::rid_pasid.of(context_high) : 0;
    if (lookup.checks_pasids()) {
        if (pasid != no_pasid)
            bad |= ~context_low & ScalableContextEntry::paside.mask();
        bad |= number >> (ScalableContextEntry::pdts.of(context_low) +
                          detail::directory_minimum_bits + detail::directory_shift);
    }
    const u64 directory = (context_low & (ScalableContextEntry::pasiddirptr.mask() & ~outside)) +
                          (number >> detail::directory_shift) * PasidDirectoryEntry::size;
    bad |= directory & outside;
    const u64 pointer = load(state, directory & ~outside);
    bad |= differs(pointer, PasidDirectoryEntry::p.mask(),
                   lookup.directory_reserved() | (PasidDirectoryEntry::smptblptr.mask() & outside));
    const u64 entry = (pointer & (PasidDirectoryEntry::smptblptr.mask() & ~outside)) |
                      (number & ((1U << detail::directory_shift) - 1)) * PasidEntry::size;
    u64 words[PasidEntry::words];
    std::memcpy(words, state.memory + entry, sizeof words);
    for (unsigned word = 0; word < PasidEntry::words; ++word)
        bad |= (words[word] ^ state.shape_value[word]) & state.shape_mask[word];
    host = words[0] & PasidEntry::ssptptr.mask();
    const bool second = state.root.stage() == static_cast<u8>(Role::second_stage);
    return second ? host : words[2] & PasidEntry::fsptptr.mask();
}

// The bits of an input address that it may not have, or not only some of.
u64 beyond_input(const KernelState::Stage &stage, u64 address) {
    const auto top = static_cast<std::int64_t>(address) >> stage.input_shift;
    return static_cast<u64>(stage.rules->canonical ? top ^ (top >> 63) : top);
}

u64 entry_place(u64 table, u64 address, unsigned level) {
    const u64 index = address >> layout::page_shift[level] & ((1U << layout::index_bits) - 1);
    return table | index * layout::entry_size;
}

// Test the entries of one level; whether they are leaves, all of them or none of this.
inline bool test_entries(const KernelState::Stage &stage, unsigned level, const u64 *entries,
                         u64 &bad) {
    const u64 leaf_bit = stage.rules->leaf_bit[level];
    u64 any = 0;
    u64 every = ~u64{0};
    for (unsigned i = 0; i < lane_count; ++i) {
        any |= entries[i];
        every &= entries[i];
    }
    if (stage.rules->all_ones_unreadable)
        for (unsigned i = 0; i < lane_count; ++i)
            bad |= u64{entries[i] == ~u64{0}};
    const bool leaf = level == 1 || (any & leaf_bit) != 0;
    const KernelState::Stage::Plain plain = stage.plain[level][leaf];
    for (unsigned i = 0; i < lane_count; ++i)
        bad |= (entries[i] ^ plain.value) & plain.mask;
    // Pages of one size only.
    if (leaf && level != 1)
        bad |= ~every & leaf_bit;
    return leaf;
}

// Walk one stage whose tables are where they say; out may be addresses.
inline void walk_stage(const KernelState &state, const KernelState::Stage &stage, const u64 *roots,
                       const u64 *addresses, u64 &bad, u64 *out) {
    const WalkRules &rules = *stage.rules;
    const u64 pointer = layout::SecondStageEntry::addr.mask() & (state.window - 1);
    u64 tables[lane_count];
    for (unsigned i = 0; i < lane_count; ++i) {
        bad |= beyond_input(stage, addresses[i]) | (roots[i] & ~(state.window - 1));
        tables[i] = roots[i] & pointer;
    }
    u64 entries[lane_count];
    unsigned level = stage.levels;
    for (;; --level) {
        for (unsigned i = 0; i < lane_count; ++i)
            entries[i] = load(state, entry_place(tables[i], addresses[i], level));
        if (test_entries(stage, level, entries, bad))
            break;
        for (unsigned i = 0; i < lane_count; ++i)
            tables[i] = entries[i] & pointer;
    }
    const u64 inside = (u64{1} << layout::page_shift[level]) - 1;
    for (unsigned i = 0; i < lane_count; ++i) {
        const u64 page = entries[i] & (layout::SecondStageEntry::addr.mask() & ~inside);
        const u64 address = page | (addresses[i] & inside);
        const u64 first = rules.interrupt_range_by_page ? page : address;
        const u64 last = rules.interrupt_range_by_page ? page + inside : address;
        bad |= u64{first <= interrupt_last && last >= interrupt_first};
        out[i] = address;
    }
}

// Walk a first stage whose tables, and what it leads to, a second stage translates.
inline void walk_nested(const KernelState &state, const Tables &roots, const u64 *addresses,
                        u64 &bad, u64 *out) {
    constexpr u64 pointer = layout::SecondStageEntry::addr.mask();
    u64 tables[lane_count];
    u64 entries[lane_count];
    for (unsigned i = 0; i < lane_count; ++i) {
        bad |= beyond_input(state.stage, addresses[i]);
        tables[i] = roots.table[i];
    }
    unsigned level = state.stage.levels;
    for (;; --level) {
        for (unsigned i = 0; i < lane_count; ++i)
            tables[i] = entry_place(tables[i], addresses[i], level);
        walk_stage(state, state.host_table, roots.host, tables, bad, tables);
        for (unsigned i = 0; i < lane_count; ++i) {
            bad |= tables[i] & ~(state.window - 1);
            entries[i] = load(state, tables[i] & (state.window - 1));
        }
        if (test_entries(state.stage, level, entries, bad))
            break;
        for (unsigned i = 0; i < lane_count; ++i)
            tables[i] = entries[i] & pointer;
    }
    const u64 inside = (u64{1} << layout::page_shift[level]) - 1;
    for (unsigned i = 0; i < lane_count; ++i)
        tables[i] = (entries[i] & pointer & ~inside) | (addresses[i] & inside);
    walk_stage(state, state.host_data, roots.host, tables, bad, out);
}

// The tables of eight requests: known, or looked up in memory.
inline void tables_of(const KernelState &state, const BatchRequests &requests, std::size_t first,
                      u64 &bad, Tables &out) {
    KnownDevices &devices = *state.devices;
    const bool asked = devices.asked();
    std::size_t slots[lane_count];
    u64 keys[lane_count];
    if (asked) {
        u64 other = 0;
        for (unsigned i = 0; i < lane_count; ++i) {
            const u64 sid = requests.sids[first + i];
            const u64 pasid = requests.pasids[first + i];
            slots[i] = (sid ^ pasid << KnownDevices::slot_pasid) % KnownDevices::slots;
            keys[i] = devices.generation() | sid << KnownDevices::key_sid | pasid;
            other |= devices.keys[slots[i]] ^ keys[i];
            out.table[i] = devices.tables[slots[i]];
            out.host[i] = devices.hosts[slots[i]];
        }
        if (other == 0) {
            devices.found();
            return;
        }
        devices.missed();
    }
    const bool legacy = state.lookup->legacy();
    for (unsigned i = 0; i < lane_count; ++i) {
        const u64 sid = requests.sids[first + i];
        const u32 pasid = requests.pasids[first + i];
        out.table[i] = legacy ? legacy_table(state, sid, pasid, bad)
                              : scalable_table(state, sid, pasid, out.host[i], bad);
    }
    if (!asked || bad != 0)
        return;
    for (unsigned i = 0; i < lane_count; ++i) {
        devices.keys[slots[i]] = keys[i];
        devices.tables[slots[i]] = out.table[i];
        devices.hosts[slots[i]] = out.host[i];
    }
}

inline bool eight(const KernelState &state, const BatchRequests &requests, std::size_t first) {
    const u64 *iovas = requests.iovas + first;
    u64 *out = requests.addresses + first;
    u64 bad = 0;
    for (unsigned i = 0; i < lane_count; ++i)
        bad |= u64{iovas[i] >= interrupt_first && iovas[i] <= interrupt_last};
    Tables tables{};
    tables_of(state, requests, first, bad, tables);
    if (bad != 0) [[unlikely]]
        return false;
    if (state.root.rules == nullptr) {
        const unsigned width = std::min(state.host_address_width, 63U);
        for (unsigned i = 0; i < lane_count; ++i) {
            bad |= iovas[i] >> width;
            out[i] = iovas[i];
        }
    } else if (state.root.nested()) {
        walk_nested(state, tables, iovas, bad, out);
    } else {
        walk_stage(state, state.stage, tables.table, iovas, bad, out);
    }
    if (bad != 0) [[unlikely]]
        return false;
    std::memset(requests.statuses + first, 0, lane_count);
    return true;
}

std::size_t cold(KernelState &state, const BatchRequests &requests, std::size_t first,
                 std::size_t end) {
    for (; end - first >= lane_count; first += lane_count) {
        Manner manner;
        if (!manner_of_eight(requests, first, manner) || !walkable(manner)) [[unlikely]]
            break;
        if (state.known && state.manner == manner && eight(state, requests, first)) [[likely]]
            continue;
        if (!learn(state, requests, first, manner) || !eight(state, requests, first))
            break;
    }
    return first;
}

} // namespace

Kernels kernels() {
    return {cold, nullptr};
}

} // namespace dmarewind::plain
