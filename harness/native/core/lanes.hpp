// Eight 64-bit lanes. Included by the kernels only, each compiled for one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace dmarewind {
namespace {

inline constexpr unsigned lane_count = 8;

using Lanes = std::uint64_t __attribute__((vector_size(64)));
using SignedLanes = std::int64_t __attribute__((vector_size(64)));

inline Lanes all(std::uint64_t value) {
    return Lanes{} + value;
}

inline Lanes load_lanes(const void *from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store_lanes(void *to, Lanes lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}

// Eight narrower numbers, widened.
inline Lanes widen(const std::uint16_t *from) {
    using Packed = std::uint16_t __attribute__((vector_size(16)));
    Packed packed;
    std::memcpy(&packed, from, sizeof packed);
    return __builtin_convertvector(packed, Lanes);
}
inline Lanes widen(const std::uint32_t *from) {
    using Packed = std::uint32_t __attribute__((vector_size(32)));
    Packed packed;
    std::memcpy(&packed, from, sizeof packed);
    return __builtin_convertvector(packed, Lanes);
}

// The quadwords at base + offset of each lane.
inline Lanes gather(const void *base, Lanes offsets) {
#if defined(__AVX512F__)
    // The instruction waits for what its destination held before. Compilers leave out a zero that
    // is overwritten in all lanes, so that eight requests would wait for the eight before them.
    __m512i fresh = _mm512_setzero_si512();
    asm("" : "+v"(fresh));
    return reinterpret_cast<Lanes>(
        _mm512_mask_i64gather_epi64(fresh, 0xff, reinterpret_cast<__m512i>(offsets), base, 1));
#else
    Lanes out;
    for (unsigned i = 0; i < lane_count; ++i) {
        std::uint64_t value;
        std::memcpy(&value, static_cast<const char *>(base) + offsets[i], sizeof value);
        out[i] = value;
    }
    return out;
#endif
}

// Whether any bit of any lane is set.
inline bool any(Lanes lanes) {
#if defined(__AVX512F__)
    const __m512i value = reinterpret_cast<__m512i>(lanes);
    return _mm512_test_epi64_mask(value, value) != 0;
#else
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < lane_count; ++i)
        bits |= lanes[i];
    return bits != 0;
#endif
}

// All ones where true.
inline Lanes mask(SignedLanes truth) {
    return reinterpret_cast<Lanes>(truth);
}

inline Lanes select(Lanes chosen, Lanes yes, Lanes no) {
    return (chosen & yes) | (~chosen & no);
}

} // namespace
} // namespace dmarewind
