#include "interrupts.hpp"

#include "defects.hpp"

namespace dmarewind {

using Entry = layout::InterruptRemapEntry;
using PostedEntry = layout::PostedInterruptEntry;
using Descriptor = layout::PostedInterruptDescriptor;
using Address = layout::RemappableAddress;
using layout::Reason;

namespace {

// What bits 63:20 of the address of an interrupt are.
constexpr u64 interrupt_page = 0xfee;
constexpr u64 subhandle = 0xffff;
// Of a message's data, as QEMU sets it.
constexpr u64 level_assert = 1 << 14;
constexpr const char *cache_name = "interrupt-entry";

Outcome refused(Reason reason) {
    Outcome outcome;
    outcome.type = OutcomeType::fault;
    outcome.reason = code(reason);
    return outcome;
}

// A message to a local APIC (Intel SDM 11.11).
Outcome message(u32 target, u64 vector, u64 mode = 0, u64 kind = 0) {
    Outcome outcome;
    outcome.type = OutcomeType::message;
    outcome.address =
        u64{target & ~0xffU} << 32 | interrupt_page << 20 | u64{target & 0xffU} << 12 | mode;
    outcome.mask = level_assert | kind | vector;
    return outcome;
}

bool reserved_data(const InterruptMessage &request) {
    return Address::shv.of(request.address) != 0 && (request.data & ~subhandle) != 0;
}

bool source_matches(const u64 *words, u32 sid) {
    // Bits of the source id that do not count, by SQ.
    constexpr u64 ignored[] = {0, 4, 6, 7};
    if (sid == no_source)
        return true;
    const u64 wanted = Entry::sid.get(words);
    switch (Entry::svt.get(words)) {
    case 0:
        return true;
    case 1:
        return ((wanted ^ sid) & ~ignored[Entry::sq.get(words)]) == 0;
    case 2:
        return wanted >> 8 >= sid >> 8 && sid >> 8 >= (wanted & 0xff);
    default: // reserved: QEMU takes it for a failure
        return false;
    }
}

} // namespace

// -- the cache ------------------------------------------------------------------------------------

void EntryCache::add(u32 index, const KeptEntry &entry) {
    EntryWays &ways = kept_[index];
    for (const KeptEntry &way : ways.ways())
        if (way.says(entry.words))
            return;
    ways.add(entry);
}

void EntryCache::drop(u64 event) {
    drop(event, kept_.begin(), kept_.end());
}

void EntryCache::drop_range(u64 event, u32 index, u64 order) {
    const u64 first =
        defect(Defect::interrupt_range_not_aligned) ? index : u64{index} >> order << order;
    const u64 count = u64{1} << order;
    looked_at_ += std::min<u64>(count, kept_.size());
    const auto begin = kept_.lower_bound(static_cast<u32>(first));
    const u64 last = first + (count - 1);
    drop(event, begin, kept_.upper_bound(static_cast<u32>(std::min<u64>(last, ~u32{0}))));
}

void EntryCache::drop(u64 event, Entries::iterator first, Entries::iterator last) {
    for (auto place = first; place != last; ++place)
        for (KeptEntry way : place->second.ways()) {
            way.dropped_by = event;
            dropped_[place->first].add(way);
        }
    kept_.erase(first, last);
}

// -- the state ------------------------------------------------------------------------------------

void Remapper::reset(u64 event) {
    enabled = compatibility = extended_ = false;
    table_ = entries_ = 0;
    cache.drop(event);
}

void Remapper::latch(u64 value, u64 event) {
    table_ = layout::Irta::irta.address(&value);
    entries_ = u64{2} << layout::Irta::s.of(value);
    extended_ = layout::Irta::eime.of(value) != 0;
    if (config_.cap(layout::Capability::esirtps) != 0)
        cache.drop(event);
}

// -- the way of a request -------------------------------------------------------------------------

RemappingResult Remapper::permitted(const InterruptMessage &request) const {
    RemappingResult result;
    if (auto early = without_entry(request)) {
        result.permitted.push_back(*early);
        return result;
    }
    const u32 index = result.index = index_of(request);
    result.fresh.address = place_of(index);
    const Memory::View view = memory_.view();
    result.has_fresh = true;
    for (u32 i = 0; i < interrupt_entry_words; ++i)
        result.has_fresh &=
            view.load(result.fresh.address + sizeof(u64) * i, result.fresh.words[i]);
    if (result.has_fresh) {
        result.permitted.push_back(remapping(index, result.fresh, request));
    } else {
        Remapping unreadable;
        unreadable.outcome = refused(Reason::remap_access);
        unreadable.index = index;
        result.permitted.push_back(unreadable);
    }
    for (const KeptEntry &way : cache.at(index)) {
        if (result.has_fresh && way.says(result.fresh.words))
            continue;
        Remapping stale = remapping(index, way, request);
        if (std::any_of(result.permitted.begin(), result.permitted.end(),
                        [&](const Remapping &other) { return other.outcome == stale.outcome; }))
            continue;
        stale.cache = cache_name;
        stale.filled_by = static_cast<Number>(way.filled_by);
        stale.changed_by = changed_by(way, index);
        result.permitted.push_back(stale);
    }
    const auto dropped = cache.dropped_at(index);
    for (auto way = dropped.rbegin(); way != dropped.rend(); ++way)
        result.dropped.emplace_back(*way, outcome_of(way->words, request));
    return result;
}

// The outcome of a request that does not get as far as the table.
std::optional<Remapping> Remapper::without_entry(const InterruptMessage &request) const {
    Remapping unchanged;
    unchanged.outcome.type = OutcomeType::message;
    unchanged.outcome.address = request.address;
    unchanged.outcome.mask = request.data;
    if (!enabled)
        return unchanged;
    Remapping blocked;
    if (request.address >> 20 != interrupt_page) {
        blocked.outcome = refused(Reason::remap_request_reserved);
        return blocked;
    }
    if (Address::format.of(request.address) == 0) {
        if ((compatibility && !extended_) || config_.dialect.compatibility_format_passes)
            return unchanged;
        blocked.outcome = refused(Reason::remap_compatibility_blocked);
        return blocked;
    }
    blocked.index = index_of(request);
    if (reserved_data(request) && !config_.dialect.request_data_checked_last) {
        blocked.outcome = refused(Reason::remap_request_reserved);
        return blocked;
    }
    const bool beyond =
        config_.dialect.root_pointer_checked && (table_ & config_.beyond_host_pointer()) != 0;
    if (!beyond && (blocked.index < entries_ || defect(Defect::interrupt_index_unbounded)))
        return std::nullopt;
    blocked.outcome = refused(Reason::remap_index);
    return blocked;
}

u32 Remapper::index_of(const InterruptMessage &request) const {
    u64 index = Address::handle_high.of(request.address) << Address::handle_low.width |
                Address::handle_low.of(request.address);
    if (Address::shv.of(request.address) != 0)
        index += request.data & subhandle;
    if (config_.dialect.interrupt_index_wraps)
        index &= subhandle;
    return static_cast<u32>(index);
}

u64 Remapper::place_of(u32 index) const {
    return (table_ & ~config_.beyond_host_pointer()) + u64{Entry::size} * index;
}

// What an entry gives a request, with the quadwords it was read from.
Remapping Remapper::remapping(u32 index, const KeptEntry &entry,
                              const InterruptMessage &request) const {
    Remapping found;
    found.outcome = outcome_of(entry.words, request);
    found.fault_disable = Entry::fpd.get(entry.words) != 0;
    for (u32 i = 0; i < interrupt_entry_words; ++i)
        found.steps[found.step_count++] = {entry.address + sizeof(u64) * i, entry.words[i],
                                           Role::interrupt_table, 0};
    // Behind the table only what was checked last is a reserved bit of the request.
    found.index = found.outcome == refused(Reason::remap_request_reserved) ? 0 : index;
    return found;
}

// -- the entry ------------------------------------------------------------------------------------

Outcome Remapper::outcome_of(const u64 *words, const InterruptMessage &request) const {
    if (const u8 reason = check(words); reason != 0)
        return refused(static_cast<Reason>(reason));
    if (!source_matches(words, request.sid))
        return refused(Reason::remap_source);
    if (reserved_data(request))
        return refused(Reason::remap_request_reserved);
    if (posts(words))
        return posting(words);
    const u64 mode = Entry::dm.get(words) << 2 | Entry::rh.get(words) << 3 | (request.address & 3);
    const u64 kind = Entry::dlm.get(words) << 8 | Entry::tm.get(words) << 15;
    return message(destination(Entry::dst.get(words)), Entry::vector.get(words), mode, kind);
}

// Why an entry cannot be used by anyone; 0 when it can.
u8 Remapper::check(const u64 *words) const {
    if (Entry::p.get(words) == 0)
        return code(Reason::remap_not_present);
    u64 reserved[interrupt_entry_words];
    if (posts(words)) {
        std::copy_n(PostedEntry::reserved, interrupt_entry_words, reserved);
    } else {
        std::copy_n(Entry::reserved, interrupt_entry_words, reserved);
        if (!config_.dialect.posted_taken_for_remapped)
            reserved[0] |= Entry::im.mask();
        if (config_.dialect.interrupt_destination_checked && !extended_)
            reserved[0] |= Entry::dst.mask() & ~(u64{0xff00} << Entry::dst.low);
    }
    for (u32 i = 0; i < interrupt_entry_words; ++i)
        if ((words[i] & reserved[i]) != 0)
            return code(Reason::remap_reserved);
    return 0;
}

bool Remapper::posts(const u64 *words) const {
    return Entry::im.get(words) != 0 && config_.cap(layout::Capability::pi) != 0;
}

u32 Remapper::destination(u64 field) const {
    return static_cast<u32>(extended_ ? field : field >> 8 & 0xff);
}

Outcome Remapper::posting(const u64 *words) const {
    const u64 place =
        PostedEntry::pda_high.get(words) << 32 | PostedEntry::pda_low.address(words) >> 32;
    const Memory::View view = memory_.view();
    u64 found[Descriptor::words];
    for (u32 i = 0; i < Descriptor::words; ++i)
        if (!view.load(place + sizeof(u64) * i, found[i]))
            return refused(Reason::posted_access);
    for (u32 i = 0; i < Descriptor::words; ++i)
        if ((found[i] & Descriptor::reserved[i]) != 0)
            return refused(Reason::posted_reserved);
    Outcome outcome;
    outcome.type = OutcomeType::posted;
    outcome.address = place;
    outcome.mask = PostedEntry::vector.get(words);
    outcome.reason = PostedEntry::urg.get(words);
    return outcome;
}

// The store that made a kept entry differ from the table, -1 when none is known.
Number Remapper::changed_by(const KeptEntry &way, u32 index) const {
    const u64 address = place_of(index);
    const Memory::View view = memory_.view();
    for (u32 i = 0; i < interrupt_entry_words; ++i) {
        u64 now;
        if (!view.load(address + sizeof(u64) * i, now) || now != way.words[i])
            return static_cast<Number>(memory_.writer(address + sizeof(u64) * i)) - 1;
    }
    return -1;
}

// -- effects --------------------------------------------------------------------------------------

void Remapper::adopt(const RemappingResult &result, u64 event) {
    if (!result.has_fresh)
        return;
    const u8 reason = check(result.fresh.words);
    // In caching mode what is not present may be cached, too.
    const bool absent =
        reason == code(Reason::remap_not_present) && config_.cap(layout::Capability::cm) != 0;
    if (reason != 0 && !absent)
        return;
    KeptEntry entry = result.fresh;
    entry.filled_by = event;
    cache.add(result.index, entry);
}

std::optional<Observation> Remapper::post(const Outcome &posting) {
    const u64 at = posting.address + posting.mask / 64 * sizeof(u64);
    const u64 control_at = posting.address + sizeof(u64) * Descriptor::on.word;
    u64 pending;
    u64 words[Descriptor::words] = {};
    u64 &control = words[Descriptor::on.word];
    const Memory::View view = memory_.view();
    if (!view.load(at, pending) || !view.load(control_at, control))
        return std::nullopt;
    memory_.store(at, sizeof(u64), pending | u64{1} << posting.mask % 64);
    const bool silent = Descriptor::sn.get(words) != 0 && posting.reason == 0;
    if (silent || Descriptor::on.get(words) != 0)
        return std::nullopt;
    Descriptor::on.put(words, 1);
    memory_.store(control_at, sizeof(u64), control);
    const Outcome sent =
        message(destination(Descriptor::ndst.get(words)), Descriptor::nv.get(words));
    return Observation::interrupt(sent.address, sent.mask);
}

// -- the oracle -----------------------------------------------------------------------------------

namespace {

// A refusal without a recorded reason may be any.
bool delivered_alike(const Outcome &recorded, const Outcome &permitted) {
    if (recorded.type == OutcomeType::fault && recorded.reason == 0)
        return permitted.type == OutcomeType::fault;
    return recorded == permitted;
}

} // namespace

std::optional<Finding> judge_interrupt(u64 event, const Outcome &recorded,
                                       const RemappingResult &result) {
    const Remapping &fresh = result.permitted.front();
    const auto stale = std::span(result.permitted).subspan(1);
    const auto finding = [&](FindingKind kind) {
        Finding found;
        found.event = static_cast<Number>(event);
        found.kind = kind;
        found.subject = "interrupt-request";
        found.observed = Compared(recorded);
        for (const Remapping &one : result.permitted)
            found.permitted.emplace_back(one.outcome);
        found.steps.assign(fresh.steps, fresh.steps + fresh.step_count);
        return found;
    };
    const auto through = [&](FindingKind kind, const Remapping &other) {
        Finding found = finding(kind);
        found.cache = other.cache;
        found.filled_by = other.filled_by;
        found.changed_by = other.changed_by;
        return found;
    };
    if (delivered_alike(recorded, fresh.outcome)) {
        for (const Remapping &other : stale)
            if (!delivered_alike(recorded, other.outcome))
                return through(FindingKind::unflushed, other);
        return std::nullopt;
    }
    for (const Remapping &other : stale)
        if (delivered_alike(recorded, other.outcome))
            return through(FindingKind::stale_use, other);
    for (const auto &[entry, outcome] : result.dropped)
        if (delivered_alike(recorded, outcome)) {
            Finding found = finding(FindingKind::stale_after_invalidation);
            found.cache = cache_name;
            found.filled_by = static_cast<Number>(entry.filled_by);
            found.covered_by = static_cast<Number>(entry.dropped_by);
            return found;
        }
    return finding(FindingKind::divergence);
}

} // namespace dmarewind
