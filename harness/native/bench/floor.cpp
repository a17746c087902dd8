#include "floor.hpp"

namespace dmarewind::bench {
namespace {

constexpr u64 pointer_mask = 0xf'ffff'ffff'f000;

u64 load(const std::byte *memory, u64 address) {
    u64 value;
    std::memcpy(&value, memory + address, sizeof value);
    return value;
}

template <unsigned Levels> inline u64 levels_floor(const std::byte *memory, u64 table, u64 iova) {
    if constexpr (Levels == 0) {
        asm volatile("" : : "r"(table)); // the load must not vanish
        return iova;
    } else {
        for (unsigned level = Levels; level != 0; --level) {
            const unsigned shift = 12 + 9 * (level - 1);
            table = load(memory, table + 8 * (iova >> shift & 511)) & pointer_mask;
        }
        return table | (iova & 4095);
    }
}

template <unsigned Levels> void legacy(const std::byte *memory, u64 root, const Stream &stream) {
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 sid = stream.sids[i];
        const u64 context = load(memory, root + 16 * (sid >> 8)) & pointer_mask;
        const u64 table = load(memory, context + 16 * (sid & 0xff)) & pointer_mask;
        stream.addresses[i] = levels_floor<Levels>(memory, table, stream.iovas[i]);
    }
}

template <unsigned Levels>
void scalable(const std::byte *memory, u64 root, unsigned qword, const Stream &stream) {
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 sid = stream.sids[i];
        const u64 pasid = stream.pasids[i];
        const u64 context = load(memory, root + 8 * (sid >> 7)) & pointer_mask;
        const u64 directory = load(memory, context + 32 * (sid & 0x7f)) & pointer_mask;
        const u64 entries = load(memory, directory + 8 * (pasid >> 6)) & pointer_mask;
        const u64 table = load(memory, entries + 64 * (pasid & 63) + 8 * qword) & pointer_mask;
        stream.addresses[i] = levels_floor<Levels>(memory, table, stream.iovas[i]);
    }
}

} // namespace

void legacy_floor(const std::byte *memory, u64 root, unsigned levels, const Stream &stream) {
    switch (levels) {
    case 0:
        return legacy<0>(memory, root, stream);
    case 3:
        return legacy<3>(memory, root, stream);
    default:
        return legacy<4>(memory, root, stream);
    }
}

void scalable_floor(const std::byte *memory, u64 root, unsigned levels, unsigned qword,
                    const Stream &stream) {
    switch (levels) {
    case 0:
        return scalable<0>(memory, root, qword, stream);
    case 4:
        return scalable<4>(memory, root, qword, stream);
    default:
        return scalable<5>(memory, root, qword, stream);
    }
}

void warm_floor(const FastTlb &tlb, bool pages, const Stream &stream) {
    const FastTlb::Device *devices = tlb.devices();
    const FastTlb::Set *sets = tlb.sets();
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 iova = stream.iovas[i];
        const u64 key = tlb.device_key(stream.sids[i], stream.pasids[i]);
        const u64 tag = devices[FastTlb::device_slot(key)].tag;
        if (!pages) {
            asm volatile("" : : "r"(tag));
            stream.addresses[i] = iova;
            continue;
        }
        const u64 target = sets[FastTlb::set_slot(tag, iova >> 12)].way[0].target;
        stream.addresses[i] = (target & ~u64{4095}) | (iova & 4095);
    }
}

} // namespace dmarewind::bench
