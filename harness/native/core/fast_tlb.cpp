#include "fast_tlb.hpp"

namespace dmarewind {

void FastTlb::allocate() {
    if (allocated())
        return;
    devices_.reset(new Device[std::size_t{1} << device_bits]);
    sets_.reset(new Set[std::size_t{1} << set_bits]);
    domain_generation_.assign(domains, 0);
    has_large_.assign(domains, false);
    has_first_.assign(domains, false);
}

void FastTlb::clear() {
    std::fill_n(devices_.get(), std::size_t{1} << device_bits, Device{});
    std::fill_n(sets_.get(), std::size_t{1} << set_bits, Set{});
    std::fill(domain_generation_.begin(), domain_generation_.end(), u16{0});
    has_large_.assign(domains, false);
    has_first_.assign(domains, false);
    device_generation_ = 1;
    used_ = false;
}

void FastTlb::add_device(u64 key, const PagingRoot &root, bool execute) {
    Device &device = devices_[device_slot(key)];
    device.key = key;
    device.tag = root.rules == nullptr ? passes : tag(root);
    device.execute = execute;
    used_ = true;
}

void FastTlb::add_page(u64 tag, u32 domain, u64 number, u64 target, bool large) {
    Set &set = sets_[set_slot(tag, number)];
    used_ = true;
    // The same page again (with more rights) replaces itself, else the older one goes.
    if (set.way[0].tag != tag || set.way[0].number != number)
        set.way[1] = set.way[0];
    set.way[0] = {number, tag, target, 0};
    if (large)
        has_large_[domain] = true;
    if (CacheTag::unpack(tag).of_first_stage())
        has_first_[domain] = true;
}

void FastTlb::bump_devices() {
    if (++device_generation_ == generations)
        clear();
}

void FastTlb::drop_devices() {
    if (allocated())
        bump_devices();
}

void FastTlb::drop_all() {
    if (used_)
        clear();
}

void FastTlb::drop_domain(u32 domain) {
    if (!allocated())
        return;
    has_large_[domain] = has_first_[domain] = false;
    if (++domain_generation_[domain] == 0)
        clear();
    // Devices carry the tag with the old generation.
    bump_devices();
}

void FastTlb::drop_pages(CacheTag cache_tag, u64 first, u64 last) {
    if (!allocated())
        return;
    const u32 domain = cache_tag.domain();
    const u64 from = first >> layout::page_bits;
    const u64 to = last >> layout::page_bits;
    // What a first stage gave does not outlive an invalidation of second-stage pages.
    const bool reaches_first = has_first_[domain] && !cache_tag.of_first_stage();
    if (has_large_[domain] || reaches_first || to - from >= pages_by_hand)
        return drop_domain(domain);
    const u64 tag = cache_tag.packed() | u64{domain_generation_[domain]} << 48;
    for (u64 number = from; number <= to; ++number) {
        Set &set = sets_[set_slot(tag, number)];
        for (Page &way : set.way)
            if (way.tag == tag && way.number == number)
                way = {};
    }
}

} // namespace dmarewind
