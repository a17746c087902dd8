#include "translator.hpp"

#include "defects.hpp"

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

bool directory_fault_disable(const EntryTrail &trail) {
    return std::any_of(trail.steps.begin(), trail.steps.begin() + trail.count,
                       [](const Step &step) {
                           return step.role == Role::pasid_directory &&
                                  layout::PasidDirectoryEntry::fpd.of(step.value) != 0;
                       });
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
    if (config_.dialect.device_requests_unchecked && (request.attributes & is_translated) != 0) {
        next(out).outcome = identity();
        finish(out);
        return;
    }
    if (lookup_.aborting()) {
        next(out).outcome = aborted;
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
    fresh.has_context = true;
    fresh.context_steps = scratch_.count;
    if (context.reason != 0)
        blocked(context, scratch_, {}, out);
    else
        through_context(request, context, scratch_, true, {}, out);
    const u32 words = lookup_.context_words();
    caches_.contexts(request.sid, [&](const CachedWords &way) {
        // An entry of the other mode (software switched it without invalidating) means nothing.
        if (way.count != words || way.is_of(context))
            return;
        Trail trail(way.trail);
        const Stale stale{CacheName::context, &way};
        if (way.reason != 0)
            return blocked(way.reason, way.fault_disable, trail, stale, out);
        EntryResult entry;
        entry.count = static_cast<u8>(way.count);
        std::copy_n(way.words, way.count, entry.words);
        through_context(request, entry, trail, false, stale, out);
    });
}

void Translator::blocked(u8 reason, bool fault_disable, const Trail &trail, Stale stale,
                         Permitted &out) const {
    Candidate &candidate = next(out);
    candidate.outcome = fault(reason);
    candidate.fault_disable = fault_disable;
    candidate.trail = trail;
    stamp(candidate, stale);
    finish(out);
}

void Translator::blocked(const EntryResult &found, const Trail &trail, Stale stale,
                         Permitted &out) const {
    blocked(found.reason, found.fault_disable, trail, stale, out);
}

// Add what a valid context entry gives; trail holds the steps to it.
void Translator::through_context(const Request &request, const EntryResult &context, Trail &trail,
                                 bool is_fresh, Stale stale, Permitted &out) {
    Fresh &fresh = out.fresh;
    const bool legacy = lookup_.legacy();
    if (is_fresh && legacy)
        fresh.context_domain = lookup_.legacy_root(context.words).domain;
    if (const u8 reason = lookup_.type_fault(context.words, request.attributes); reason != 0) {
        static_assert(layout::ContextEntry::fpd.mask() == layout::ScalableContextEntry::fpd.mask());
        return blocked(reason, layout::ContextEntry::fpd.get(context.words) != 0, trail, stale,
                       out);
    }
    if ((request.attributes & is_translated) != 0) {
        Candidate &candidate = next(out);
        candidate.outcome = identity();
        candidate.trail = trail;
        stamp(candidate, stale);
        return finish(out);
    }
    if (legacy)
        return through_root(request, lookup_.legacy_root(context.words), trail, is_fresh, stale,
                            out);
    EntryResult local;
    EntryResult &entry = is_fresh ? fresh.pasid : local;
    const u32 number = lookup_.effective_pasid(context.words, request.pasid);
    lookup_.pasid(memory_.view(), context.words, request.pasid, entry, trail);
    if (is_fresh) {
        fresh.pasid_number = number;
        fresh.has_pasid = true;
        fresh.pasid_steps = trail.count;
    }
    if (entry.reason != 0)
        blocked(entry, trail, stale, out);
    if (Lookup::refused_by_context(entry.reason))
        return; // whatever is kept of the PASID
    if (entry.reason == 0)
        through_pasid(request, context.words, entry.words, entry.fault_disable, trail, is_fresh,
                      stale, out);
    caches_.pasids(request.sid, number, [&](const CachedWords &way) {
        if (way.is_of(entry))
            return;
        Trail steps(way.trail);
        const Stale kept{CacheName::pasid, &way};
        if (way.reason != 0)
            return blocked(way.reason, way.fault_disable, steps, kept, out);
        const bool disable = layout::ScalableContextEntry::fpd.get(context.words) != 0 ||
                             directory_fault_disable(way.trail);
        through_pasid(request, context.words, way.words, disable, steps, false, kept, out);
    });
}

// Add what a valid PASID entry gives; trail holds the steps to it.
void Translator::through_pasid(const Request &request, const u64 *context, const u64 *entry,
                               bool fault_disable, Trail &trail, bool is_fresh, Stale stale,
                               Permitted &out) {
    const u32 number = lookup_.effective_pasid(context, request.pasid);
    const bool privileged = lookup_.privileged(context, request.pasid, request.attributes);
    PagingRoot root = lookup_.scalable_root(entry, number, fault_disable, privileged);
    if (defect(Defect::pass_through_from_context) && layout::ContextEntry::tt.get(context) == 2)
        root.rules = nullptr;
    if (const u8 reason = Lookup::pasid_refuses(entry, request.kind, privileged); reason != 0)
        return blocked(reason, root.fault_disable, trail, stale, out);
    through_root(request, root, trail, is_fresh, stale, out);
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

    const auto structure = [&](const CachedStructure &way) {
        const NonLeaf &entry = way.nonleaf;
        const Resume resume{static_cast<u8>(entry.step.level - 1), entry.child, entry.rights};
        walk(memory_.view(), root, request.iova, request.kind, &resume, stale_result_);
        Candidate &found =
            kept(root, trail, CacheName::paging_structure, way.filled_by, &entry.step, 1, out);
        found.outcome = stale_result_.outcome;
        found.trail = trail;
        found.trail.add(entry.step);
        found.trail.append(stale_result_.steps, stale_result_.steps_count);
        finish(out);
    };
    stale_structures(root, request.iova, request, result.nonleaf, result.nonleaf_count, structure);
    stale_leaves(root, request.iova, request, result.outcome,
                 [&](const CachedTranslation &leaf, const Outcome &outcome) {
                     Candidate &found = kept(root, trail, CacheName::iotlb, leaf.filled_by,
                                             leaf.steps, leaf.steps_count, out);
                     found.outcome = outcome;
                     found.trail.append(leaf.steps, leaf.steps_count);
                     finish(out);
                 });
    for (unsigned number = 0; number < result.below_count; ++number)
        through_host(request, root, trail, number, result.below[number], out);
}

// Add what a nested walk gives when a kept entry answers one second-stage walk of it.
void Translator::through_host(const Request &request, const PagingRoot &root, const Trail &trail,
                              unsigned number, const Below &below, Permitted &out) {
    const PagingRoot host = root.below(*below.rules);
    Request wanted = request;
    wanted.kind = below.kind;
    wanted.any_right = request.any_right && below.rules == &root.host->data;
    const auto add = [&](CacheName cache, u64 filled_by, const Step *own, unsigned count,
                         const Instead &instead) {
        walk(memory_.view(), root, request.iova, request.kind, nullptr, stale_result_, &instead);
        Candidate &found = kept(root, trail, cache, filled_by, own, count, out);
        found.outcome = stale_result_.outcome;
        found.trail = trail;
        found.trail.append(stale_result_.steps, stale_result_.steps_count);
        finish(out);
    };
    stale_structures(
        host, below.address, wanted, below.nonleaf, below.nonleaf_count,
        [&](const CachedStructure &way) {
            const NonLeaf &entry = way.nonleaf;
            const Resume resume{static_cast<u8>(entry.step.level - 1), entry.child, entry.rights};
            const Instead instead{number, &resume, &entry.step, 1, {}, all_rights};
            add(CacheName::paging_structure, way.filled_by, &entry.step, 1, instead);
        });
    stale_leaves(host, below.address, wanted, below.outcome,
                 [&](const CachedTranslation &leaf, const Outcome &outcome) {
                     const Instead instead{number,           nullptr, leaf.steps,
                                           leaf.steps_count, outcome, leaf.rights};
                     add(CacheName::iotlb, leaf.filled_by, leaf.steps, leaf.steps_count, instead);
                 });
}

// One without the right is not used: what it forbids is walked again.
template <class Function>
void Translator::stale_structures(const PagingRoot &root, u64 address, const Request &request,
                                  const NonLeaf *nonleaf, unsigned count, Function function) const {
    const CacheTag tag(root);
    for (unsigned level = root.levels; level > 1; --level) {
        const unsigned depth = root.levels - level;
        const NonLeaf *went = depth < count ? &nonleaf[depth] : nullptr;
        caches_.structures(tag, level, address, [&](const CachedStructure &way) {
            const NonLeaf &entry = way.nonleaf;
            if ((went == nullptr || entry.child != went->child || entry.rights != went->rights) &&
                allows(root, entry.rights, request))
                function(way);
        });
    }
}

template <class Function>
void Translator::stale_leaves(const PagingRoot &root, u64 address, const Request &request,
                              const Outcome &fresh, Function function) const {
    caches_.translations(CacheTag(root), address, [&](const CachedTranslation &leaf) {
        const bool is_fault = leaf.outcome.type == OutcomeType::fault;
        const Outcome outcome = is_fault ? absent(*root.rules, request.kind) : leaf.outcome;
        if (outcome != fresh && (is_fault || allows(root, leaf.rights, request)))
            function(leaf, outcome);
    });
}

// A slot for what a kept entry gives; own are the steps that tell whether it has changed.
Candidate &Translator::kept(const PagingRoot &root, const Trail &trail, CacheName cache,
                            u64 filled_by, const Step *own, unsigned count, Permitted &out) const {
    Candidate &candidate = next(out);
    candidate.fault_disable = root.fault_disable;
    candidate.cache = cache;
    candidate.domain = root.domain;
    candidate.filled_by = static_cast<Number>(filled_by);
    candidate.changed_by = changed_below(trail, own, count, filled_by);
    return candidate;
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
bool Translator::allows(const PagingRoot &root, Rights rights, const Request &request) {
    const auto allowed = [&](AccessKind kind) {
        if (!root.rules->allows(rights, kind))
            return false;
        return !root.nested() ||
               root.host->data.allows(static_cast<Rights>(rights >> host_shift), kind);
    };
    if (request.any_right)
        return allowed(AccessKind::read) || allowed(AccessKind::write);
    return allowed(request.kind);
}

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

// An entry that blocks as it is kept: its words do not count.
EntryResult Translator::blocked_entry(const EntryResult &found) const {
    EntryResult entry;
    entry.reason = found.reason;
    entry.fault_disable = found.fault_disable;
    entry.count = static_cast<u8>(lookup_.context_words());
    return entry;
}

void Translator::adopt(const Request &request, const Permitted &permitted, u64 event) {
    const Fresh &fresh = permitted.fresh;
    if (!fresh.has_context)
        return;
    const Trail &trail = permitted.fresh_candidate().trail;
    const bool keeps_blocked = config_.cap(layout::Capability::cm) != 0;
    if (fresh.context.reason == 0)
        caches_.add_context(
            request.sid, {fresh.context, trail, fresh.context_steps, event, fresh.context_domain});
    else if (keeps_blocked && fresh.context.kept)
        caches_.add_context(request.sid,
                            {blocked_entry(fresh.context), trail, fresh.context_steps, event, 0});
    if (fresh.has_pasid && fresh.pasid.reason == 0)
        caches_.add_pasid(request.sid, fresh.pasid_number,
                          {fresh.pasid, trail, fresh.pasid_steps, event,
                           static_cast<Number>(layout::PasidEntry::did.get(fresh.pasid.words))});
    else if (fresh.has_pasid && keeps_blocked && fresh.pasid.kept)
        caches_.add_pasid(request.sid, fresh.pasid_number,
                          {blocked_entry(fresh.pasid), trail, fresh.pasid_steps, event, 0});
    if (!fresh.has_result)
        return;
    const WalkResult &result = fresh.result;
    for (const auto &[address, bits] : std::span(result.updates, result.updates_count)) {
        u64 now = 0;
        memory_.view().load(address, now);
        if ((bits & ~now) != 0)
            memory_.store(address, sizeof(u64), now | bits);
    }
    for (const Below &below : std::span(result.below, result.below_count))
        fill(fresh.root.below(*below.rules), below.address, below.outcome, below.rights,
             {below.nonleaf, below.nonleaf_count},
             {result.steps + below.first_step, below.steps_count}, event);
    Step steps[max_leaf_steps];
    const u8 count = result.outcome.type == OutcomeType::fault && fresh.root.nested()
                         ? u8{0}
                         : result.leaf_steps(steps);
    fill(fresh.root, request.iova, result.outcome, result.rights,
         {result.nonleaf, result.nonleaf_count}, {steps, count}, event);
}

// Keep the entries of one walk that ended in a translation, or not at all.
void Translator::fill(const PagingRoot &root, u64 address, const Outcome &outcome, Rights rights,
                      std::span<const NonLeaf> nonleaf, std::span<const Step> steps, u64 event) {
    const CacheTag tag(root);
    Outcome keeps = outcome;
    unsigned shift = layout::page_bits;
    if (outcome.type == OutcomeType::translation) {
        for (const NonLeaf &entry : nonleaf)
            caches_.add_structure(tag, address, entry, event);
        while (outcome.mask >> shift != 0)
            shift += layout::index_bits;
    } else {
        // In caching mode a second-stage walk that ended at an entry not present is kept too.
        const u64 present = layout::SecondStageEntry::r.mask() | layout::SecondStageEntry::w.mask();
        if (config_.cap(layout::Capability::cm) == 0 || root.rules->role != Role::second_stage ||
            steps.empty() || (steps.back().value & present) != 0)
            return;
        keeps = absent(*root.rules, AccessKind::read);
    }
    caches_.add_translation(tag, shift, address, keeps, rights, steps, event);
}

} // namespace dmarewind
