// The tag of cached translations.
#pragma once

#include "walk.hpp"

namespace dmarewind {

// What IOTLB and paging-structure entries are tagged with, packed into one number.
class CacheTag {
  public:
    constexpr CacheTag() = default;
    constexpr CacheTag(u32 domain, u32 pasid, u8 stage)
        : packed_(u64{domain} << 32 | u64{pasid == no_pasid ? 0 : pasid + 1} << 8 | stage) {}
    explicit CacheTag(const PagingRoot &root) : CacheTag(root.domain, root.pasid, root.stage()) {}
    static constexpr CacheTag second_stage(u32 domain) {
        return {domain, no_pasid, static_cast<u8>(Role::second_stage)};
    }
    static constexpr CacheTag first_stage(u32 domain, u32 pasid) {
        return {domain, pasid, static_cast<u8>(Role::first_stage)};
    }
    static constexpr CacheTag nested(u32 domain, u32 pasid) {
        return {domain, pasid, nested_stage};
    }

    static constexpr CacheTag unpack(u64 packed) {
        CacheTag tag;
        tag.packed_ = packed;
        return tag;
    }

    constexpr bool of_first_stage() const { return (packed_ >> 8 & 0xff'ffff) != 0; }
    constexpr u32 domain() const { return static_cast<u32>(packed_ >> 32); }
    constexpr u64 packed() const { return packed_; } // its order is (domain, PASID, stage)
    constexpr bool operator==(const CacheTag &) const = default;

  private:
    u64 packed_ = 0;
};

} // namespace dmarewind
