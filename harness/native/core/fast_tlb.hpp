// A finite translation cache for batches: set-associative, as hardware has one.
//
// Two tables: devices, from (source id, PASID) to the paging root its context and PASID entries
// describe, and pages, from (tag, 4 KiB page) to an address. Invalidations may drop more than they
// name, never less; wholesale ones only count a generation up.
#pragma once

#include "cache_tag.hpp"

#include <memory>
#include <vector>

namespace dmarewind {

class FastTlb {
  public:
    static constexpr unsigned device_bits = 10;
    static constexpr unsigned set_bits = 15;
    static constexpr unsigned page_ways = 2;
    static constexpr unsigned key_sid = 20;
    static constexpr unsigned key_none = 39; // the bit of a request without PASID
    static constexpr u64 multiplier = 0x9e37'79b9'7f4a'7c15;
    static constexpr u64 passes = u64{1} << 63; // tag of a pass-through device; no page has it

    // What a device's requests use.
    struct alignas(32) Device {
        u64 key = 0;     // request key with the generation; 0 is nobody
        u64 tag = 0;     // of its pages: cache tag with the domain's generation
        u64 execute = 1; // execute requests are allowed
    };

    // One page: its number, the tag, and its address with rights in the low bits.
    struct Page {
        u64 number = 0;
        u64 tag = 0; // 0: empty, no tag is
        u64 target = 0;
        u64 pad = 0;
    };
    struct alignas(64) Set {
        Page way[page_ways];
    };

    FastTlb() = default;

    // Make the tables; until then there is nothing to find and nothing to drop.
    void allocate();
    bool allocated() const { return sets_ != nullptr; }

    u64 device_key(u32 sid, u32 pasid) const {
        const u64 none = pasid == no_pasid;
        return key_generation() | none << key_none | u64{sid} << key_sid | (pasid & 0xf'ffff);
    }
    u64 key_generation() const { return device_generation_ << (key_none + 1); }
    const Device &device(u64 key) const { return devices_[device_slot(key)]; }
    Device &device(u64 key) { return devices_[device_slot(key)]; }

    const Set &set(u64 tag, u64 number) const { return sets_[set_slot(tag, number)]; }

    // A tag of the pages of a paging root, now.
    u64 tag(const PagingRoot &root) const {
        return CacheTag(root).packed() | u64{domain_generation_[root.domain]} << 48;
    }

    void add_device(u64 key, const PagingRoot &root, bool execute);
    void add_page(u64 tag, u32 domain, u64 number, u64 target, bool large);

    void drop_devices();
    void drop_all();
    void drop_domain(u32 domain);
    void drop_pages(CacheTag tag, u64 first, u64 last);

    // For the benchmark's floor, which loads the same slots and nothing else.
    static std::size_t device_slot(u64 key) {
        return static_cast<std::size_t>((key * multiplier) >> (64 - device_bits));
    }
    static std::size_t set_slot(u64 tag, u64 number) {
        return static_cast<std::size_t>(((number ^ tag << 12) * multiplier) >> (64 - set_bits));
    }
    const Device *devices() const { return devices_.get(); }
    const Set *sets() const { return sets_.get(); }

  private:
    static constexpr u64 generations = u64{1} << 24; // of devices, in a key
    static constexpr std::size_t domains = std::size_t{1} << 16;
    // More pages than this are dropped by dropping their domain.
    static constexpr u64 pages_by_hand = 64;

    void bump_devices();
    void clear();

    std::unique_ptr<Device[]> devices_;
    std::unique_ptr<Set[]> sets_;
    std::vector<u16> domain_generation_;
    std::vector<bool> has_large_; // a domain has pages that are fractions of larger ones
    std::vector<bool> has_first_; // a domain has pages of first stages
    u64 device_generation_ = 1;
    bool used_ = false; // something was added since all was dropped
};

} // namespace dmarewind
