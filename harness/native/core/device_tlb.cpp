#include "device_tlb.hpp"

#include "defects.hpp"

#include <bit>

namespace dmarewind {

namespace {

constexpr const char *cache_name = "device-tlb";
// Translations of all devices together; one more and all are forgotten.
constexpr std::size_t held_limit = std::size_t{1} << 15;
// Pages of devices that translations once led to; one more and all are forgotten.
constexpr std::size_t gone_limit = std::size_t{1} << 15;
// Translations to one page that are followed; a device with more may use that page freely.
constexpr std::size_t max_users = 16;
constexpr u64 page_mask = (u64{1} << layout::page_bits) - 1;
constexpr u64 no_pasid_word = no_pasid;

// Where a range is large, the lowest clear bit of its address is half of its size.
Observation range(u64 sid, u64 pasid, u64 address, bool large, bool every_pasid) {
    u64 mask = page_mask;
    if (large) {
        const u64 ones = address | page_mask;
        mask = ones ^ (ones + 1);
        if (defect(Defect::device_tlb_range_of_32_bits))
            mask = static_cast<u32>(mask);
    }
    return Observation::device_tlb(sid, pasid, address & ~mask, mask, every_pasid);
}

u64 inside(const HeldTranslation &held) {
    return (u64{1} << held.shift) - 1;
}

// The input of a translation that gives an address.
u64 input_of(const HeldTranslation &held, u64 address) {
    return (held.request.iova & ~inside(held)) | (address & inside(held));
}

bool same(const HeldTranslation &left, const HeldTranslation &right) {
    return left.output == right.output && left.request.kind == right.request.kind &&
           left.request.attributes == right.request.attributes;
}

bool leads_to(const Outcome &outcome, const HeldTranslation &held, u64 address) {
    return outcome.type == OutcomeType::translation &&
           (outcome.address | (input_of(held, address) & outcome.mask)) == address;
}

} // namespace

Observation device_tlb_invalidation(const u64 *words) {
    using Descriptor = layout::DeviceTlbInvalidation;
    return range(Descriptor::sid.get(words), no_pasid_word, Descriptor::addr.address(words),
                 Descriptor::s.get(words) != 0, false);
}

Observation pasid_device_tlb_invalidation(const u64 *words) {
    using Descriptor = layout::PasidDeviceTlbInvalidation;
    const bool every = Descriptor::g.get(words) != 0;
    return range(Descriptor::sid.get(words), every ? no_pasid_word : Descriptor::pasid.get(words),
                 Descriptor::addr.address(words), Descriptor::s.get(words) != 0, every);
}

void DeviceTlbs::reset() {
    devices_.clear();
    held_.clear();
    gone_.clear();
    serial_ = 0;
}

// -- what is kept ---------------------------------------------------------------------------------

DeviceTlbs::PageKey DeviceTlbs::page_of(const HeldTranslation &held) {
    const Number pasid = held.request.pasid == no_pasid ? -1 : Number{held.request.pasid};
    return {pasid, held.shift, held.request.iova >> held.shift};
}

void DeviceTlbs::keep(const Request &request, const Outcome &answer, const Candidate &source,
                      u64 event) {
    if (answer.type != OutcomeType::translation)
        return;
    // A device keeps pages; what is no page was recorded by something that said less.
    const u64 size = answer.mask + 1;
    if (!std::has_single_bit(size) || size <= page_mask)
        return;
    const auto shift = static_cast<u32>(std::countr_zero(size));
    HeldTranslation held{request, shift, answer.address >> shift, {}, event};
    const PageKey key = page_of(held);
    std::vector<u64> &ways = devices_[request.sid].pages[key];
    for (const u64 way : ways)
        if (same(held_.at(way), held))
            return;
    // A translation that is not followed any more may be in use: its page is not judged.
    if (ways.size() == max_ways) {
        const HeldTranslation lost = remove(devices_[request.sid], ways.front());
        gone_.erase({request.sid, {lost.shift, lost.output}});
    } else if (held_.size() == held_limit) {
        devices_.clear();
        held_.clear();
        gone_.clear();
    }
    held.steps.assign(source.trail.steps.data(), source.trail.steps.data() + source.trail.count);
    Device &device = devices_[request.sid];
    ++serial_;
    device.pages[key].push_back(serial_);
    device.outputs[{shift, held.output}].insert(serial_);
    device.shifts.insert(shift);
    held_.emplace(serial_, std::move(held));
}

HeldTranslation DeviceTlbs::remove(Device &device, u64 serial) {
    auto node = held_.extract(serial);
    HeldTranslation held = std::move(node.mapped());
    const auto page = device.pages.find(page_of(held));
    std::erase(page->second, serial);
    if (page->second.empty())
        device.pages.erase(page);
    const auto output = device.outputs.find({held.shift, held.output});
    output->second.erase(serial);
    if (output->second.empty())
        device.outputs.erase(output);
    return held;
}

// -- what is forgotten ----------------------------------------------------------------------------

void DeviceTlbs::invalidate(const Observation &message, u64 event) {
    if (config_.dialect.device_messages_traced)
        emitted_.push_back(message);
    drop(message, event);
}

void DeviceTlbs::drop(const Observation &message, u64 event) {
    const auto place = devices_.find(static_cast<u32>(message.word[0]));
    if (place == devices_.end())
        return;
    Device &device = place->second;
    for (const PageKey &key : covered(device, message)) {
        const std::vector<u64> serials = device.pages.at(key);
        for (const u64 serial : serials)
            forget(remove(device, serial), event);
    }
}

// The keys of pages that a message covers, or covers a part of.
std::vector<DeviceTlbs::PageKey> DeviceTlbs::covered(const Device &device,
                                                     const Observation &message) {
    const u64 last = message.address + message.value;
    const bool every = message.word[2] != 0;
    const Number number =
        message.word[1] == no_pasid_word ? -1 : static_cast<Number>(message.word[1]);
    std::vector<PageKey> found;
    u64 count = 0;
    for (const u32 shift : device.shifts)
        count += (last >> shift) - (message.address >> shift) + 1;
    if (every || count > device.pages.size()) {
        looked_at_ += device.pages.size();
        for (const auto &[key, serials] : device.pages) {
            const bool meant = every ? key.pasid >= 0 : key.pasid == number;
            if (meant && key.number >= message.address >> key.shift &&
                key.number <= last >> key.shift)
                found.push_back(key);
        }
        return found;
    }
    looked_at_ += count;
    for (const u32 shift : device.shifts)
        for (u64 page = message.address >> shift; page <= last >> shift; ++page)
            if (device.pages.contains({number, shift, page}))
                found.push_back({number, shift, page});
    return found;
}

void DeviceTlbs::forget(HeldTranslation held, u64 event) {
    const std::pair key{held.request.sid, OutputKey{held.shift, held.output}};
    if (gone_.size() >= gone_limit && !gone_.contains(key))
        gone_.clear();
    std::vector<GoneTranslation> &gone = gone_[key];
    gone.push_back({std::move(held), event, waits_});
    if (gone.size() > max_ways)
        gone.erase(gone.begin());
}

// -- what is used ---------------------------------------------------------------------------------

std::optional<Finding> DeviceTlbs::judge(const Request &request, const Outcome &recorded,
                                         u64 event) {
    const auto finding = [&](FindingKind kind, const HeldTranslation &held, const Answer &answer) {
        Finding found;
        found.event = static_cast<Number>(event);
        found.kind = kind;
        found.subject = "access";
        found.observed = Compared(recorded);
        found.permitted.emplace_back(answer.outcome);
        found.steps = answer.steps;
        found.cache = cache_name;
        found.domain = answer.domain;
        found.filled_by = static_cast<Number>(held.filled_by);
        return found;
    };
    const HeldTranslation *stale = nullptr;
    Answer first;
    if (const auto place = devices_.find(request.sid); place != devices_.end())
        for (const u32 shift : place->second.shifts) {
            const auto users = place->second.outputs.find({shift, request.iova >> shift});
            if (users == place->second.outputs.end())
                continue;
            if (users->second.size() > max_users)
                return std::nullopt;
            for (const u64 serial : users->second) {
                const HeldTranslation &held = held_.at(serial);
                Answer answer = now(held, request.iova);
                if (leads_to(answer.outcome, held, request.iova))
                    return std::nullopt;
                if (stale == nullptr) {
                    stale = &held;
                    first = std::move(answer);
                }
            }
        }
    if (stale != nullptr) {
        Finding found = finding(FindingKind::stale_use, *stale, first);
        found.changed_by =
            translator_.changed_by(stale->steps.data(), static_cast<unsigned>(stale->steps.size()));
        return found;
    }
    const GoneTranslation *gone = newest_gone(request);
    if (gone == nullptr)
        return std::nullopt;
    Finding found =
        finding(FindingKind::stale_after_invalidation, gone->held, now(gone->held, request.iova));
    found.covered_by = static_cast<Number>(gone->dropped_by);
    return found;
}

// What was forgotten last of what led to an address; nothing if it is being still.
const GoneTranslation *DeviceTlbs::newest_gone(const Request &request) const {
    const GoneTranslation *newest = nullptr;
    for (u32 shift = layout::page_bits; shift < 64; ++shift) {
        const auto place = gone_.find({request.sid, {shift, request.iova >> shift}});
        if (place == gone_.end())
            continue;
        for (const GoneTranslation &gone : place->second) {
            if (gone.moment == waits_)
                return nullptr;
            if (newest == nullptr || gone.dropped_by > newest->dropped_by)
                newest = &gone;
        }
    }
    return newest;
}

// What the translation request would be answered now, for the same byte.
DeviceTlbs::Answer DeviceTlbs::now(const HeldTranslation &held, u64 address) {
    Request again = held.request;
    again.iova = input_of(held, address);
    const Candidate &fresh = translator_.permitted(again).fresh_candidate();
    const Step *steps = fresh.trail.steps.data();
    return {fresh.outcome, {steps, steps + fresh.trail.count}, fresh.domain};
}

} // namespace dmarewind
