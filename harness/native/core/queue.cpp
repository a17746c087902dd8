#include "queue.hpp"

#include "defects.hpp"

#include <cassert>
#include <string>

namespace dmarewind {

namespace reg = layout::reg;
using layout::DescriptorType;

namespace {

// Bytes of the smallest queue (IQA.QS = 0), and of a descriptor by IQA.DW.
constexpr u64 queue_unit = 4096;
constexpr u32 narrow_step = 16;
constexpr u32 wide_step = 32;
// What each event adds to the budget of descriptors.
constexpr u64 descriptors_per_event = 8;
// So many keys (log2) that invalidations looked at in the caches cost as much as a descriptor.
constexpr unsigned looked_at_shift = 10;

u64 descriptor_type(u64 low) {
    using Any = layout::InvalidationWait;
    if (defect(Defect::descriptor_type_of_four_bits))
        return Any::type.of(low);
    return Any::type.of(low) | Any::type_high.of(low) << Any::type.width;
}

// Whether a wait does more than to hold up those behind it.
bool has_effect(const u64 *words) {
    using Wait = layout::InvalidationWait;
    return Wait::sw.get(words) != 0 || Wait::iflag.get(words) != 0;
}

} // namespace

InvalidationQueue::InvalidationQueue(const UnitConfig &config, Memory &memory,
                                     RegisterFile &registers, Caches &caches,
                                     EntryCache &interrupts, DeviceTlbs &devices,
                                     PageRequestQueue &page_requests, FaultRecorder &faults,
                                     Observations &emitted, const u64 &event)
    : completion(registers, emitted, reg::iectl, reg::iedata, reg::ieaddr, reg::ieuaddr),
      config_(config), memory_(memory), registers_(registers), caches_(caches),
      interrupts_(interrupts), devices_(devices), page_requests_(page_requests), faults_(faults),
      emitted_(emitted), event_(event) {
    place_.step = narrow_step;
    mark();
}

void InvalidationQueue::reset() {
    place_.enabled = false;
    place_.base = place_.size = 0;
    place_.step = defect(Defect::queue_width_kept) ? place_.step : narrow_step;
}

void InvalidationQueue::enable(bool on) {
    using Address = layout::InvalidationQueueAddress;
    if (on && !place_.enabled) {
        const u64 address = registers_.load(reg::iqa);
        place_.base = Address::iqa.address(&address);
        place_.size = queue_unit << Address::qs.of(address);
        const bool stays = defect(Defect::queue_width_kept) && place_.step == wide_step;
        place_.step = Address::dw.of(address) != 0 || stays ? wide_step : narrow_step;
    }
    if (!on)
        registers_.poke(reg::iqh, 0);
    place_.enabled = on;
    if (on)
        run();
}

bool InvalidationQueue::stopped() const {
    return registers_.field(reg::fsts, layout::FaultStatus::iqe) != 0;
}

void InvalidationQueue::run() {
    if (!place_.enabled || stopped())
        return;
    const u64 written = registers_.load(reg::iqt);
    u64 tail = layout::InvalidationQueueTail::qt.address(&written);
    if (defect(Defect::queue_tail_bit_ignored))
        tail -= tail % place_.step;
    if (tail >= place_.size)
        return fail(Error::tail);
    if (tail % place_.step != 0)
        return fail(Error::alignment);
    if (place_.step == wide_step && config_.ecap(layout::ExtendedCapability::smts) == 0)
        return fail(Error::width);
    // A fault record that CAP.FRO places over IQH can leave anything there.
    if (registers_.load(reg::iqh) >= place_.size || registers_.load(reg::iqh) % place_.step != 0)
        return fail(Error::tail);
    for (u64 head = registers_.load(reg::iqh); head != tail; head = registers_.load(reg::iqh)) {
        charge();
        const Error error = fetch(place_.base + head);
        if (error != Error::none)
            return fail(error);
        advance();
    }
}

void InvalidationQueue::charge() {
    ++place_.executed;
    const u64 looked_at = caches_.looked_at() + interrupts_.looked_at() + devices_.looked_at();
    const u64 spent = place_.executed + (looked_at >> looked_at_shift);
    const u64 budget = config_.descriptor_budget;
    if (spent > budget && spent - budget > descriptors_per_event * event_)
        throw DescriptorError("the trace makes the unit execute more than " +
                              std::to_string(budget) + " invalidation descriptors and " +
                              std::to_string(descriptors_per_event) +
                              " for each event; raise --descriptor-budget if it is yours");
}

void InvalidationQueue::advance() {
    const u64 step = defect(Defect::queue_head_shift) ? narrow_step : place_.step;
    const u64 head = registers_.load(reg::iqh) + step;
    registers_.poke(reg::iqh, place_.size == 0 ? 0 : head % place_.size);
}

InvalidationQueue::Error InvalidationQueue::fetch(u64 address) {
    const Memory::View view = memory_.view();
    u64 words[wide_step / sizeof(u64)];
    const u32 count = place_.step / static_cast<u32>(sizeof(u64));
    for (u32 i = 0; i < count; ++i)
        if (!view.load(address + sizeof(u64) * i, words[i]))
            return Error::fetch;
    return consume(words, count);
}

InvalidationQueue::Error InvalidationQueue::consume(const u64 *words, u32 count) {
    const u64 type = descriptor_type(words[0]);
    if (type == 0 || type >= layout::descriptor_types)
        return Error::type;
    if ((config_.dialect.untraced_descriptors >> type & 1) == 0)
        emitted_.push_back(Observation::descriptor(words, count));
    if ((layout::wide_only >> type & 1) != 0 && place_.step != wide_step &&
        !defect(Defect::pasid_descriptors_in_narrow_queue))
        return Error::type;
    u64 reserved[4] = {layout::descriptor_reserved[type][0], layout::descriptor_reserved[type][1],
                       ~u64{0}, ~u64{0}};
    if (type == static_cast<u64>(DescriptorType::invalidation_wait) &&
        config_.ecap(layout::ExtendedCapability::pds) == 0)
        reserved[0] |= layout::InvalidationWait::pd.mask();
    const bool unchecked =
        defect(Defect::interrupt_entry_descriptor_unchecked) &&
        type == static_cast<u64>(DescriptorType::interrupt_entry_cache_invalidation);
    const u32 checked = defect(Defect::queue_upper_half_unchecked) ? 2 : count;
    for (u32 i = 0; i < checked && !unchecked; ++i)
        if ((words[i] & reserved[i]) != 0)
            return Error::reserved;
    return execute(type, words, true);
}

void InvalidationQueue::adopt(const Observation &seen) {
    const u64 type = descriptor_type(seen.word[0]);
    if (place_.enabled && stopped()) {
        registers_.put(reg::fsts, layout::FaultStatus::iqe, 0);
        execute(type, seen.word, false);
        advance();
        run();
    } else {
        execute(type, seen.word, false);
    }
}

void InvalidationQueue::fail(Error error) {
    const u64 before = registers_.load(reg::fsts);
    registers_.put(reg::fsts, layout::FaultStatus::iqe, 1);
    registers_.put(reg::iqercd, layout::QueueErrorRecord::iqei, static_cast<u64>(error));
    faults_.raise_event(before);
}

// -- descriptors ----------------------------------------------------------------------------------

InvalidationQueue::Error InvalidationQueue::execute(u64 type, const u64 *words, bool waits) {
    switch (static_cast<DescriptorType>(type)) {
    case DescriptorType::context_cache_invalidation:
        return context_cache(words);
    case DescriptorType::iotlb_invalidation:
        return iotlb(words);
    case DescriptorType::interrupt_entry_cache_invalidation:
        return interrupt_entries(words);
    case DescriptorType::invalidation_wait:
        // Page requests are stored as they come: there are none to drain (PD).
        if (defect(Defect::wait_of_fence_refused) && !has_effect(words))
            return Error::type;
        devices_.waited();
        if (waits)
            wait(words);
        return Error::none;
    case DescriptorType::device_tlb_invalidation:
        devices_.invalidate(device_tlb_invalidation(words), event_);
        return Error::none;
    case DescriptorType::pasid_device_tlb_invalidation:
        devices_.invalidate(pasid_device_tlb_invalidation(words), event_);
        return Error::none;
    case DescriptorType::page_group_response:
        page_requests_.respond(words);
        return Error::none;
    case DescriptorType::pasid_iotlb_invalidation:
        return pasid_iotlb(words);
    case DescriptorType::pasid_cache_invalidation:
        return pasid_cache(words);
    default:
        return Error::none; // of a type that is not known
    }
}

InvalidationQueue::Error InvalidationQueue::context_cache(const u64 *words) {
    using Descriptor = layout::ContextCacheInvalidation;
    switch (Descriptor::g.get(words)) {
    case 1:
        caches_.drop_contexts();
        return Error::none;
    case 2:
        caches_.drop_contexts_of_domain(static_cast<u32>(Descriptor::did.get(words)));
        return Error::none;
    case 3:
        caches_.drop_contexts_of_device(
            static_cast<u32>(Descriptor::sid.get(words)), Descriptor::fm.get(words),
            config_.dialect.device_selective_ignores_domain
                ? std::nullopt
                : std::optional(static_cast<u32>(Descriptor::did.get(words))));
        return Error::none;
    default:
        return Error::reserved;
    }
}

InvalidationQueue::Error InvalidationQueue::iotlb(const u64 *words) {
    using Descriptor = layout::IotlbInvalidation;
    const auto domain = static_cast<u32>(Descriptor::did.get(words));
    const u64 mask = Descriptor::am.get(words);
    switch (Descriptor::g.get(words)) {
    case 1:
        caches_.drop_iotlb(event_);
        return Error::none;
    case 2:
        caches_.drop_iotlb_of_domain(event_, domain);
        return Error::none;
    case 3:
        if (mask > config_.cap(layout::Capability::mamv))
            return Error::reserved;
        caches_.drop_second_stage(event_, domain, Descriptor::addr.address(words), mask,
                                  Descriptor::ih.get(words) != 0);
        return Error::none;
    default:
        return Error::reserved;
    }
}

InvalidationQueue::Error InvalidationQueue::interrupt_entries(const u64 *words) {
    using Descriptor = layout::InterruptEntryCacheInvalidation;
    if (Descriptor::g.get(words) == 0) {
        interrupts_.drop(event_);
        return Error::none;
    }
    const u64 order = Descriptor::im.get(words);
    if (order > config_.ecap(layout::ExtendedCapability::mhmv) &&
        config_.dialect.handle_mask_checked)
        return Error::reserved;
    interrupts_.drop_range(event_, static_cast<u32>(Descriptor::iidx.get(words)), order);
    return Error::none;
}

InvalidationQueue::Error InvalidationQueue::pasid_iotlb(const u64 *words) {
    using Descriptor = layout::PasidIotlbInvalidation;
    const auto domain = static_cast<u32>(Descriptor::did.get(words));
    const auto pasid = static_cast<u32>(Descriptor::pasid.get(words));
    const u64 mask = Descriptor::am.get(words);
    switch (Descriptor::g.get(words)) {
    case 2:
        caches_.drop_pasid(event_, domain, pasid);
        return Error::none;
    case 3:
        if (mask > config_.cap(layout::Capability::mamv))
            return Error::reserved;
        caches_.drop_pasid_pages(event_, domain, pasid, Descriptor::addr.address(words), mask,
                                 Descriptor::ih.get(words) != 0);
        return Error::none;
    default:
        return Error::reserved;
    }
}

InvalidationQueue::Error InvalidationQueue::pasid_cache(const u64 *words) {
    using Descriptor = layout::PasidCacheInvalidation;
    if (defect(Defect::pasid_cache_invalidation_ignored))
        return Error::none;
    const auto domain = static_cast<u32>(Descriptor::did.get(words));
    switch (Descriptor::g.get(words)) {
    case 0:
        caches_.drop_pasids_of_domain(domain);
        return Error::none;
    case 1:
        caches_.drop_pasid_entries(domain, static_cast<u32>(Descriptor::pasid.get(words)));
        return Error::none;
    case 3:
        caches_.drop_pasids();
        return Error::none;
    default:
        return Error::reserved;
    }
}

void InvalidationQueue::wait(const u64 *words) {
    using Descriptor = layout::InvalidationWait;
    assert(!defect(Defect::wait_with_status_and_interrupt) || Descriptor::sw.get(words) == 0 ||
           Descriptor::iflag.get(words) == 0);
    if (Descriptor::sw.get(words) != 0) {
        const u64 address = Descriptor::staddr.address(words);
        const u64 data = Descriptor::stdata.get(words);
        memory_.store(address, sizeof(u32), data, event_ + 1);
        emitted_.push_back(Observation::status_write(address, data));
    }
    if (Descriptor::iflag.get(words) != 0 && registers_.field(reg::ics, layout::Ics::iwc) == 0) {
        registers_.put(reg::ics, layout::Ics::iwc, 1);
        completion.request();
    }
}

} // namespace dmarewind
