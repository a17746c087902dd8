// What a unit is seen doing in answer to software, and what replay reports about it.
#pragma once

#include "event.hpp"
#include "layout.hpp"
#include "translator.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace dmarewind {

// A Descriptor, FaultRecord, StatusWrite, Interrupt, FaultReport, PageRequestRecord, PageResponse
// or DeviceTlbMessage.
struct Observation {
    layout::Tag kind = layout::Tag::reset;
    u32 words = 0; // Descriptor: 2 or 4
    // Descriptor, PageRequestRecord; FaultRecord: low and high quadword; FaultReport: flags,
    // endpoint; PageResponse, DeviceTlbMessage: source id, PASID or no_pasid; DeviceTlbMessage:
    // whether it is for every PASID
    u64 word[4] = {};
    u64 address = 0; // StatusWrite, Interrupt, FaultReport, PageRequestRecord, DeviceTlbMessage
                     // FaultRecord: index; PageResponse: group
    u64 value = 0;   // StatusWrite; Interrupt: data; FaultReport: reason; PageResponse: code
                     // DeviceTlbMessage: mask

    bool operator==(const Observation &) const = default;

    static Observation descriptor(const u64 *word, u32 words) {
        Observation seen;
        seen.kind = layout::Tag::descriptor;
        seen.words = words;
        std::copy_n(word, words, seen.word);
        return seen;
    }
    static Observation fault_record(u64 index, u64 low, u64 high) {
        Observation seen;
        seen.kind = layout::Tag::fault_record;
        seen.address = index;
        seen.word[0] = low;
        seen.word[1] = high;
        return seen;
    }
    static Observation status_write(u64 address, u64 value) {
        return message(layout::Tag::status_write, address, value);
    }
    static Observation interrupt(u64 address, u64 data) {
        return message(layout::Tag::interrupt, address, data);
    }
    static Observation fault_report(u64 reason, u64 flags, u64 endpoint, u64 address) {
        Observation seen = message(layout::Tag::fault_report, address, reason);
        seen.word[0] = flags;
        seen.word[1] = endpoint;
        return seen;
    }
    static Observation page_request_record(u64 address, const u64 *word) {
        Observation seen = message(layout::Tag::page_request_record, address, 0);
        std::copy_n(word, layout::PageRequest::words, seen.word);
        return seen;
    }
    static Observation page_response(u64 sid, u64 pasid, u64 group, u64 code) {
        Observation seen = message(layout::Tag::page_response, group, code);
        seen.word[0] = sid;
        seen.word[1] = pasid;
        return seen;
    }
    static Observation device_tlb(u64 sid, u64 pasid, u64 address, u64 mask, bool every_pasid) {
        Observation seen = message(layout::Tag::device_tlb_message, address, mask);
        seen.word[0] = sid;
        seen.word[1] = pasid;
        seen.word[2] = every_pasid;
        return seen;
    }

  private:
    static Observation message(layout::Tag kind, u64 address, u64 value) {
        Observation seen;
        seen.kind = kind;
        seen.address = address;
        seen.value = value;
        return seen;
    }
};

using Observations = std::vector<Observation>;

enum class FindingKind : u8 {
    divergence,
    stale_use,
    stale_after_invalidation,
    unflushed,
    page_reuse
};

constexpr const char *text(FindingKind kind) {
    constexpr const char *texts[] = {"divergence", "stale-use", "stale-after-invalidation",
                                     "unflushed", "page-reuse"};
    return texts[static_cast<unsigned>(kind)];
}

// Something compared: an outcome, an observation, a register's value, bytes, or nothing.
struct Compared {
    enum class Type : u8 { none, outcome, observation, number, bytes };

    Type type = Type::none;
    Outcome outcome;
    Observation observation;
    u64 number = 0;
    std::string bytes;

    Compared() = default;
    explicit Compared(const Outcome &value) : type(Type::outcome), outcome(value) {}
    explicit Compared(const Observation &value) : type(Type::observation), observation(value) {}
    explicit Compared(u64 value) : type(Type::number), number(value) {}
    explicit Compared(std::string value) : type(Type::bytes), bytes(std::move(value)) {}
};

// One finding, with the members the model's Finding has.
struct Finding {
    Number event = 0;
    FindingKind kind = FindingKind::divergence;
    const char *subject = "";
    Compared observed;
    std::vector<Compared> permitted;
    std::vector<Step> steps;
    const char *cache = "";
    Number domain = -1;
    Number filled_by = -1;
    Number changed_by = -1;
    Number covered_by = -1;

    // The bytes of the answers that it holds.
    std::size_t size() const {
        std::size_t sum = observed.bytes.size();
        for (const Compared &one : permitted)
            sum += one.bytes.size();
        return sum;
    }
};

} // namespace dmarewind
