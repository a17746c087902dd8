// The body of the kernel for wide registers; kernel_avx512.cpp compiles it.
//
// Everything it calls must be inlined or compiled elsewhere (learn): an inline function of another
// header that the compiler kept out of line here could be the copy the whole program gets, and
// processors without these instructions would meet them.
#pragma once

#include "kernel.hpp"
#include "lanes.hpp"

namespace dmarewind {
namespace {

inline u64 same_in_all(u8 byte) {
    return byte * u64{0x0101'0101'0101'0101};
}

// A guest address to an offset that is safe to load from; what lies outside counts as bad.
inline Lanes inside(const KernelState &state, Lanes address, Lanes &bad) {
    bad |= address & ~(state.window - 1);
    return address & (state.window - 1);
}

// A whole entry in one register: a legacy context entry, a scalable one, one of a PASID.
using LegacyWords = u64 __attribute__((vector_size(layout::ContextEntry::size)));
using ContextWords = u64 __attribute__((vector_size(layout::ScalableContextEntry::size)));
using PasidWords = u64 __attribute__((vector_size(layout::PasidEntry::size)));

// What of (entry ^ value) & mask is not zero in eight entries.
template <class Words>
inline u64 differing(const KernelState &state, const u64 (&places)[lane_count], const u64 *value,
                     const u64 *mask) {
    Words values;
    Words masks;
    Words found{};
    std::memcpy(&values, value, sizeof values);
    std::memcpy(&masks, mask, sizeof masks);
    for (const u64 place : places) {
        Words entry;
        std::memcpy(&entry, state.memory + place, sizeof entry);
        found |= (entry ^ values) & masks;
    }
    u64 words[sizeof(Words) / sizeof(u64)];
    std::memcpy(words, &found, sizeof words);
    u64 bits = 0;
    for (const u64 word : words)
        bits |= word;
    return bits;
}

// Make sure that state describes entries of the shape the one at place has: Words of them.
template <class Words>
inline bool learnt(KernelState &state, u64 place, u64 low_mask, unsigned high_word, u64 high_mask,
                   u8 kind) {
    u64 low;
    u64 high;
    std::memcpy(&low, state.memory + place, sizeof low);
    std::memcpy(&high, state.memory + place + high_word * sizeof(u64), sizeof high);
    low &= low_mask;
    high &= high_mask;
    if (state.known && state.shape_low == low && state.shape_high == high && state.kind == kind)
        [[likely]]
        return true;
    u64 words[sizeof(Words) / sizeof(u64)];
    std::memcpy(words, state.memory + place, sizeof words);
    return learn(state, words, low, high, kind);
}

inline bool in_interrupt_range(Lanes addresses) {
    return any(mask(addresses - interrupt_first <= all(interrupt_last - interrupt_first)));
}

// As gather, for what requests that arrive together often share: tables near the root.
[[gnu::always_inline]] inline Lanes gather_shared(const std::byte *base, Lanes offsets) {
    const u64 first = offsets[0];
    if (any(offsets ^ first))
        return gather(base, offsets);
    u64 word;
    std::memcpy(&word, base + first, sizeof word);
    return all(word);
}

// What is wrong with entries that should pass a plain test.
inline Lanes differs(Lanes entry, u64 set, u64 clear) {
    return (entry ^ set) & (set | clear);
}

// Or together eight quadwords that are looked at for reserved bits only.
[[gnu::always_inline]] inline u64 union_of(const std::byte *base, Lanes offsets) {
    u64 places[lane_count];
    store_lanes(places, offsets);
    u64 bits = 0;
    for (const u64 place : places) {
        u64 word;
        std::memcpy(&word, base + place, sizeof word);
        bits |= word;
    }
    return bits;
}

// Walk eight requests that share a paging root but for the table's place.
[[gnu::always_inline]] inline bool walk_lanes(const KernelState &state, Lanes table, Lanes iovas,
                                              Lanes bad, u64 *out) {
    const WalkRules &rules = *state.root.rules;
    const auto top = reinterpret_cast<SignedLanes>(iovas) >> state.input_shift;
    bad |=
        rules.canonical ? reinterpret_cast<Lanes>(top ^ (top >> 63)) : reinterpret_cast<Lanes>(top);
    bad |= table & ~(state.window - 1);
    const u64 pointer = layout::SecondStageEntry::addr.mask() & (state.window - 1);
    table &= pointer;
    constexpr u64 entry_bits = 3;
    static_assert(layout::entry_size == 1U << entry_bits);
    constexpr u64 index = ((u64{1} << layout::index_bits) - 1) << entry_bits;
    for (unsigned level = state.root.levels;; --level) {
        const unsigned shift = layout::page_shift[level];
        const Lanes places = table | (iovas >> (shift - entry_bits) & index);
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
            const KernelState::Plain &plain = state.plain[level][0];
            bad |= (entry ^ plain.value) & plain.mask;
            table = entry & pointer;
            continue;
        }
        // A leaf; all of one size, or none of this.
        const KernelState::Plain &plain = state.plain[level][1];
        bad |= (entry ^ plain.value) & plain.mask;
        if (level != 1)
            bad |= ~entry & leaf_bit;
        const u64 inside_page = (u64{1} << shift) - 1;
        const Lanes page = entry & (layout::SecondStageEntry::addr.mask() & ~inside_page);
        const Lanes address = page | (iovas & inside_page);
        if (rules.interrupt_range_by_page)
            bad |= mask(page <= interrupt_last) & mask(page + inside_page >= interrupt_first);
        if (any(bad) || in_interrupt_range(address)) [[unlikely]]
            return false;
        store_lanes(out, address);
        return true;
    }
}

[[gnu::always_inline]] inline bool finish(const KernelState &state, Lanes table, Lanes iovas,
                                          Lanes bad, const BatchRequests &requests,
                                          std::size_t first) {
    u64 *out = requests.addresses + first;
    if (state.root.rules == nullptr) {
        bad |= iovas >> std::min(state.host_address_width, 63U);
        if (any(bad)) [[unlikely]]
            return false;
        store_lanes(out, iovas);
    } else if (!walk_lanes(state, table, iovas, bad, out)) [[unlikely]] {
        return false;
    }
    std::memset(requests.statuses + first, 0, lane_count);
    return true;
}

// -- cold -----------------------------------------------------------------------------------------

[[gnu::noinline]] bool cold_legacy(KernelState &state, const BatchRequests &requests,
                                   std::size_t first, Lanes iovas, u8 kind) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const u64 beyond = lookup.beyond();
    const Lanes sid = widen(requests.sids + first);
    Lanes bad = mask(widen(requests.pasids + first) != u64{no_pasid});
    const u64 outside = ~(state.window - 1);
    u64 places[lane_count];
    const Lanes root = (sid >> 8) * RootEntry::size + lookup.root_table();
    Lanes low;
    u64 wrong;
    if (const u64 shared = root[0]; !any(root ^ shared)) {
        // One bus.
        u64 words[RootEntry::words];
        std::memcpy(words, state.memory + shared, sizeof words);
        low = all(words[0]);
        wrong = words[1] & RootEntry::reserved[1];
    } else {
        low = gather(state.memory, root);
        wrong = union_of(state.memory + sizeof(u64), root) & RootEntry::reserved[1];
    }
    bad |= differs(low, RootEntry::p.mask(),
                   RootEntry::reserved[0] | beyond | (RootEntry::ctp.mask() & outside));
    const Lanes context =
        (low & (RootEntry::ctp.mask() & ~outside)) | (sid & u64{0xff}) * ContextEntry::size;
    store_lanes(places, context);
    if (!learnt<LegacyWords>(state, places[0], ContextEntry::tt.mask(), 1, ContextEntry::aw.mask(),
                             kind)) [[unlikely]]
        return false;
    wrong |= differing<LegacyWords>(state, places, state.shape_value, state.shape_mask);
    if (wrong != 0) [[unlikely]]
        return false;
    const Lanes table = state.root.rules == nullptr
                            ? Lanes{}
                            : gather(state.memory, context) & ContextEntry::ssptptr.mask();
    return finish(state, table, iovas, bad, requests, first);
}

[[gnu::noinline]] bool cold_scalable(KernelState &state, const BatchRequests &requests,
                                     std::size_t first, Lanes iovas, u8 kind) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const u64 beyond = lookup.beyond();
    const Lanes sid = widen(requests.sids + first);
    const u64 outside = ~(state.window - 1);
    Lanes bad{};
    u64 places[lane_count];
    // The half of the root entry that the function selects; the other one must be sound as well.
    static_assert(ScalableRootEntry::lp.mask() == ScalableRootEntry::up.mask() &&
                  ScalableRootEntry::lctp.mask() == ScalableRootEntry::uctp.mask() &&
                  ScalableRootEntry::reserved[0] == ScalableRootEntry::reserved[1]);
    const Lanes half = (sid >> 7) * sizeof(u64) + lookup.root_table();
    const Lanes low = gather_shared(state.memory, half);
    u64 wrong =
        union_of(state.memory, half ^ sizeof(u64)) & (ScalableRootEntry::reserved[0] | beyond);
    bad |= differs(low, ScalableRootEntry::lp.mask(),
                   ScalableRootEntry::reserved[0] | beyond |
                       (ScalableRootEntry::lctp.mask() & outside));
    const Lanes context = (low & (ScalableRootEntry::lctp.mask() & ~outside)) |
                          (sid & u64{0x7f}) * ScalableContextEntry::size;
    const Lanes context_low = gather(state.memory, context);
    constexpr u64 zero[ScalableContextEntry::words] = {};
    store_lanes(places, context);
    wrong |= differing<ContextWords>(state, places, zero, lookup.context_reserved());
    bad |= differs(context_low, ScalableContextEntry::p.mask(),
                   ScalableContextEntry::pasiddirptr.mask() & outside);

    const Lanes given = widen(requests.pasids + first);
    const Lanes without = mask(given == u64{no_pasid});
    const u64 rid_mask = lookup.uses_rid_pasid() ? ScalableContextEntry::rid_pasid.mask() : 0;
    Lanes number = given;
    if (any(without)) {
        const Lanes own = gather(state.memory + sizeof(u64), context) & rid_mask;
        number = select(without, own, given);
    }
    if (lookup.checks_pasids()) {
        bad |= ~without & ~context_low & ScalableContextEntry::paside.mask();
        const Lanes bits =
            (context_low >> ScalableContextEntry::pdts.low & ScalableContextEntry::pdts.ones()) +
            (detail::directory_minimum_bits + detail::directory_shift);
        bad |= number >> bits;
    }
    // A directory may be of several pages, so its end can be outside although its start is not.
    const Lanes directory =
        inside(state,
               (context_low & ScalableContextEntry::pasiddirptr.mask()) +
                   (number >> detail::directory_shift) * PasidDirectoryEntry::size,
               bad);
    const Lanes pointer = gather_shared(state.memory, directory);
    bad |= differs(pointer, PasidDirectoryEntry::p.mask(),
                   lookup.directory_reserved() | (PasidDirectoryEntry::smptblptr.mask() & outside));
    const Lanes entry = (pointer & (PasidDirectoryEntry::smptblptr.mask() & ~outside)) |
                        (number & ((1U << detail::directory_shift) - 1)) * PasidEntry::size;
    store_lanes(places, entry);
    if (!learnt<PasidWords>(state, places[0], pasid_shape_low, 2, pasid_shape_high, kind))
        [[unlikely]]
        return false;
    wrong |= differing<PasidWords>(state, places, state.shape_value, state.shape_mask);
    if (wrong != 0) [[unlikely]]
        return false;
    Lanes table{};
    if (state.root.rules != nullptr) {
        const bool first_stage = state.root.rules->role == Role::first_stage;
        const auto pointer_of = first_stage ? PasidEntry::fsptptr : PasidEntry::ssptptr;
        table = gather(state.memory + pointer_of.word * sizeof(u64), entry) & pointer_of.mask();
    }
    return finish(state, table, iovas, bad, requests, first);
}

// Inlined into the loops below, this and warm_eight come out half as fast (gcc 12, measured).
[[gnu::noinline]] bool cold_eight(KernelState &state, const BatchRequests &requests,
                                  std::size_t first) {
    const u8 kind = requests.kinds[first];
    u64 kinds;
    std::memcpy(&kinds, requests.kinds + first, sizeof kinds);
    const Lanes iovas = load_lanes(requests.iovas + first);
    if (kinds != same_in_all(kind) || kind == u8(AccessKind::unknown) || in_interrupt_range(iovas))
        [[unlikely]]
        return false;
    return state.lookup->legacy() ? cold_legacy(state, requests, first, iovas, kind)
                                  : cold_scalable(state, requests, first, iovas, kind);
}

// -- warm -----------------------------------------------------------------------------------------

[[gnu::noinline]] bool warm_eight(const FastTlb &tlb, unsigned host_address_width,
                                  const BatchRequests &requests, std::size_t first) {
    using Device = FastTlb::Device;
    const u8 kind = requests.kinds[first];
    u64 kinds;
    std::memcpy(&kinds, requests.kinds + first, sizeof kinds);
    if (kinds != same_in_all(kind)) [[unlikely]]
        return false;
    const Lanes iovas = load_lanes(requests.iovas + first);
    const Lanes pasids = widen(requests.pasids + first);
    const Lanes none = mask(pasids == u64{no_pasid}) & (u64{1} << FastTlb::key_none);
    const Lanes key = (widen(requests.sids + first) << FastTlb::key_sid) | none |
                      (pasids & u64{0xf'ffff}) | tlb.key_generation();
    const Lanes slot =
        ((key * FastTlb::multiplier) >> (64 - FastTlb::device_bits)) * sizeof(Device);
    const auto *devices = reinterpret_cast<const std::byte *>(tlb.devices());
    Lanes bad = gather(devices + offsetof(Device, key), slot) ^ key;
    const Lanes tag = gather(devices + offsetof(Device, tag), slot);
    if (kind == u8(AccessKind::execute))
        bad |= ~gather(devices + offsetof(Device, execute), slot) & 1;
    const Lanes passes = mask(tag == u64{FastTlb::passes});
    if (any(passes)) {
        bad |= ~passes | (iovas >> std::min(host_address_width, 63U));
        if (any(bad)) [[unlikely]]
            return false;
        store_lanes(requests.addresses + first, iovas);
        std::memset(requests.statuses + first, 0, lane_count);
        return true;
    }
    const Lanes number = iovas >> layout::page_bits;
    const Lanes place = (((number ^ tag << 12) * FastTlb::multiplier) >> (64 - FastTlb::set_bits)) *
                        sizeof(FastTlb::Set);
    const auto *ways = reinterpret_cast<const std::byte *>(tlb.sets());
    using Page = FastTlb::Page;
    Lanes other = (gather(ways + offsetof(Page, number), place) ^ number) |
                  (gather(ways + offsetof(Page, tag), place) ^ tag);
    Lanes target = gather(ways + offsetof(Page, target), place);
    if (any(other)) {
        ways += sizeof(Page);
        const Lanes second = mask(other != u64{0});
        const Lanes miss = (gather(ways + offsetof(Page, number), place) ^ number) |
                           (gather(ways + offsetof(Page, tag), place) ^ tag);
        target = select(second, gather(ways + offsetof(Page, target), place), target);
        bad |= second & miss;
    }
    const u64 needed = kind == u8(AccessKind::write)     ? right_write
                       : kind == u8(AccessKind::execute) ? right_read | right_execute
                                                         : right_read;
    bad |= ~target & needed;
    if (any(bad)) [[unlikely]]
        return false;
    constexpr u64 offset = (u64{1} << layout::page_bits) - 1;
    store_lanes(requests.addresses + first, (target & ~offset) | (iovas & offset));
    std::memset(requests.statuses + first, 0, lane_count);
    return true;
}

std::size_t cold(KernelState &state, const BatchRequests &requests, std::size_t first,
                 std::size_t end) {
    while (end - first >= lane_count && cold_eight(state, requests, first))
        first += lane_count;
    return first;
}

std::size_t warm(const FastTlb &tlb, unsigned host_address_width, const BatchRequests &requests,
                 std::size_t first, std::size_t end) {
    while (end - first >= lane_count && warm_eight(tlb, host_address_width, requests, first))
        first += lane_count;
    return first;
}

} // namespace
} // namespace dmarewind
