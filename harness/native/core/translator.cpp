#include "translator.hpp"

namespace dmarewind {
namespace {

bool in_interrupt_range(u64 address) {
    return address >= interrupt_first && address <= interrupt_last;
}

Outcome fault(u8 reason) {
    Outcome outcome;
    outcome.type = OutcomeType::fault;
    outcome.reason = reason;
    return outcome;
}

// The fault a kept not-present entry gives: it depends on who asks.
Outcome absent(const WalkRules &rules, AccessKind kind) {
    const bool write = kind == AccessKind::write;
    return fault(rules.not_present(write ? AccessKind::write : AccessKind::read));
}

bool directory_fault_disable(const Trail &trail) {
    return std::any_of(trail.steps.begin(), trail.steps.begin() + trail.count,
                       [](const Step &step) {
                           return step.role == Role::pasid_directory &&
                                  layout::PasidDirectoryEntry::fpd.of(step.value) != 0;
                       });
}

bool same_words(const CachedWords &way, const EntryResult &entry) {
    return way.count == entry.count && std::equal(way.words, way.words + way.count, entry.words);
}

} // namespace

Translator::Translator(const UnitConfig &config, Memory &memory)
    : config_(config), memory_(memory), rules_(config), lookup_(config, rules_) {}

// -- collecting candidates ------------------------------------------------------------------------

// A slot for one more outcome; finish() keeps it when it is a new one.
Candidate &Translator::next(Permitted &out) const {
    if (out.count_ == out.candidates_.size())
        out.candidates_.resize(out.count_ + 4);
    Candidate &candidate = out.candidates_[out.count_];
    candidate.fault_disable = false;
    candidate.cache = CacheName::none;
    candidate.domain = candidate.filled_by = candidate.changed_by = -1;
    candidate.trail.count = 0;
    return candidate;
}

void Translator::finish(Permitted &out) const {
    const Candidate &added = out.candidates_[out.count_];
    for (std::size_t i = 0; i < out.count_; ++i)
        if (out.candidates_[i].outcome == added.outcome)
            return;
    ++out.count_;
}

void Translator::stamp(Candidate &candidate, Stale stale) const {
    if (stale.way == nullptr)
        return;
    candidate.cache = stale.cache;
    candidate.filled_by = static_cast<Number>(stale.way->filled_by);
    candidate.changed_by = changed_by(stale.way->trail.steps.data(), stale.way->trail.count);
}

// -- the permitted set ----------------------------------------------------------------------------

Permitted &Translator::permitted(const Request &request) {
    if (request.kind != AccessKind::unknown) {
        compute(request, first_);
        return first_;
    }
    // A request of unknown kind is a read if a read may succeed, else a write.
    Request guess = request;
    guess.kind = AccessKind::read;
    guess.any_right = true;
    compute(guess, first_);
    if (first_.fresh_candidate().outcome.type == OutcomeType::fault) {
        guess.kind = AccessKind::write;
        compute(guess, second_);
        if (second_.fresh_candidate().outcome.type == OutcomeType::translation)
            return second_;
    }
    return first_;
}

void Translator::compute(const Request &request, Permitted &out) {
    Fresh &fresh = out.fresh;
    fresh.has_context = fresh.has_pasid = fresh.has_root = fresh.has_result = false;
    fresh.context_domain = -1;
    out.count_ = 0;
    if (!enabled || in_interrupt_range(request.iova)) {
        // Untranslated; a write to the interrupt range is an interrupt message, not DMA.
        next(out).outcome = identity();
        finish(out);
        return;
    }
    if (lookup_.legacy() && request.pasid != no_pasid) {
        next(out).outcome = fault(code(layout::Reason::legacy_mode_pasid));
        finish(out);
        return;
    }
    EntryResult &context = fresh.context;
    scratch_.count = 0;
    lookup_.context(memory_.view(), request.sid, context, scratch_);
    if (context.reason != 0) {
        Candidate &candidate = next(out);
        candidate.outcome = fault(context.reason);
        candidate.fault_disable = context.fault_disable;
        candidate.trail = scratch_;
        finish(out);
    } else {
        fresh.has_context = true;
        fresh.context_steps = scratch_.count;
        through_context(request, context, scratch_, true, {}, out);
    }
    // An entry of the other mode (software switched it without invalidating) means nothing here.
    const u32 words =
        lookup_.legacy() ? layout::ContextEntry::words : layout::ScalableContextEntry::words;
    caches_.contexts(request.sid, [&](const CachedWords &way) {
        if (way.count != words)
            return;
        if (context.reason == 0 && same_words(way, context))
            return;
        EntryResult stale;
        stale.count = static_cast<u8>(way.count);
        std::copy_n(way.words, way.count, stale.words);
        Trail trail = way.trail;
        through_context(request, stale, trail, false, {CacheName::context, &way}, out);
    });
}

// Add what a valid context entry gives; trail holds the steps to it.
void Translator::through_context(const Request &request, const EntryResult &context, Trail &trail,
                                 bool is_fresh, Stale stale, Permitted &out) {
    Fresh &fresh = out.fresh;
    if (lookup_.legacy()) {
        const PagingRoot root = lookup_.legacy_root(context.words);
        if (is_fresh)
            fresh.context_domain = root.domain;
        through_root(request, root, trail, is_fresh, stale, out);
        return;
    }
    EntryResult local;
    EntryResult &entry = is_fresh ? fresh.pasid : local;
    const u32 number = lookup_.effective_pasid(context.words, request.pasid);
    lookup_.pasid(memory_.view(), context.words, request.pasid, request.kind, entry, trail);
    if (is_fresh)
        fresh.pasid_number = number;
    if (entry.reason != 0) {
        Candidate &candidate = next(out);
        candidate.outcome = fault(entry.reason);
        candidate.fault_disable = entry.fault_disable;
        candidate.trail = trail;
        stamp(candidate, stale);
        finish(out);
    } else {
        const PagingRoot root = lookup_.scalable_root(entry.words, number, entry.fault_disable);
        if (is_fresh) {
            fresh.has_pasid = true;
            fresh.pasid_steps = trail.count;
        }
        through_root(request, root, trail, is_fresh, stale, out);
    }
    caches_.pasids(request.sid, number, [&](const CachedWords &way) {
        if (entry.reason == 0 && same_words(way, entry))
            return;
        const bool disable = layout::ScalableContextEntry::fpd.get(context.words) != 0 ||
                             directory_fault_disable(way.trail);
        const PagingRoot root = lookup_.scalable_root(way.words, number, disable);
        Trail steps = way.trail;
        through_root(request, root, steps, false, {CacheName::pasid, &way}, out);
    });
}

// Add what a paging root gives; stale says why it is not the fresh root.
void Translator::through_root(const Request &request, const PagingRoot &root, Trail &trail,
                              bool is_fresh, Stale stale, Permitted &out) {
    if (is_fresh) {
        out.fresh.root = root;
        out.fresh.has_root = true;
    }
    Candidate &candidate = next(out);
    candidate.trail = trail;
    candidate.fault_disable = root.fault_disable;
    candidate.domain = root.domain;
    if (root.rules == nullptr) {
        candidate.outcome = pass_through(request);
        stamp(candidate, stale);
        finish(out);
        return;
    }
    WalkResult local;
    WalkResult &result = is_fresh ? out.fresh.result : local;
    out.fresh.has_result |= is_fresh;
    walk(memory_.view(), root, request.iova, request.kind, nullptr, result);
    candidate.outcome = result.outcome;
    candidate.trail.append(result.steps, result.steps_count);
    stamp(candidate, stale);
    finish(out);

    // Kept non-leaf entries that lead elsewhere than this walk went. One without the right is not
    // used: what it forbids is walked again.
    const CacheTag tag(root);
    for (unsigned level = root.levels; level > 1; --level) {
        const unsigned depth = root.levels - level;
        const NonLeaf *went = depth < result.nonleaf_count ? &result.nonleaf[depth] : nullptr;
        caches_.structures(tag, level, request.iova, [&](const CachedStructure &way) {
            const NonLeaf &kept = way.nonleaf;
            if ((went == nullptr || kept.child != went->child || kept.rights != went->rights) &&
                allows(kept.rights, request))
                through_structure(request, root, trail, way, out);
        });
    }
    caches_.translations(tag, request.iova, [&](const CachedTranslation &leaf) {
        const Outcome outcome = leaf.outcome.type == OutcomeType::fault
                                    ? absent(*root.rules, request.kind)
                                    : leaf.outcome;
        if (outcome == result.outcome ||
            (leaf.outcome.type != OutcomeType::fault && !allows(leaf.rights, request)))
            return;
        Candidate &kept = next(out);
        kept.outcome = outcome;
        kept.trail.append(leaf.steps, leaf.steps_count);
        kept.fault_disable = root.fault_disable;
        kept.cache = CacheName::iotlb;
        kept.domain = root.domain;
        kept.filled_by = static_cast<Number>(leaf.filled_by);
        kept.changed_by = changed_below(trail, leaf.steps, leaf.steps_count, leaf.filled_by);
        finish(out);
    });
}

void Translator::through_structure(const Request &request, const PagingRoot &root,
                                   const Trail &trail, const CachedStructure &structure,
                                   Permitted &out) {
    const NonLeaf &kept = structure.nonleaf;
    const Resume resume{static_cast<u8>(kept.step.level - 1), kept.child, kept.rights};
    walk(memory_.view(), root, request.iova, request.kind, &resume, stale_result_);
    Candidate &candidate = next(out);
    candidate.outcome = stale_result_.outcome;
    candidate.trail = trail;
    candidate.trail.add(kept.step);
    candidate.trail.append(stale_result_.steps, stale_result_.steps_count);
    candidate.fault_disable = root.fault_disable;
    candidate.cache = CacheName::paging_structure;
    candidate.domain = root.domain;
    candidate.filled_by = static_cast<Number>(structure.filled_by);
    candidate.changed_by = changed_below(trail, &kept.step, 1, structure.filled_by);
    finish(out);
}

Outcome Translator::identity() const {
    Outcome outcome;
    outcome.type = OutcomeType::translation;
    const unsigned width = config_.host_address_width;
    outcome.mask = width >= 64 ? ~u64{0} : (u64{1} << width) - 1;
    return outcome;
}

Outcome Translator::pass_through(const Request &request) const {
    const unsigned width = config_.host_address_width;
    if (width < 64 && request.iova >> width != 0)
        return fault(code(lookup_.legacy() ? layout::Reason::address_beyond_width
                                           : layout::Reason::pass_through_beyond_width));
    return identity();
}

// Whether a kept entry answers a request: one without the right is walked again.
bool Translator::allows(Rights rights, const Request &request) {
    if (request.any_right)
        return (rights & (right_read | right_write)) != 0;
    Rights needed = right_read;
    if (request.kind == AccessKind::write)
        needed = right_write;
    else if (request.kind == AccessKind::execute)
        needed = right_read | right_execute;
    return (rights & needed) == needed;
}

// The store that first made one of the entries differ, -1 when none is known.
Number Translator::changed_by(const Step *first, unsigned count) const {
    const Memory::View view = memory_.view();
    for (const Step *step = first; step != first + count; ++step) {
        u64 now;
        if (view.load(step->address, now) &&
            ((now ^ step->value) & ~ignored_when_comparing(step->role)) == 0)
            continue;
        // Writers are kept as event number + 1, so that 0 is nobody.
        return static_cast<Number>(memory_.writer(step->address)) - 1;
    }
    return -1;
}

// The store that made a kept entry differ from what is walked now. Where its own quadwords are as
// they were, the root above it has been changed since.
Number Translator::changed_below(const Trail &above, const Step *first, unsigned count,
                                 u64 filled_by) const {
    const Number changed = changed_by(first, count);
    if (changed >= 0)
        return changed;
    Number newest = -1;
    for (unsigned i = 0; i < above.count; ++i)
        newest = std::max(newest, static_cast<Number>(memory_.writer(above.steps[i].address)) - 1);
    return newest > static_cast<Number>(filled_by) ? newest : -1;
}

void Translator::adopt(const Request &request, const Permitted &permitted, u64 event) {
    const Fresh &fresh = permitted.fresh;
    if (!fresh.has_context)
        return;
    const Trail &trail = permitted.fresh_candidate().trail;
    caches_.add_context(request.sid,
                        {fresh.context, trail, fresh.context_steps, event, fresh.context_domain});
    if (fresh.has_pasid)
        caches_.add_pasid(request.sid, fresh.pasid_number,
                          {fresh.pasid, trail, fresh.pasid_steps, event, fresh.root.domain});
    if (!fresh.has_result)
        return;
    const WalkResult &result = fresh.result;
    for (unsigned i = 0; i < result.updates_count; ++i)
        memory_.store(result.updates[i].address, sizeof(u64), result.updates[i].value);
    const CacheTag tag(fresh.root);
    Outcome outcome = result.outcome;
    unsigned shift = layout::page_bits;
    if (result.outcome.type == OutcomeType::translation) {
        for (unsigned i = 0; i < result.nonleaf_count; ++i)
            caches_.add_structure(tag, request.iova, result.nonleaf[i], event);
        while (result.outcome.mask >> shift != 0)
            shift += layout::index_bits;
    } else {
        // In caching mode a second-stage walk that ended at an entry not present is kept too.
        const u64 present = layout::SecondStageEntry::r.mask() | layout::SecondStageEntry::w.mask();
        if (config_.cap(layout::Capability::cm) == 0 ||
            fresh.root.rules->role != Role::second_stage || result.steps_count == 0 ||
            (result.steps[result.steps_count - 1].value & present) != 0)
            return;
        outcome = absent(*fresh.root.rules, AccessKind::read);
    }
    caches_.add_translation(tag, shift, request.iova, outcome, result, event);
}

} // namespace dmarewind
