// One event of a trace, decoded: a plain struct that is reused from event to event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace dmarewind {

// PASIDs have 20 bits; this stands for a request without one.
inline constexpr std::uint32_t no_pasid = 0xffff'ffff;

enum class OutcomeType : std::uint8_t { none, translation, fault };

// What a request was answered: a page's base and mask (size - 1), or a fault reason.
struct Outcome {
    OutcomeType type = OutcomeType::none;
    std::uint64_t address = 0; // translation: base of the page
    std::uint64_t mask = 0;    // translation: size of the page less one
    std::uint64_t reason = 0;  // fault

    bool operator==(const Outcome &) const = default;
};

// The members an event's tag does not name hold whatever the event before left in them.
struct Event {
    std::uint8_t tag = 0;
    bool has_value = false;          // RegRead: the value was captured
    std::uint8_t role = 0;           // Snapshot
    std::uint8_t kind = 0;           // Access
    std::uint32_t size = 0;          // RegWrite, RegRead, Store
    std::uint32_t level = 0;         // Snapshot
    std::uint32_t sid = 0;           // Access
    std::uint32_t pasid = 0;         // Access
    std::uint64_t address = 0;       // Store, Snapshot, Release, StatusWrite, Interrupt
                                     // RegWrite, RegRead: offset; Access: IOVA; FaultRecord: index
    std::uint64_t value = 0;         // RegWrite, RegRead, Store, StatusWrite, Interrupt, Clock
    std::uint32_t words = 0;         // Descriptor: 2 or 4
    std::uint64_t word[4] = {};      // Descriptor; FaultRecord: low and high quadword
    Outcome outcome;                 // Access
    std::span<const std::byte> data; // Snapshot: content; Gap: reason
};

} // namespace dmarewind
