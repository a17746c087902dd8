// Eight requests that FastTlb answers. Part of kernel_body.hpp.
#pragma once

#include "kernel_requests.hpp"
#include "lanes.hpp"

namespace dmarewind {
namespace {

[[gnu::noinline]] bool warm_eight(const FastTlb &tlb, unsigned host_address_width,
                                  const BatchRequests &requests, std::size_t first) {
    using Device = FastTlb::Device;
    Manner manner;
    if (!manner_of_eight(requests, first, manner) || manner.attributes != 0) [[unlikely]]
        return false;
    const u8 kind = manner.kind;
    const Lanes iovas = load_lanes(requests.iovas + first);
    const Lanes pasids = widen(requests.pasids + first);
    const Lanes none = mask(pasids == u64{no_pasid}) & (u64{1} << FastTlb::key_none);
    const Lanes key = (widen(requests.sids + first) << FastTlb::key_sid) | none |
                      (pasids & u64{0xf'ffff}) | tlb.key_generation();
    const Lanes slot =
        ((key * FastTlb::multiplier) >> (64 - FastTlb::device_bits)) * sizeof(Device);
    const auto *devices = reinterpret_cast<const std::byte *>(tlb.devices());
    Lanes bad = gather(devices + offsetof(Device, key), slot) ^ key;
    const Lanes tag = gather(devices + offsetof(Device, tag), slot);
    if (kind == u8(AccessKind::execute))
        bad |= ~gather(devices + offsetof(Device, execute), slot) & 1;
    const Lanes passes = mask(tag == u64{FastTlb::passes});
    if (any(passes)) {
        bad |= ~passes | (iovas >> std::min(host_address_width, 63U));
        if (any(bad)) [[unlikely]]
            return false;
        store_lanes(requests.addresses + first, iovas);
        std::memset(requests.statuses + first, 0, lane_count);
        return true;
    }
    const Lanes number = iovas >> layout::page_bits;
    const Lanes place = (((number ^ tag << 12) * FastTlb::multiplier) >> (64 - FastTlb::set_bits)) *
                        sizeof(FastTlb::Set);
    const auto *ways = reinterpret_cast<const std::byte *>(tlb.sets());
    using Page = FastTlb::Page;
    Lanes other = (gather(ways + offsetof(Page, number), place) ^ number) |
                  (gather(ways + offsetof(Page, tag), place) ^ tag);
    Lanes target = gather(ways + offsetof(Page, target), place);
    if (any(other)) {
        ways += sizeof(Page);
        const Lanes second = mask(other != u64{0});
        const Lanes miss = (gather(ways + offsetof(Page, number), place) ^ number) |
                           (gather(ways + offsetof(Page, tag), place) ^ tag);
        target = select(second, gather(ways + offsetof(Page, target), place), target);
        bad |= second & miss;
    }
    const u64 needed = kind == u8(AccessKind::write)     ? right_write
                       : kind == u8(AccessKind::execute) ? right_read | right_execute
                                                         : right_read;
    bad |= ~target & needed;
    if (any(bad)) [[unlikely]]
        return false;
    constexpr u64 offset = (u64{1} << layout::page_bits) - 1;
    store_lanes(requests.addresses + first, (target & ~offset) | (iovas & offset));
    std::memset(requests.statuses + first, 0, lane_count);
    return true;
}

} // namespace
} // namespace dmarewind
