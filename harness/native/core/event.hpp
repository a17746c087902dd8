// One event of a trace, decoded: a plain struct that is reused from event to event.
#pragma once

#include "layout.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace dmarewind {

// PASIDs have 20 bits; this stands for a request without one.
inline constexpr std::uint32_t no_pasid = 0xffff'ffff;
// Stands for an interrupt request whose source is not known, and is not checked.
inline constexpr std::uint32_t no_source = 0xffff'ffff;

enum class OutcomeType : std::uint8_t { none, translation, fault, message, posted };

// What a request was answered: a page's base and mask (size - 1), or a fault reason. An interrupt
// is answered with a message, or posted.
struct Outcome {
    OutcomeType type = OutcomeType::none;
    std::uint64_t address = 0; // translation: base of the page; message; posted: descriptor
    std::uint64_t mask = 0; // translation: size of the page less one; message: data; posted: vector
    std::uint64_t reason = 0; // fault; posted: whether it is urgent

    bool operator==(const Outcome &) const = default;
};

// A reserved region of an endpoint.
struct Region {
    std::uint8_t subtype = 0;
    std::uint64_t start = 0;
    std::uint64_t end = 0; // the last address

    bool operator==(const Region &) const = default;
};

// The members an event's tag does not name hold whatever the event before left in them.
struct Event {
    std::uint8_t tag = 0;
    bool has_value = false;          // RegRead: the value was captured; Request: the answer was
    std::uint8_t role = 0;           // Snapshot
    std::uint8_t kind = 0;           // Access
    std::uint8_t attributes = 0;     // Access
    std::uint32_t size = 0;          // RegWrite, RegRead, Store
    std::uint32_t level = 0;         // Snapshot
    std::uint32_t sid = 0;           // Access, InterruptRequest, PageRequest, PageResponse
                                     // DeviceTlbMessage
                                     // FaultReport, Endpoint: endpoint id
    std::uint32_t flags = 0;         // FaultReport, PageRequest
                                     // DeviceTlbMessage: whether it is for every PASID
    std::uint32_t room = 0;          // Request: bytes that the device may write
    std::uint32_t pasid = 0;         // Access, PageRequest, PageResponse, DeviceTlbMessage
    std::uint64_t address = 0;       // Store, Snapshot, Release, StatusWrite, Interrupt
                                     // InterruptRequest, PageRequest, PageRequestRecord
                                     // DeviceTlbMessage; PageResponse: group
                                     // RegWrite, RegRead: offset; Access: IOVA; FaultRecord: index
                                     // FaultReport: I/O address; Features: offered
    std::uint64_t value = 0;         // RegWrite, RegRead, Store, StatusWrite, Interrupt, Clock
                                     // FaultReport: reason; Features: accepted
                                     // InterruptRequest: data; PageRequest: group
                                     // PageResponse: code; DeviceTlbMessage: mask
    std::uint32_t words = 0;         // Descriptor: 2 or 4
    std::uint64_t word[4] = {};      // Descriptor, PageRequestRecord
                                     // FaultRecord: low and high quadword
    Outcome outcome;                 // Access, InterruptRequest
    std::span<const std::byte> data; // Snapshot, ConfigSpace: content; Gap: reason
                                     // Request: what the device may read
    std::span<const std::byte> answer;     // Request
    std::uint32_t region_count = 0;        // Endpoint
    Region regions[layout::regions_limit]; // Endpoint
};

} // namespace dmarewind
