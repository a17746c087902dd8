// Batches eight requests at a time, where the processor has wide registers.
//
// A kernel answers what is plain: all eight requests of one kind, through entries of one shape,
// with nothing to fault on and no A/D bit to set. It leaves the rest to the careful code, which
// gives every fault its reason; so its checks decide speed, never the answer.
#pragma once

#include "fast_tlb.hpp"
#include "known_devices.hpp"
#include "lookup.hpp"

namespace dmarewind {

struct BatchRequests {
    std::size_t count;
    const u16 *sids;
    const u32 *pasids; // no_pasid for none
    const u64 *iovas;
    const u8 *kinds;                // AccessKind
    u64 *addresses;                 // out: where the request leads, 0 on a fault
    u8 *statuses;                   // out: 0 or the fault reason
    const u8 *attributes = nullptr; // as in Request; nullptr: none
};

// What of a request decides how to walk, beside the entries it meets.
struct Manner {
    u8 kind = 0;
    u8 attributes = 0; // none, or is_privileged

    bool operator==(const Manner &) const = default;
};

// What a kernel needs of a unit, and what it learnt of the entries it met last.
struct KernelState {
    explicit KernelState(const Memory::View &guest)
        : view(&guest), memory(guest.base()), window(guest.window()) {}

    const Memory::View *view;
    const std::byte *memory;
    u64 window; // a power of two
    const Lookup *lookup = nullptr;
    KnownDevices *devices = nullptr; // all of the shape below
    unsigned host_address_width = 0;

    // The paging root that entries of this shape describe; rules is nullptr for pass-through.
    bool known = false;
    u64 shape_low = 0;
    u64 shape_high = 0;
    Manner manner;
    PagingRoot root;

    // An entry is of this shape, and sound, when (word ^ value) & mask is zero in all words: legacy
    // context entries, PASID entries.
    u64 shape_value[layout::PasidEntry::words] = {};
    u64 shape_mask[layout::PasidEntry::words] = {};

    // One stage of page tables. An entry of a level is plain when (entry ^ value) & mask is zero;
    // by level and leaf.
    struct Stage {
        struct Plain {
            u64 mask;
            u64 value;
        };

        const WalkRules *rules = nullptr;
        unsigned levels = 0;
        unsigned input_shift = 0; // an input address is plain when nothing is left above this
        Plain plain[max_levels + 1][2];
    };
    Stage stage;      // the only one, or the first
    Stage host_table; // the second stage under it, for its tables
    Stage host_data;  // and for what its leaves say
};

// What of a PASID entry decides how to walk: the rest of its words 0 and 2 is looked at or ignored.
inline constexpr u64 pasid_shape_low =
    layout::PasidEntry::pgtt.mask() | layout::PasidEntry::aw.mask() |
    layout::PasidEntry::ssee.mask() | layout::PasidEntry::ssade.mask();
inline constexpr u64 pasid_shape_high =
    layout::PasidEntry::fspm.mask() | layout::PasidEntry::nxe.mask() |
    layout::PasidEntry::eafe.mask() | layout::PasidEntry::ere.mask() |
    layout::PasidEntry::sre.mask() | layout::PasidEntry::wpe.mask() |
    layout::PasidEntry::smep.mask();

// Find out what a request's entries mean, where they are of a new shape; false: they are of the one
// that is known, or fault. For when a kernel met something that is not plain.
bool learn(KernelState &state, const BatchRequests &requests, std::size_t at, Manner manner);

// Answer the requests [first, end) eight at a time; return where this stopped, at eight that are
// not plain or at fewer than eight.
using ColdKernel = std::size_t (*)(KernelState &state, const BatchRequests &requests,
                                   std::size_t first, std::size_t end);
using WarmKernel = std::size_t (*)(const FastTlb &tlb, unsigned host_address_width,
                                   const BatchRequests &requests, std::size_t first,
                                   std::size_t end);

struct Kernels {
    ColdKernel cold = nullptr;
    WarmKernel warm = nullptr;
};

// The best the processor can run; without wide, the best any can.
Kernels kernels(bool wide);

namespace avx512 {
Kernels kernels();
}
namespace plain {
Kernels kernels();
}

} // namespace dmarewind
