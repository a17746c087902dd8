#include "kernel.hpp"

#include <algorithm>

namespace dmarewind {

namespace {

// Put all that a walk of this kind asks of an entry into one test. What every level together must
// allow, every level must; so there is nothing to gather on the way to the leaf. False: no entry
// passes, or what levels must not allow together matters.
bool learn_stage(KernelState::Stage &stage, const WalkRules &rules, unsigned levels,
                 AccessKind kind, u64 unreachable) {
    const u64 required = rules.kind(kind).level | rules.kind(kind).leaf;
    const u64 dirty = kind == AccessKind::write ? rules.set_by_leaf_write : 0;
    bool possible = rules.kind(kind).prevented == 0;
    for (unsigned level = 1; level <= max_levels; ++level)
        for (unsigned leaf = 0; leaf < 2; ++leaf) {
            const u64 set = (required & ~rules.invert) | rules.set_always | (leaf ? dirty : 0);
            u64 clear = (required & rules.invert) | rules.reserved[level][leaf];
            if (!leaf)
                clear |= unreachable;
            stage.plain[level][leaf] = {set | clear, set};
            possible = possible && (set & clear) == 0;
        }
    const unsigned width = layout::page_bits + layout::index_bits * levels;
    stage.rules = &rules;
    stage.levels = levels;
    stage.input_shift = rules.canonical ? width - 1 : std::min({width, rules.input_width, 63U});
    return possible;
}

bool learn_stages(KernelState &state, AccessKind kind) {
    const PagingRoot &root = state.root;
    // A table must be where plain loads reach it.
    const u64 unreachable = layout::SecondStageEntry::addr.mask() & ~(state.window - 1);
    if (!root.nested())
        return learn_stage(state.stage, *root.rules, root.levels, kind, unreachable);
    // Those of a nested first stage may be anywhere in the guest.
    return learn_stage(state.stage, *root.rules, root.levels, kind, 0) &&
           learn_stage(state.host_table, root.host->table, root.host_levels, AccessKind::read,
                       unreachable) &&
           learn_stage(state.host_data, root.host->data, root.host_levels, kind, unreachable);
}

// Put all that is asked of a context or PASID entry into one test of each word.
void learn_shape(KernelState &state) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    if (lookup.legacy()) {
        state.shape_value[0] = ContextEntry::p.mask() | state.shape_low;
        state.shape_value[1] = state.shape_high;
        state.shape_mask[0] = ContextEntry::p.mask() | ContextEntry::tt.mask() |
                              ContextEntry::reserved[0] | lookup.beyond();
        state.shape_mask[1] = ContextEntry::aw.mask() | ContextEntry::reserved[1];
        return;
    }
    std::copy_n(lookup.pasid_reserved(), PasidEntry::words, state.shape_mask);
    state.shape_value[0] = PasidEntry::p.mask() | state.shape_low;
    state.shape_mask[0] |= PasidEntry::p.mask() | pasid_shape_low;
    state.shape_value[2] = state.shape_high;
    state.shape_mask[2] |= pasid_shape_high;
}

} // namespace

bool learn(KernelState &state, const BatchRequests &requests, std::size_t at, Manner manner) {
    using namespace layout;
    const Lookup &lookup = *state.lookup;
    const auto kind = AccessKind(manner.kind);
    const bool privileged = manner.attributes != 0;
    Unobserved nobody;
    EntryResult entry;
    lookup.context(*state.view, requests.sids[at], entry, nobody);
    if (entry.reason != 0)
        return false;
    u64 low = ContextEntry::tt.mask() & entry.words[0];
    u64 high = ContextEntry::aw.mask() & entry.words[1];
    if (!lookup.legacy()) {
        EntryResult of_pasid;
        lookup.pasid(*state.view, entry.words, requests.pasids[at], of_pasid, nobody);
        entry = of_pasid;
        if (entry.reason != 0 || Lookup::pasid_refuses(entry.words, kind, privileged) != 0)
            return false;
        low = pasid_shape_low & entry.words[0];
        high = pasid_shape_high & entry.words[2];
    }
    if (state.known && state.shape_low == low && state.shape_high == high && state.manner == manner)
        return false;
    state.devices->forget();
    state.shape_low = low;
    state.shape_high = high;
    state.manner = manner;
    state.root = lookup.legacy() ? lookup.legacy_root(entry.words)
                                 : lookup.scalable_root(entry.words, 0, false, privileged);
    learn_shape(state);
    state.known = state.root.rules == nullptr || learn_stages(state, kind);
    return state.known;
}

Kernels kernels(bool wide) {
#if defined(DMAREWIND_AVX512)
    if (wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return avx512::kernels();
#else
    static_cast<void>(wide);
#endif
    return plain::kernels();
}

} // namespace dmarewind
