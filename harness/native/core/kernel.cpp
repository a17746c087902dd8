#include "kernel.hpp"

#include <algorithm>

namespace dmarewind {

namespace {

// Put all that a walk of this kind asks of an entry into one test. What every level together must
// allow, every level must; so there is nothing to gather on the way to the leaf.
void learn_walk(KernelState &state, AccessKind kind) {
    const WalkRules &rules = *state.root.rules;
    const u64 address = layout::SecondStageEntry::addr.mask();
    const u64 required = rules.kind(kind).level | rules.kind(kind).leaf;
    const u64 dirty = kind == AccessKind::write ? rules.set_by_leaf_write : 0;
    for (unsigned level = 1; level <= max_levels; ++level)
        for (unsigned leaf = 0; leaf < 2; ++leaf) {
            const u64 set = (required & ~rules.invert) | rules.set_always | (leaf ? dirty : 0);
            u64 clear = (required & rules.invert) | rules.reserved[level][leaf];
            // A table must be where plain loads reach it.
            if (!leaf)
                clear |= address & ~(state.window - 1);
            state.plain[level][leaf] = {set | clear, set};
            state.known = state.known && (set & clear) == 0;
        }
    const unsigned width = layout::page_bits + layout::index_bits * state.root.levels;
    state.input_shift = rules.canonical ? width - 1 : std::min({width, rules.input_width, 63U});
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

bool learn(KernelState &state, const u64 *words, u64 low, u64 high, u8 kind) {
    const Lookup &lookup = *state.lookup;
    state.known = lookup.legacy() ? lookup.legacy_context_valid(words)
                                  : lookup.pasid_fault(words) == 0 &&
                                        Lookup::pasid_refuses(words, AccessKind(kind), false) == 0;
    if (!state.known)
        return false;
    state.shape_low = low;
    state.shape_high = high;
    state.kind = kind;
    state.root =
        lookup.legacy() ? lookup.legacy_root(words) : lookup.scalable_root(words, 0, false, false);
    if (state.root.nested())
        return state.known = false;
    learn_shape(state);
    if (state.root.rules != nullptr)
        learn_walk(state, AccessKind(kind));
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
