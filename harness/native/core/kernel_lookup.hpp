// Eight times from a source id to page tables. Part of kernel_body.hpp.
//
// Nothing on this way goes through memory but what is read of the guest: a store that waits for a
// slow load holds up later loads at the same offset in other pages, of which gathers have many.
#pragma once

#include "kernel.hpp"
#include "lanes.hpp"

namespace dmarewind {
namespace {

// A guest address to an offset that is safe to load from; what lies outside counts as bad.
[[gnu::always_inline]] inline Lanes inside(const KernelState &state, Lanes address, Lanes &bad) {
    bad |= address & ~(state.window - 1);
    return address & (state.window - 1);
}

// A whole entry in one register: a legacy context entry, a scalable context entry, one of a PASID.
using LegacyWords = u64 __attribute__((vector_size(layout::ContextEntry::size)));
using ContextWords = u64 __attribute__((vector_size(layout::ScalableContextEntry::size)));
using PasidWords = u64 __attribute__((vector_size(layout::PasidEntry::size)));

// What of (entry ^ value) & mask is not zero in eight entries, by word.
template <class Words>
[[gnu::always_inline]] inline Words differing(const KernelState &state, Lanes places,
                                              const u64 *value, const u64 *mask) {
    Words values;
    Words masks;
    Words found{};
    std::memcpy(&values, value, sizeof values);
    std::memcpy(&masks, mask, sizeof masks);
#pragma GCC unroll 8
    for (unsigned i = 0; i < lane_count; ++i) {
        Words entry;
        std::memcpy(&entry, state.memory + places[i], sizeof entry);
        found |= (entry ^ values) & masks;
    }
    return found;
}

[[gnu::always_inline]] inline Lanes widened(ContextWords words) {
    return Lanes{words[0], words[1], words[2], words[3]};
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
[[gnu::always_inline]] inline Lanes differs(Lanes entry, u64 set, u64 clear) {
    return (entry ^ set) & (set | clear);
}

// Find the tables of eight requests by their root and context entries.
[[gnu::always_inline]] inline void find_legacy(const KernelState &state,
                                               const BatchRequests &requests, std::size_t first,
                                               Lanes &table, Lanes &bad) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const Lanes sid = widen(requests.sids + first);
    bad |= mask(widen(requests.pasids + first) != u64{no_pasid});
    const u64 outside = ~(state.window - 1);
    const Lanes root = (sid >> 8) * RootEntry::size + lookup.root_table();
    const Lanes low = gather_shared(state.memory, root);
    bad |= gather_shared(state.memory + sizeof(u64), root) & RootEntry::reserved[1];
    bad |= differs(low, RootEntry::p.mask(),
                   RootEntry::reserved[0] | lookup.beyond() | (RootEntry::ctp.mask() & outside));
    const Lanes context =
        (low & (RootEntry::ctp.mask() & ~outside)) | (sid & u64{0xff}) * ContextEntry::size;
    const LegacyWords wrong =
        differing<LegacyWords>(state, context, state.shape_value, state.shape_mask);
    bad |= Lanes{wrong[0], wrong[1]};
    if (state.root.rules != nullptr)
        table = gather(state.memory, context) & ContextEntry::ssptptr.mask();
}

// As find_legacy, by PASID entries; host is the second stage under a nested first one.
[[gnu::always_inline]] inline void find_scalable(const KernelState &state,
                                                 const BatchRequests &requests, std::size_t first,
                                                 Lanes &table, Lanes &host, Lanes &bad) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const u64 beyond = lookup.beyond();
    const Lanes sid = widen(requests.sids + first);
    const u64 outside = ~(state.window - 1);
    // The half of the root entry that the function selects; the other one must be sound as well.
    static_assert(ScalableRootEntry::lp.mask() == ScalableRootEntry::up.mask() &&
                  ScalableRootEntry::lctp.mask() == ScalableRootEntry::uctp.mask() &&
                  ScalableRootEntry::reserved[0] == ScalableRootEntry::reserved[1]);
    const Lanes half = (sid >> 7) * sizeof(u64) + lookup.root_table();
    const Lanes low = gather_shared(state.memory, half);
    bad |=
        gather_shared(state.memory, half ^ sizeof(u64)) & (ScalableRootEntry::reserved[0] | beyond);
    bad |= differs(low, ScalableRootEntry::lp.mask(),
                   ScalableRootEntry::reserved[0] | beyond |
                       (ScalableRootEntry::lctp.mask() & outside));
    const Lanes context = (low & (ScalableRootEntry::lctp.mask() & ~outside)) |
                          (sid & u64{0x7f}) * ScalableContextEntry::size;
    const Lanes context_low = gather(state.memory, context);
    constexpr u64 zero[ScalableContextEntry::words] = {};
    bad |= widened(differing<ContextWords>(state, context, zero, lookup.context_reserved()));
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
    bad |= differing<PasidWords>(state, entry, state.shape_value, state.shape_mask);
    if (state.root.rules == nullptr)
        return;
    const Lanes second = gather(state.memory + PasidEntry::ssptptr.word * sizeof(u64), entry);
    host = table = second & PasidEntry::ssptptr.mask();
    if (state.root.rules->role == Role::first_stage) {
        const Lanes own = gather(state.memory + PasidEntry::fsptptr.word * sizeof(u64), entry);
        table = own & PasidEntry::fsptptr.mask();
    }
}

} // namespace
} // namespace dmarewind
