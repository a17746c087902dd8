// The kernel for processors without wide registers: eight requests level by level, their checks
// gathered in one word, so that their loads overlap and nothing stands between one and the next.
#include "kernel.hpp"

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

bool same_kinds(const BatchRequests &requests, std::size_t first) {
    u64 kinds;
    std::memcpy(&kinds, requests.kinds + first, sizeof kinds);
    return kinds == requests.kinds[first] * u64{0x0101'0101'0101'0101};
}

bool shape_known(KernelState &state, u64 low, u64 high, u8 kind) {
    return state.known && state.shape_low == low && state.shape_high == high && state.kind == kind;
}

// Find the paging table of one request; what is wrong with the entries on the way is in bad.
template <bool First>
inline u64 legacy_table(KernelState &state, u64 sid, u32 pasid, u8 kind, u64 &bad) {
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
    u64 words[PasidEntry::words] = {load(state, context), load(state, context + sizeof(u64))};
    if constexpr (First) {
        const u64 shape_low = words[0] & ContextEntry::tt.mask();
        const u64 shape_high = words[1] & ContextEntry::aw.mask();
        if (!shape_known(state, shape_low, shape_high, kind) &&
            !learn(state, words, shape_low, shape_high, kind))
            bad |= 1;
    }
    bad |=
        ((words[0] ^ (ContextEntry::p.mask() | state.shape_low)) &
         (ContextEntry::p.mask() | ContextEntry::tt.mask() | ContextEntry::reserved[0] | beyond)) |
        ((words[1] ^ state.shape_high) & (ContextEntry::aw.mask() | ContextEntry::reserved[1]));
    return words[0] & ContextEntry::ssptptr.mask();
}

template <bool First>
inline u64 scalable_table(KernelState &state, u64 sid, u32 pasid, u8 kind, u64 &bad) {
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
        bad |= words[word] & lookup.pasid_reserved()[word];
    if constexpr (First) {
        const u64 shape_low = words[0] & pasid_shape_low;
        const u64 shape_high = words[2] & pasid_shape_high;
        if (!shape_known(state, shape_low, shape_high, kind) &&
            !learn(state, words, shape_low, shape_high, kind))
            bad |= 1;
    }
    bad |= ((words[0] ^ (state.shape_low | PasidEntry::p.mask())) &
            (pasid_shape_low | PasidEntry::p.mask())) |
           ((words[2] ^ state.shape_high) & pasid_shape_high);
    return state.root.stage() == static_cast<u8>(Role::first_stage)
               ? words[2] & PasidEntry::fsptptr.mask()
               : words[0] & PasidEntry::ssptptr.mask();
}

// Walk eight requests to their leaves; false when something is not plain.
inline bool walk(const KernelState &state, u64 *tables, const u64 *iovas, u64 bad, u64 *out) {
    const WalkRules &rules = *state.root.rules;
    const u64 pointer = layout::SecondStageEntry::addr.mask() & (state.window - 1);
    for (unsigned i = 0; i < lane_count; ++i) {
        const auto top = static_cast<std::int64_t>(iovas[i]) >> state.input_shift;
        bad |= static_cast<u64>(rules.canonical ? top ^ (top >> 63) : top) |
               (tables[i] & ~(state.window - 1));
        tables[i] &= pointer;
    }
    for (unsigned level = state.root.levels;; --level) {
        const unsigned shift = layout::page_shift[level];
        const u64 leaf_bit = rules.leaf_bit[level];
        u64 entries[lane_count];
        u64 any = 0;
        u64 every = ~u64{0};
        for (unsigned i = 0; i < lane_count; ++i) {
            const u64 index = iovas[i] >> shift & ((1U << layout::index_bits) - 1);
            entries[i] = load(state, tables[i] | index * layout::entry_size);
            any |= entries[i];
            every &= entries[i];
        }
        if (rules.all_ones_unreadable)
            for (const u64 entry : entries)
                bad |= u64{entry == ~u64{0}};
        const bool leaf = level == 1 || (any & leaf_bit) != 0;
        const KernelState::Plain plain = state.plain[level][leaf];
        for (unsigned i = 0; i < lane_count; ++i) {
            bad |= (entries[i] ^ plain.value) & plain.mask;
            tables[i] = entries[i] & pointer;
        }
        if (!leaf)
            continue;
        // Pages of one size only.
        if (level != 1)
            bad |= ~every & leaf_bit;
        const u64 inside = (u64{1} << shift) - 1;
        for (unsigned i = 0; i < lane_count; ++i) {
            const u64 page = entries[i] & (layout::SecondStageEntry::addr.mask() & ~inside);
            const u64 address = page | (iovas[i] & inside);
            const u64 first = rules.interrupt_range_by_page ? page : address;
            const u64 last = rules.interrupt_range_by_page ? page + inside : address;
            bad |= u64{first <= interrupt_last && last >= interrupt_first};
            out[i] = address;
        }
        return bad == 0;
    }
}

template <bool Legacy>
inline bool eight(KernelState &state, const BatchRequests &requests, std::size_t first, u8 kind) {
    u64 bad = 0;
    u64 tables[lane_count];
    for (unsigned i = 0; i < lane_count; ++i) {
        const std::size_t at = first + i;
        const u64 iova = requests.iovas[at];
        bad |= u64{iova >= interrupt_first && iova <= interrupt_last};
        const auto table = [&]<bool First>() {
            return Legacy ? legacy_table<First>(state, requests.sids[at], requests.pasids[at], kind,
                                                bad)
                          : scalable_table<First>(state, requests.sids[at], requests.pasids[at],
                                                  kind, bad);
        };
        if (i != 0) {
            tables[i] = table.template operator()<false>();
            continue;
        }
        tables[0] = table.template operator()<true>();
        if (bad != 0) [[unlikely]]
            return false;
    }
    std::memset(requests.statuses + first, 0, lane_count);
    if (state.root.rules != nullptr)
        return walk(state, tables, requests.iovas + first, bad, requests.addresses + first);
    const unsigned width = std::min(state.host_address_width, 63U);
    for (unsigned i = 0; i < lane_count; ++i) {
        const u64 iova = requests.iovas[first + i];
        bad |= iova >> width;
        requests.addresses[first + i] = iova;
    }
    return bad == 0;
}

std::size_t cold(KernelState &state, const BatchRequests &requests, std::size_t first,
                 std::size_t end) {
    for (; end - first >= lane_count; first += lane_count) {
        const u8 kind = requests.kinds[first];
        if (!same_kinds(requests, first) || kind == static_cast<u8>(AccessKind::unknown))
            break;
        if (!(state.lookup->legacy() ? eight<true>(state, requests, first, kind)
                                     : eight<false>(state, requests, first, kind)))
            break;
    }
    return first;
}

} // namespace

Kernels kernels() {
    return {cold, nullptr};
}

} // namespace dmarewind::plain
