#include "replay.hpp"

namespace dmarewind {

using layout::Tag;

namespace {

// How many of the expected observations one that was seen is compared with.
constexpr std::size_t lookahead = 64;
constexpr u32 source_id_last = 0xffff;

} // namespace

Replay::Replay(UnitConfig config, std::size_t findings_kept, std::size_t bytes_kept)
    : ReplayBase(findings_kept, bytes_kept), unit_(std::move(config)),
      compared_bits_(
          ~(unit_.config().dialect.fault_record_ignored | layout::FaultRecordRegister::f.mask())) {}

std::optional<Damage> Replay::feed(std::span<const std::byte> raw,
                                   const std::function<void()> &stop) {
    return each_event(raw, stop, [this](const Event &event) -> const char * {
        // An endpoint id of a virtio-iommu can be larger.
        if (static_cast<Tag>(event.tag) == Tag::access && event.sid > source_id_last)
            return "source id is not a 16-bit number";
        apply(event);
        return nullptr;
    });
}

void Replay::apply(const Event &event) {
    unit_.event = counters_.events;
    switch (static_cast<Tag>(event.tag)) {
    case Tag::store:
        unit_.store(event.address, event.size, event.value);
        break;
    case Tag::snapshot:
        unit_.snapshot(event.address, event.data);
        break;
    case Tag::reg_write:
        flush();
        unit_.write_register(static_cast<u32>(event.address), event.size, event.value);
        break;
    case Tag::reg_read:
        flush();
        register_read(event);
        break;
    case Tag::access:
        flush();
        access(event);
        break;
    case Tag::interrupt_request:
        flush();
        interrupt(event);
        break;
    case Tag::page_request:
        flush();
        page_request(event);
        break;
    case Tag::reset:
        flush();
        unit_.reset();
        lost_ = false;
        break;
    case Tag::gap:
        // What was lost may be a store, a command or an answer: nothing can be judged until a
        // reset.
        expected_.clear();
        lost_ = true;
        break;
    case Tag::descriptor:
        ++counters_.descriptors;
        observe(Observation::descriptor(event.word, event.words));
        break;
    case Tag::fault_record:
        ++counters_.fault_records;
        observe(Observation::fault_record(event.address, event.word[0], event.word[1]));
        break;
    case Tag::status_write:
        ++counters_.status_writes;
        observe(Observation::status_write(event.address, event.value));
        break;
    case Tag::interrupt:
        ++counters_.interrupts;
        observe(Observation::interrupt(event.address, event.value));
        break;
    case Tag::page_request_record:
        ++counters_.device_messages;
        observe(Observation::page_request_record(event.address, event.word));
        break;
    case Tag::page_response:
        ++counters_.device_messages;
        observe(Observation::page_response(event.sid, event.pasid, event.address, event.value));
        break;
    case Tag::device_tlb_message:
        ++counters_.device_messages;
        observe(Observation::device_tlb(event.sid, event.pasid, event.address, event.value,
                                        event.flags != 0));
        break;
    case Tag::release:
    case Tag::clock:
    // Of a virtio-iommu:
    case Tag::request:
    case Tag::fault_report:
    case Tag::features:
    case Tag::config_space:
    case Tag::device_reset:
    case Tag::endpoint:
        break;
    }
    report_all(unit_.findings);
    expect(unit_.emitted);
    ++counters_.events;
}

void Replay::access(const Event &event) {
    count_outcome(event.outcome);
    if (lost_) {
        counters_.unjudged += event.outcome.type != OutcomeType::none;
        return;
    }
    unit_.access({event.sid, event.pasid, event.address, static_cast<AccessKind>(event.kind),
                  event.attributes},
                 event.outcome);
    if (event.outcome.type != OutcomeType::none && unit_.findings.empty())
        ++counters_.agreed;
    report_all(unit_.findings);
}

void Replay::interrupt(const Event &event) {
    const bool known = event.outcome.type != OutcomeType::none;
    counters_.interrupt_requests += known;
    if (lost_) {
        counters_.unjudged += known;
        return;
    }
    unit_.interrupt({event.sid, event.address, static_cast<u32>(event.value)}, event.outcome);
    if (known && unit_.findings.empty())
        ++counters_.agreed;
    report_all(unit_.findings);
}

void Replay::page_request(const Event &event) {
    ++counters_.page_requests;
    if (!lost_)
        unit_.page_request(
            {event.sid, event.pasid, event.address, event.flags, static_cast<u32>(event.value)});
}

void Replay::register_read(const Event &event) {
    if (event.has_value)
        unit_.adopt_read(static_cast<u32>(event.address), event.size, event.value);
    const u64 now = unit_.read_register(static_cast<u32>(event.address), event.size);
    if (!event.has_value)
        return;
    ++counters_.register_reads;
    if (lost_) {
        ++counters_.unjudged;
        return;
    }
    const u64 open = unit_.undefined(static_cast<u32>(event.address), event.size);
    if (((now ^ event.value) & ~open) == 0) {
        ++counters_.agreed;
        return;
    }
    report_register("register", event.value, now);
}

// Match an observation with what the unit did; adopt it when the unit did not.
void Replay::observe(const Observation &seen) {
    if (lost_) {
        ++counters_.unjudged;
        unit_.adopt(seen);
        return;
    }
    const std::size_t looked_at = std::min(expected_.size(), lookahead);
    for (std::size_t index = 0; index < looked_at; ++index) {
        if (!same(expected_[index].observation, seen))
            continue;
        for (std::size_t i = 0; i < index; ++i) {
            missing(expected_.front());
            expected_.pop_front();
        }
        expected_.pop_front();
        ++counters_.agreed;
        return;
    }
    report_observation(seen);
    // All that is left are consequences of a queue error the recorded unit did not have.
    if (seen.kind == Tag::descriptor && unit_.queue().stopped())
        expected_.clear();
    unit_.adopt(seen);
}

bool Replay::same(const Observation &expected, const Observation &seen) const {
    if (expected.kind != seen.kind)
        return false;
    if (seen.kind == Tag::descriptor)
        // A capture of a 256-bit queue may carry only the lower two quadwords.
        return expected.words >= seen.words &&
               std::equal(seen.word, seen.word + seen.words, expected.word);
    if (seen.kind == Tag::fault_record)
        return expected.address == seen.address && expected.word[0] == seen.word[0] &&
               ((expected.word[1] ^ seen.word[1]) & compared_bits_) == 0;
    return expected == seen;
}

} // namespace dmarewind
