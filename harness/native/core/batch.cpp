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

} // namespace

// -- one request ----------------------------------------------------------------------------------

// Find the paging root of a request; 0, or the reason there is none.
inline u8 BatchTranslator::find_root(const Memory::View &view, u32 sid, u32 pasid, AccessKind kind,
                                     PagingRoot &root) const {
    Unobserved nobody;
    EntryResult context;
    if (lookup_.legacy()) {
        if (pasid != no_pasid) [[unlikely]]
            return code(layout::Reason::legacy_mode_pasid);
        lookup_.context(view, sid, context, nobody);
        if (context.reason != 0) [[unlikely]]
            return context.reason;
        root = lookup_.legacy_root(context.words);
        return 0;
    }
    lookup_.context(view, sid, context, nobody);
    if (context.reason != 0) [[unlikely]]
        return context.reason;
    EntryResult entry;
    lookup_.pasid(view, context.words, pasid, entry, nobody);
    if (entry.reason != 0) [[unlikely]]
        return entry.reason;
    const bool privileged = lookup_.privileged(context.words, pasid, 0);
    root = lookup_.scalable_root(entry.words, lookup_.effective_pasid(context.words, pasid), false,
                                 privileged);
    return Lookup::pasid_refuses(entry.words, kind, privileged);
}

BatchTranslator::Answer BatchTranslator::one_of_kind(const Memory::View &view, u32 sid, u32 pasid,
                                                     u64 iova, AccessKind kind) {
    Answer answer{};
    answer.status = find_root(view, sid, pasid, kind, answer.root);
    if (answer.status != 0)
        return answer;
    if (answer.root.rules == nullptr) {
        const unsigned width = config_.host_address_width;
        if (width < 64 && iova >> width != 0)
            answer.status = code(lookup_.legacy() ? layout::Reason::address_beyond_width
                                                  : layout::Reason::pass_through_beyond_width);
        else
            answer.address = identity(iova);
        return answer;
    }
    walk(view, answer.root, iova, kind, nullptr, result_);
    if (result_.outcome.type == OutcomeType::fault) {
        answer.status = static_cast<u8>(result_.outcome.reason);
        return answer;
    }
    for (const auto &[address, bits] : std::span(result_.updates, result_.updates_count)) {
        u64 now = 0;
        view.load(address, now);
        memory_.store(address, sizeof(u64), now | bits);
    }
    answer.address = result_.outcome.address | (iova & result_.outcome.mask);
    answer.level = result_.steps[result_.steps_count - 1].level;
    answer.rights = result_.rights;
    // A write must set D first, so only a write that has been walked may be answered from a cache.
    if (answer.root.rules->set_by_leaf_write != 0 && kind != AccessKind::write)
        answer.rights &= static_cast<Rights>(~right_write);
    return answer;
}

BatchTranslator::Answer BatchTranslator::one(const Memory::View &view, u32 sid, u32 pasid, u64 iova,
                                             AccessKind kind, bool enabled) {
    if (!enabled || in_interrupt_range(iova)) {
        Answer answer{};
        answer.address = identity(iova);
        return answer;
    }
    if (lookup_.aborting()) {
        Answer answer{};
        answer.status = code(layout::Reason::root_table_address);
        return answer;
    }
    if (kind != AccessKind::unknown)
        return one_of_kind(view, sid, pasid, iova, kind);
    // A request of unknown kind is a read if a read may succeed, else a write.
    const Answer as_read = one_of_kind(view, sid, pasid, iova, AccessKind::read);
    if (as_read.status == 0)
        return as_read;
    const Answer as_write = one_of_kind(view, sid, pasid, iova, AccessKind::write);
    return as_write.status == 0 ? as_write : as_read;
}

// -- cold -----------------------------------------------------------------------------------------

void BatchTranslator::cold(const BatchRequests &requests, bool enabled) {
    const Memory::View view = memory_.view();
    KernelState state;
    state.memory = view.base();
    state.window = view.window();
    state.lookup = &lookup_;
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
            const Answer answer = one(view, requests.sids[at], requests.pasids[at],
                                      requests.iovas[at], AccessKind(requests.kinds[at]), enabled);
            requests.addresses[at] = answer.address;
            requests.statuses[at] = answer.status;
        }
    }
}

// -- warm -----------------------------------------------------------------------------------------

void BatchTranslator::fill(const Memory::View &view, FastTlb &tlb, u32 sid, u32 pasid, u64 iova,
                           const Answer &answer) {
    if (answer.status != 0)
        return;
    PagingRoot root;
    const bool execute = find_root(view, sid, pasid, AccessKind::execute, root) == 0;
    if (!execute && find_root(view, sid, pasid, AccessKind::read, root) != 0)
        return;
    // Nested translations and those of supervisors are walked each time.
    if (root.nested() || root.privileged)
        return;
    tlb.add_device(tlb.device_key(sid, pasid), root, execute);
    if (answer.level == 0)
        return;
    const u64 offset = (u64{1} << layout::page_bits) - 1;
    tlb.add_page(tlb.tag(root), root.domain, iova >> layout::page_bits,
                 (answer.address & ~offset) | answer.rights, answer.level > 1);
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
            const bool usable = device.key == key &&
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
            const u32 sid = requests.sids[i];
            const u32 pasid = requests.pasids[i];
            const Answer answer = one(view, sid, pasid, iova, kind, true);
            requests.addresses[i] = answer.address;
            requests.statuses[i] = answer.status;
            // An address of the interrupt range never gets as far as the tables.
            if (!in_interrupt_range(iova))
                fill(view, tlb, sid, pasid, iova, answer);
        }
    }
}

} // namespace dmarewind
