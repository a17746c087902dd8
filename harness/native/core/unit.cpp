#include "unit.hpp"

#include "defects.hpp"

#include <cassert>

namespace dmarewind {

namespace reg = layout::reg;

namespace {

// Granularity code of a page-selective IOTLB command, and its answer.
constexpr u64 page_selective = 3;
// What a fault record names where a request came without a source id (QEMU's too).
constexpr u32 recorded_no_source = 0xffff;

u64 request_key(const Request &request) {
    return u64{request.sid} << 32 | request.pasid;
}

} // namespace

Unit::Unit(UnitConfig config)
    : config_(std::move(config)), memory_(config_.page_budget), registers_(config_),
      translator_(config_, memory_), remapper_(config_, memory_),
      faults_(config_, registers_, emitted), device_tlbs_(config_, translator_, emitted),
      page_requests_(config_, memory_, registers_, translator_, faults_, emitted),
      queue_(config_, memory_, registers_, translator_.caches(), remapper_.cache, device_tlbs_,
             page_requests_, faults_, emitted, event),
      virtual_commands_(config_, registers_), batch_(config_, memory_, translator_.lookup()) {
    memory_.set_ram(config_.ram);
}

void Unit::reset() {
    registers_.reset();
    queue_.reset();
    faults_.reset();
    translator_.caches().drop_all(event);
    if (!defect(Defect::reset_keeps_interrupt_remapping))
        remapper_.reset(event);
    device_tlbs_.reset();
    virtual_commands_.reset();
    translator_.enabled = false;
    if (!defect(Defect::reset_keeps_root))
        translator_.lookup().set_root(0, legacy_mode);
    tags_.clear();
}

bool Unit::plain() const {
    return translator_.caches().empty() && remapper_.cache.empty() && device_tlbs_.empty() &&
           virtual_commands_.empty() && tags_.empty() && reused_.empty() && emitted.empty() &&
           findings.empty();
}

void Unit::mark() {
    registers_.mark();
    queue_.mark();
    faults_.mark();
    translator_.mark();
    remapper_.mark();
}

void Unit::rewind() {
    virtual_commands_.reset();
    registers_.rewind();
    queue_.rewind();
    faults_.rewind();
    translator_.rewind();
    remapper_.rewind();
    device_tlbs_.restart();
    tags_.clear();
    reused_.clear();
    emitted.clear();
    findings.clear();
}

// -- memory ---------------------------------------------------------------------------------------

void Unit::store(u64 address, unsigned size, u64 value) {
    if (value != 0)
        check_reuse(address & ~(page_size - 1), address);
    memory_.store(address, size, value, event + 1);
}

void Unit::snapshot(u64 address, std::span<const std::byte> data) {
    std::byte page[page_size] = {};
    std::copy(data.begin(), data.end(), page);
    std::byte now[page_size];
    memory_.read(address, now);
    const bool any =
        std::any_of(data.begin(), data.end(), [](std::byte b) { return b != std::byte{0}; });
    if (any && std::memcmp(page, now, page_size) != 0)
        check_reuse(address, address);
    memory_.write(address, page, event + 1);
}

// Report a page that no table links any more but a structure cache may still lead to.
void Unit::check_reuse(u64 page, u64 address) {
    translator_.caches().tables_at(page, tables_at_);
    if (tables_at_.empty()) {
        if (!reused_.empty())
            reused_.erase(page);
        return;
    }
    if (reused_.contains(page))
        return;
    for (const auto &[tag, way] : tables_at_)
        if (linked(*way))
            return;
    reused_.insert(page);
    const auto &[tag, way] = tables_at_.front();
    const Step &step = way->nonleaf.step;
    Finding found;
    found.event = static_cast<Number>(event);
    found.kind = FindingKind::page_reuse;
    found.subject = "table-page";
    found.observed = Compared(address);
    found.steps.push_back(step);
    found.cache = text(CacheName::paging_structure);
    found.domain = tag.domain();
    found.filled_by = static_cast<Number>(way->filled_by);
    found.changed_by = static_cast<Number>(memory_.writer(step.address)) - 1;
    findings.push_back(std::move(found));
}

bool Unit::linked(const CachedStructure &way) const {
    const Step &step = way.nonleaf.step;
    u64 now;
    if (!memory_.view().load(step.address, now))
        return false;
    const u64 present = step.role == Role::first_stage ? layout::FirstStageEntry::p.mask()
                                                       : layout::SecondStageEntry::r.mask() |
                                                             layout::SecondStageEntry::w.mask();
    return (now & present) != 0 &&
           ((now ^ step.value) & layout::SecondStageEntry::addr.mask()) == 0;
}

// -- requests -------------------------------------------------------------------------------------

// The last tags the requests of a source were walked under, newest first.
Unit::SourceTags Unit::tags_of(const Request &request, const PagingRoot *root) {
    const u64 key = request_key(request);
    if (root == nullptr || root->rules == nullptr) {
        const SourceTags *known = tags_.find(key);
        return known != nullptr ? *known : SourceTags{};
    }
    if (tags_.size() >= sources_limit && tags_.find(key) == nullptr)
        tags_.clear();
    SourceTags &tags = tags_[key];
    const u64 tag = CacheTag(*root).packed();
    const auto place = std::find(tags.begin(), tags.end() - 1, tag);
    std::copy_backward(tags.begin(), place, place + 1);
    tags[0] = tag;
    return tags;
}

// What covered iova once and may not be used any more: what invalidations dropped, and what is
// kept under a tag that the source has left. Its context or PASID entry is not cached any more, or
// it would be a candidate.
void Unit::collect_forgotten(const SourceTags &tags, const PagingRoot *root, u64 iova) {
    dropped_.clear();
    for (const u64 packed : tags) {
        if (packed == 0)
            break;
        const CacheTag tag = CacheTag::unpack(packed);
        translator_.caches().dropped_at(tag, iova,
                                        [&](const Dropped &entry) { dropped_.push_back(entry); });
        if (root != nullptr && tag == CacheTag(*root))
            continue;
        translator_.caches().translations(tag, iova, [&](const CachedTranslation &way) {
            dropped_.push_back({way.outcome, way.filled_by, ~u64{0}}); // covered by none
        });
    }
}

const Permitted &Unit::access(const Request &request, const Outcome &recorded) {
    const Permitted &permitted = translator_.permitted(request);
    const PagingRoot *root = permitted.fresh.has_root ? &permitted.fresh.root : nullptr;
    const SourceTags tags = tags_of(request, root);
    Outcome taken = permitted.fresh_candidate().outcome;
    bool adopts = true;
    bool agreed = false; // with what was recorded
    if (recorded.type != OutcomeType::none) {
        agreed = true;
        collect_forgotten(tags, root, request.iova);
        if (auto found = judge(event, request.iova, recorded, permitted.candidates(), dropped_)) {
            agreed = false;
            adopts = found->kind == FindingKind::unflushed;
            findings.push_back(std::move(*found));
        }
        taken = recorded;
    }
    if (adopts)
        translator_.adopt(request, permitted, event);
    if (taken.type == OutcomeType::fault && taken != aborted) {
        // FPD is the one of the entries that gave this fault; one that none gives was recorded.
        bool disable = false;
        for (const Candidate &candidate : permitted.candidates())
            if (candidate.outcome == taken) {
                disable = candidate.fault_disable;
                break;
            }
        faults_.record(request, taken.reason, disable);
    }
    if (taken.type != OutcomeType::translation || !translator_.enabled)
        return permitted;
    if ((request.attributes & is_translation_request) != 0) {
        for (const Candidate &candidate : permitted.candidates())
            if (compatible(taken, candidate.outcome, request.iova)) {
                device_tlbs_.keep(request, taken, candidate, event);
                break;
            }
    } else if ((request.attributes & is_translated) != 0 && agreed) {
        kept_ = permitted;
        if (auto found = device_tlbs_.judge(request, taken, event))
            findings.push_back(std::move(*found));
        return kept_;
    }
    return permitted;
}

RemappingResult Unit::interrupt(const InterruptMessage &request, const Outcome &recorded) {
    RemappingResult result = remapper_.permitted(request);
    Outcome taken = result.permitted.front().outcome;
    bool adopts = true;
    if (recorded.type != OutcomeType::none) {
        if (auto found = judge_interrupt(event, recorded, result)) {
            adopts = found->kind == FindingKind::unflushed;
            findings.push_back(std::move(*found));
        }
        taken = recorded;
    }
    if (adopts)
        remapper_.adopt(result, event);
    if (taken.type == OutcomeType::posted)
        if (const auto notification = remapper_.post(taken))
            emitted.push_back(*notification);
    // What has no recorded reason left no fault record.
    const bool silent = taken.reason == 0 || defect(Defect::interrupt_faults_unreported);
    if (taken.type != OutcomeType::fault || silent)
        return result;
    const auto &permitted = result.permitted;
    const auto gave = std::find_if(permitted.begin(), permitted.end(),
                                   [&](const Remapping &one) { return one.outcome == taken; });
    const u64 index = gave == permitted.end() ? permitted.front().index : gave->index;
    const u32 source = request.sid == no_source ? recorded_no_source : request.sid;
    faults_.record({source, no_pasid, index << 48, AccessKind::write}, taken.reason,
                   gave != permitted.end() && gave->fault_disable);
    return result;
}

void Unit::translate(const BatchRequests &requests, bool cold) {
    if (cold)
        batch_.cold(requests, translator_.enabled);
    else
        batch_.warm(requests, translator_.enabled, translator_.caches().fast);
}

void Unit::adopt(const Observation &seen) {
    switch (seen.kind) {
    case layout::Tag::descriptor:
        queue_.adopt(seen);
        break;
    case layout::Tag::status_write:
        memory_.store(seen.address, sizeof(u32), seen.value, event + 1);
        break;
    case layout::Tag::fault_record:
        faults_.adopt(seen);
        break;
    case layout::Tag::page_request_record:
        page_requests_.adopt(seen, event);
        break;
    case layout::Tag::device_tlb_message:
        device_tlbs_.drop(seen, event);
        break;
    default:
        break;
    }
}

// -- registers ------------------------------------------------------------------------------------

void Unit::write_register(u32 offset, u32 size, u64 value) {
    assert(!defect(Defect::wide_event_write_aborts) || size != 8 ||
           (offset != reg::fectl.offset && offset != reg::iectl.offset &&
            offset != reg::ieaddr.offset));
    assert(!defect(Defect::wide_fault_address_write_aborts) || size != 8 ||
           offset != reg::feaddr.offset);
    const bool was_stopped = queue_.stopped();
    if (!registers_.write(offset, size, value))
        return;
    if (touches(offset, size, reg::gcmd.offset))
        command();
    // The bits that start CCMD and IOTLB are in their upper halves.
    if (touches(offset, size, reg::ccmd.offset + 4))
        context_command();
    if (touches(offset, size, registers_.iotlb() + 4))
        iotlb_command();
    const bool resumed = was_stopped && !queue_.stopped();
    if (touches(offset, size, reg::iqt.offset))
        queue_.run();
    faults_.registers_written(offset, size);
    if (resumed && config_.dialect.resumes_after_queue_error)
        queue_.run();
    if (touches(offset, size, reg::ics.offset) && registers_.field(reg::ics, layout::Ics::iwc) == 0)
        queue_.completion.withdraw();
    if (touches(offset, size, reg::iectl.offset))
        queue_.completion.send_if_unmasked();
    page_requests_.registers_written(offset, size);
    virtual_commands_.registers_written(offset, size);
}

void Unit::command() {
    using Command = layout::GlobalCommand;
    const u64 value = registers_.load(reg::gcmd);
    const u64 before = registers_.load(reg::gsts);
    const u64 changed = before ^ value;
    remapper_.enabled =
        Command::ire.of(value) != 0 && config_.ecap(layout::ExtendedCapability::ir) != 0;
    remapper_.compatibility = Command::cfi.of(value) != 0;
    if ((changed & Command::te.mask()) != 0) {
        translator_.enabled = Command::te.of(value) != 0;
        if (!translator_.enabled)
            faults_.reset();
    }
    u64 status = (before & ~layout::level_commands) | (value & layout::level_commands);
    // The status of a one-shot command stays set once it has been done.
    status |= value & (Command::srtp.mask() | Command::sirtp.mask() | Command::sfl.mask());
    registers_.poke(reg::gsts, status);
    if (Command::srtp.of(value) != 0) {
        const u64 root = registers_.load(reg::rtaddr);
        translator_.lookup().set_root(layout::RootTableAddress::rta.address(&root),
                                      layout::RootTableAddress::ttm.of(root));
        // What the finite cache knows of devices may be of the other mode.
        translator_.caches().fast.drop_devices();
        if (config_.cap(layout::Capability::esrtps) != 0)
            translator_.caches().drop_all(event);
    }
    if (Command::sirtp.of(value) != 0)
        remapper_.latch(registers_.load(reg::irta), event);
    if ((changed & Command::qie.mask()) != 0)
        queue_.enable(Command::qie.of(value) != 0);
}

void Unit::context_command() {
    using Command = layout::ContextCommand;
    u64 value = registers_.load(reg::ccmd);
    if (Command::icc.of(value) == 0 || queue_.enabled())
        return;
    Caches &caches = translator_.caches();
    const u64 granularity = Command::cirg.of(value);
    if (granularity == 1)
        caches.drop_contexts();
    else if (granularity == 2)
        caches.drop_contexts_of_domain(static_cast<u32>(Command::did.of(value)));
    else if (granularity == 3)
        caches.drop_contexts_of_device(
            static_cast<u32>(Command::sid.of(value)), Command::fm.of(value),
            config_.dialect.device_selective_ignores_domain
                ? std::nullopt
                : std::optional(static_cast<u32>(Command::did.of(value))));
    Command::icc.put(&value, 0);
    Command::caig.put(&value, granularity);
    registers_.poke(reg::ccmd, value);
}

void Unit::iotlb_command() {
    using Command = layout::IotlbRegister;
    u64 value = registers_.load(reg::iotlb, registers_.iotlb());
    if (Command::ivt.of(value) == 0 || queue_.enabled())
        return;
    u64 granularity = Command::iirg.of(value);
    const auto domain = static_cast<u32>(Command::did.of(value));
    if (granularity == 1)
        translator_.caches().drop_iotlb(event);
    else if (granularity == 2)
        translator_.caches().drop_iotlb_of_domain(event, domain);
    else if (granularity == page_selective)
        granularity = page_command(domain);
    Command::ivt.put(&value, 0);
    Command::iaig.put(&value, granularity);
    registers_.poke(reg::iotlb, value, registers_.iotlb());
}

// Do a page-selective IOTLB command; the granularity done, 0 when refused.
u64 Unit::page_command(u32 domain) {
    using Address = layout::Iva;
    const u64 iva = registers_.load(reg::iva, registers_.iva());
    const u64 mask = Address::am.of(iva);
    if (mask > config_.cap(layout::Capability::mamv))
        return 0;
    translator_.caches().drop_second_stage(event, domain, Address::addr.address(&iva), mask,
                                           Address::ih.of(iva) != 0);
    return page_selective;
}

} // namespace dmarewind
