#include "floor.hpp"

#include <bit>
#include <cstring>
#include <set>

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

inline u64 pasid_entry(const std::byte *memory, u64 root, u64 sid, u64 pasid) {
    const u64 context = load(memory, root + 8 * (sid >> 7)) & pointer_mask;
    const u64 directory = load(memory, context + 32 * (sid & 0x7f)) & pointer_mask;
    const u64 entries = load(memory, directory + 8 * (pasid >> 6)) & pointer_mask;
    return entries + 64 * (pasid & 63);
}

template <unsigned Levels>
void scalable(const std::byte *memory, u64 root, unsigned qword, const Stream &stream) {
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 entry = pasid_entry(memory, root, stream.sids[i], stream.pasids[i]);
        const u64 table = load(memory, entry + 8 * qword) & pointer_mask;
        stream.addresses[i] = levels_floor<Levels>(memory, table, stream.iovas[i]);
    }
}

template <unsigned Levels> void nested(const std::byte *memory, u64 root, const Stream &stream) {
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 iova = stream.iovas[i];
        const u64 entry = pasid_entry(memory, root, stream.sids[i], stream.pasids[i]);
        const u64 host = load(memory, entry) & pointer_mask;
        u64 table = load(memory, entry + 16) & pointer_mask;
        for (unsigned level = Levels; level != 0; --level) {
            const unsigned shift = 12 + 9 * (level - 1);
            const u64 place = levels_floor<Levels>(memory, host, table + 8 * (iova >> shift & 511));
            table = load(memory, place) & pointer_mask;
        }
        stream.addresses[i] = levels_floor<Levels>(memory, host, table | (iova & 4095));
    }
}

constexpr unsigned page_number_bits = 40; // more than any benchmark's addresses have

// Source id and PASID, of which none is one more; never 0.
u64 requester_key(const Stream &stream, std::size_t i) {
    return u64{1} << 37 | u64{stream.sids[i]} << 21 | (stream.pasids[i] & 0x1f'ffff);
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

void nested_floor(const std::byte *memory, u64 root, unsigned levels, const Stream &stream) {
    levels == 4 ? nested<4>(memory, root, stream) : nested<5>(memory, root, stream);
}

void HashFloor::Table::reserve(std::size_t keys) {
    constexpr std::size_t room = 4;
    const auto bits = static_cast<unsigned>(std::bit_width(keys * room - 1));
    slots_.resize(std::size_t{1} << bits);
    shift_ = 64 - bits;
}

void HashFloor::Table::add(u64 key, u64 value) {
    std::size_t at = slot(key);
    while (slots_[at].key != 0 && slots_[at].key != key)
        at = (at + 1) % slots_.size();
    slots_[at] = {key, value};
}

inline u64 HashFloor::Table::find(u64 key) const {
    std::size_t at = slot(key);
    while (slots_[at].key != key)
        at = (at + 1) % slots_.size();
    return slots_[at].value;
}

HashFloor::HashFloor(const Stream &answered, bool shared, bool pages) : pages_(pages) {
    std::set<u64> requesters;
    std::set<u64> places;
    for (const bool known : {false, true}) {
        if (known) {
            spaces_.reserve(requesters.size());
            places_.reserve(places.size());
        }
        for (std::size_t i = 0; i < answered.count; ++i) {
            const u64 requester = requester_key(answered, i);
            const u64 space = u64{shared ? 1 : answered.pasids[i] + 1} << page_number_bits;
            const u64 place = space | answered.iovas[i] >> 12;
            requesters.insert(requester);
            places.insert(place);
            if (known) {
                spaces_.add(requester, space);
                places_.add(place, answered.addresses[i] & ~u64{4095});
            }
        }
    }
}

void HashFloor::run(const Stream &stream) const {
    for (std::size_t i = 0; i < stream.count; ++i) {
        const u64 iova = stream.iovas[i];
        const u64 space = spaces_.find(requester_key(stream, i));
        if (pages_) {
            stream.addresses[i] = places_.find(space | iova >> 12) | (iova & 4095);
            continue;
        }
        asm volatile("" : : "r"(space)); // the search must not vanish
        stream.addresses[i] = iova;
    }
}

} // namespace dmarewind::bench
