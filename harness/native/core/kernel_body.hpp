// The body of the kernel for wide registers; kernel_avx512.cpp compiles it.
//
// Everything it calls must be inlined or compiled elsewhere (learn): an inline function of another
// header that the compiler kept out of line here could be the copy the whole program gets, and
// processors without these instructions would meet them.
#pragma once

#include "kernel_lookup.hpp"
#include "kernel_requests.hpp"
#include "kernel_walk.hpp"
#include "kernel_warm.hpp"

namespace dmarewind {
namespace {

// Keep what eight requests lead to.
[[gnu::noinline]] void keep(KnownDevices &devices, Lanes slots, Lanes keys, Lanes table,
                            Lanes host) {
    for (unsigned i = 0; i < lane_count; ++i) {
        const std::size_t slot = slots[i] / sizeof(u64);
        devices.keys[slot] = keys[i];
        devices.tables[slot] = table[i];
        devices.hosts[slot] = host[i];
    }
}

// Find the tables of eight requests: known, or looked up in memory.
template <bool Legacy>
[[gnu::always_inline]] inline void find_tables(const KernelState &state,
                                               const BatchRequests &requests, std::size_t first,
                                               Lanes &table, Lanes &host, Lanes &bad) {
    KnownDevices &devices = *state.devices;
    const bool asked = devices.asked();
    Lanes slots{};
    Lanes keys{};
    if (asked) {
        const Lanes sids = widen(requests.sids + first);
        const Lanes pasids = widen(requests.pasids + first);
        slots = ((sids ^ pasids << KnownDevices::slot_pasid) & u64{KnownDevices::slots - 1}) *
                sizeof(u64);
        keys = sids << KnownDevices::key_sid | pasids | devices.generation();
        if (!any(gather(devices.keys, slots) ^ keys)) {
            devices.found();
            if (state.root.rules != nullptr)
                table = gather(devices.tables, slots);
            if (state.root.nested())
                host = gather(devices.hosts, slots);
            return;
        }
        devices.missed();
    }
    if constexpr (Legacy)
        find_legacy(state, requests, first, table, bad);
    else
        find_scalable(state, requests, first, table, host, bad);
    if (asked && !any(bad))
        keep(devices, slots, keys, table, host);
}

// Answer eight requests whose manner is the one that is known.
template <bool Legacy>
[[gnu::always_inline]] inline bool cold_eight(const KernelState &state,
                                              const BatchRequests &requests, std::size_t first) {
    const Lanes iovas = load_lanes(requests.iovas + first);
    if (in_interrupt_range(iovas)) [[unlikely]]
        return false;
    Lanes bad{};
    Lanes table{};
    Lanes host{};
    find_tables<Legacy>(state, requests, first, table, host, bad);
    u64 *out = requests.addresses + first;
    if (state.root.rules == nullptr) {
        bad |= iovas >> std::min(state.host_address_width, 63U);
        store_lanes(out, iovas);
    } else if (!state.root.nested()) {
        store_lanes(out, walk_stage(state, state.stage, table, iovas, bad));
    } else if (any(bad) || !walk_nested(state, table, host, iovas, out)) [[unlikely]] {
        return false;
    }
    if (any(bad)) [[unlikely]]
        return false;
    std::memset(requests.statuses + first, 0, lane_count);
    return true;
}

// Have the context entries of eight requests fetched that come next.
[[gnu::always_inline]] inline void fetch_contexts(const KernelState &state, const u16 *sids) {
    using namespace layout;
    const Lanes sid = widen(sids);
    const Lanes half = (sid >> 7) * sizeof(u64) + state.lookup->root_table();
    const Lanes context = (gather_shared(state.memory, half) &
                           (ScalableRootEntry::lctp.mask() & (state.window - 1))) |
                          (sid & u64{0x7f}) * ScalableContextEntry::size;
    for (unsigned i = 0; i < lane_count; ++i)
        __builtin_prefetch(state.memory + context[i]);
}

// Answer requests of the known manner until some are not plain.
template <bool Legacy>
[[gnu::noinline]] std::size_t cold_run(const KernelState &state, const BatchRequests &requests,
                                       std::size_t first, std::size_t end) {
    while (end - first >= lane_count) {
        Manner manner;
        if (!manner_of_eight(requests, first, manner) || state.manner != manner) [[unlikely]]
            break;
        // With few devices their entries are known; with many, three entries depend on each other.
        if constexpr (!Legacy)
            if (end - first >= 2 * lane_count && state.devices->idle())
                fetch_contexts(state, requests.sids + first + lane_count);
        if (!cold_eight<Legacy>(state, requests, first)) [[unlikely]]
            break;
        first += lane_count;
    }
    return first;
}

std::size_t cold(KernelState &state, const BatchRequests &requests, std::size_t first,
                 std::size_t end) {
    const auto run = state.lookup->legacy() ? cold_run<true> : cold_run<false>;
    for (;;) {
        if (state.known)
            first = run(state, requests, first, end);
        Manner manner;
        if (end - first < lane_count || !manner_of_eight(requests, first, manner) ||
            !walkable(manner) || !learn(state, requests, first, manner))
            return first;
    }
}

std::size_t warm(const FastTlb &tlb, unsigned host_address_width, const BatchRequests &requests,
                 std::size_t first, std::size_t end) {
    while (end - first >= lane_count && warm_eight(tlb, host_address_width, requests, first))
        first += lane_count;
    return first;
}

} // namespace
} // namespace dmarewind
