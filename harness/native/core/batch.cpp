#include "batch.hpp"

namespace dmarewind {
namespace {

// Requests whose slots are asked for before the first is looked at, so that their loads overlap.
constexpr std::size_t group = 32;
// Requests a kernel takes at once.
constexpr std::size_t kernel_lanes = 8;

constexpr Rights needed_rights(AccessKind kind) {
    if (kind == AccessKind::write)
        return right_write;
    if (kind == AccessKind::execute)
        return right_read | right_execute;
    return right_read;
}

bool in_interrupt_range(u64 address) {
    return address >= interrupt_first && address <= interrupt_last;
}

u8 attributes_of(const BatchRequests &requests, std::size_t i) {
    return requests.attributes == nullptr ? u8{0} : requests.attributes[i];
}

Request single(const BatchRequests &requests, std::size_t i) {
    return {requests.sids[i], requests.pasids[i], requests.iovas[i], AccessKind(requests.kinds[i]),
            attributes_of(requests, i)};
}

} // namespace

// -- one request ----------------------------------------------------------------------------------

// Find the paging root of a request; 0, or the reason there is none.
inline u8 BatchTranslator::find_root(const Memory::View &view, const Request &request,
                                     PagingRoot &root) const {
    Unobserved nobody;
    EntryResult context;
    if (lookup_.legacy() && request.pasid != no_pasid) [[unlikely]]
        return code(layout::Reason::legacy_mode_pasid);
    lookup_.context(view, request.sid, context, nobody);
    if (context.reason != 0) [[unlikely]]
        return context.reason;
    if (const u8 reason = lookup_.type_fault(context.words, request.attributes); reason != 0)
        return reason;
    if ((request.attributes & is_translated) != 0)
        return 0;
    if (lookup_.legacy()) {
        root = lookup_.legacy_root(context.words);
        return 0;
    }
    EntryResult entry;
    lookup_.pasid(view, context.words, request.pasid, entry, nobody);
    if (entry.reason != 0) [[unlikely]]
        return entry.reason;
    const bool privileged = lookup_.privileged(context.words, request.pasid, request.attributes);
    root = lookup_.scalable_root(entry.words, lookup_.effective_pasid(context.words, request.pasid),
                                 false, privileged);
    return Lookup::pasid_refuses(entry.words, request.kind, privileged);
}

BatchTranslator::Answer BatchTranslator::one_of_kind(const Memory::View &view,
                                                     const Request &request) {
    const u64 iova = request.iova;
    Answer answer{};
    answer.status = find_root(view, request, answer.root);
    if (answer.status != 0)
        return answer;
    if (answer.root.rules == nullptr) {
        const unsigned width = config_.host_address_width;
        const bool translated = (request.attributes & is_translated) != 0;
        if (!translated && width < 64 && iova >> width != 0)
            answer.status = code(lookup_.legacy() ? layout::Reason::address_beyond_width
                                                  : layout::Reason::pass_through_beyond_width);
        else
            answer.address = identity(iova);
        return answer;
    }
    walk(view, answer.root, iova, request.kind, nullptr, result_);
    if (result_.outcome.type == OutcomeType::fault) {
        answer.status = static_cast<u8>(result_.outcome.reason);
        return answer;
    }
    for (const auto &[address, bits] : std::span(result_.updates, result_.updates_count)) {
        u64 now = 0;
        view.load(address, now);
        memory_.store(address, sizeof(u64), now | bits);
        devices_.forget(); // it may have been an entry of theirs
    }
    answer.address = result_.outcome.address | (iova & result_.outcome.mask);
    answer.paged = true;
    answer.large = result_.outcome.mask >= page_size;
    answer.rights = result_.rights & stage_rights;
    bool marked = answer.root.rules->set_by_leaf_write != 0;
    if (answer.root.nested()) {
        answer.rights &= static_cast<Rights>(result_.rights >> host_shift | right_user);
        marked = marked || answer.root.host->data.set_by_leaf_write != 0;
    }
    // A write must set D first, so only a write that has been walked may be answered from a cache.
    if (marked && request.kind != AccessKind::write)
        answer.rights &= static_cast<Rights>(~right_write);
    return answer;
}

BatchTranslator::Answer BatchTranslator::one(const Memory::View &view, const Request &request,
                                             bool enabled) {
    const bool unchecked =
        config_.dialect.device_requests_unchecked && (request.attributes & is_translated) != 0;
    if (!enabled || in_interrupt_range(request.iova) || unchecked) {
        Answer answer{};
        answer.address = identity(request.iova);
        return answer;
    }
    if (lookup_.aborting()) {
        Answer answer{};
        answer.status = code(layout::Reason::root_table_address);
        return answer;
    }
    if (request.kind != AccessKind::unknown)
        return one_of_kind(view, request);
    // A request of unknown kind is a read if a read may succeed, else a write.
    Request guess = request;
    guess.kind = AccessKind::read;
    const Answer as_read = one_of_kind(view, guess);
    if (as_read.status == 0)
        return as_read;
    guess.kind = AccessKind::write;
    const Answer as_write = one_of_kind(view, guess);
    return as_write.status == 0 ? as_write : as_read;
}

// -- cold -----------------------------------------------------------------------------------------

void BatchTranslator::cold(const BatchRequests &requests, bool enabled) {
    const Memory::View view = memory_.view();
    KernelState state(view);
    state.lookup = &lookup_;
    state.devices = &devices_;
    devices_.forget();
    state.host_address_width = config_.host_address_width;
    // The root table too must be where plain loads reach it.
    const bool wide = kernels_.cold != nullptr && enabled && view.plain() &&
                      lookup_.root_usable() && lookup_.root_table() < view.window();
    for (std::size_t at = 0; at < requests.count;) {
        if (wide)
            at = kernels_.cold(state, requests, at, requests.count);
        // What the kernel left, and what is too little for it.
        const std::size_t end = std::min(at + kernel_lanes, requests.count);
        for (; at < end; ++at) {
            const Answer answer = one(view, single(requests, at), enabled);
            requests.addresses[at] = answer.address;
            requests.statuses[at] = answer.status;
        }
    }
}

// -- warm -----------------------------------------------------------------------------------------

void BatchTranslator::fill(const Memory::View &view, FastTlb &tlb, const Request &request,
                           const Answer &answer) {
    if (answer.status != 0 || request.attributes != 0)
        return;
    PagingRoot root;
    Request asking = request;
    asking.kind = AccessKind::execute;
    const bool execute = find_root(view, asking, root) == 0;
    asking.kind = AccessKind::read;
    if (!execute && find_root(view, asking, root) != 0)
        return;
    // Those of supervisors are walked each time.
    if (root.privileged)
        return;
    tlb.add_device(tlb.device_key(request.sid, request.pasid), root, execute);
    if (!answer.paged)
        return;
    const u64 offset = (u64{1} << layout::page_bits) - 1;
    tlb.add_page(tlb.tag(root), root.domain, request.iova >> layout::page_bits,
                 (answer.address & ~offset) | answer.rights, answer.large);
}

void BatchTranslator::warm(const BatchRequests &requests, bool enabled, FastTlb &tlb) {
    if (!enabled)
        return cold(requests, enabled);
    tlb.allocate();
    const Memory::View view = memory_.view();
    const bool wide = kernels_.warm != nullptr;
    for (std::size_t at = 0; at < requests.count;) {
        if (wide)
            at = kernels_.warm(tlb, config_.host_address_width, requests, at, requests.count);
        const std::size_t end = std::min(at + (wide ? kernel_lanes : group), requests.count);
        if (at < end)
            warm_group(view, requests, at, end, tlb);
        at = end;
    }
}

// Answer up to a group of requests, asking for all their slots before looking at the first.
void BatchTranslator::warm_group(const Memory::View &view, const BatchRequests &requests,
                                 std::size_t base, std::size_t end, FastTlb &tlb) {
    constexpr u64 offset = (u64{1} << layout::page_bits) - 1;
    const unsigned width = std::min(config_.host_address_width, 63U);
    struct Lane {
        u64 tag; // of the page; not_cached, or passed
        const FastTlb::Set *set;
    };
    constexpr u64 not_cached = 0;
    constexpr u64 passed = FastTlb::passes;
    Lane lanes[group];

    {
        const std::size_t size = end - base;
        for (std::size_t k = 0; k < size; ++k) {
            const std::size_t i = base + k;
            const u64 key = tlb.device_key(requests.sids[i], requests.pasids[i]);
            const FastTlb::Device &device = tlb.device(key);
            const bool usable = device.key == key && attributes_of(requests, i) == 0 &&
                                (device.execute || requests.kinds[i] != u8(AccessKind::execute));
            const u64 number = requests.iovas[i] >> layout::page_bits;
            lanes[k].tag = usable ? device.tag : not_cached;
            lanes[k].set = &tlb.set(device.tag, number);
            __builtin_prefetch(lanes[k].set);
        }
        for (std::size_t k = 0; k < size; ++k) {
            const std::size_t i = base + k;
            const u64 iova = requests.iovas[i];
            const u64 tag = lanes[k].tag;
            if (tag == passed && iova >> width == 0) {
                requests.addresses[i] = identity(iova);
                requests.statuses[i] = 0;
                continue;
            }
            const u64 number = iova >> layout::page_bits;
            const auto kind = AccessKind(requests.kinds[i]);
            const FastTlb::Page *way = lanes[k].set->way;
            way += way->number != number || way->tag != tag;
            const Rights needed = needed_rights(kind);
            if (way->number == number && way->tag == tag && tag != not_cached &&
                (way->target & needed) == needed) [[likely]] {
                requests.addresses[i] = (way->target & ~offset) | (iova & offset);
                requests.statuses[i] = 0;
                continue;
            }
            const Request request = single(requests, i);
            const Answer answer = one(view, request, true);
            requests.addresses[i] = answer.address;
            requests.statuses[i] = answer.status;
            // An address of the interrupt range never gets as far as the tables.
            if (!in_interrupt_range(iova))
                fill(view, tlb, request, answer);
        }
    }
}

} // namespace dmarewind
