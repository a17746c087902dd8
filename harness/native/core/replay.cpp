#include "replay.hpp"

namespace dmarewind {

using layout::Tag;

namespace {

const char *subject_of(const Observation &seen) {
    switch (seen.kind) {
    case Tag::descriptor:
        return "descriptor";
    case Tag::fault_record:
        return "fault-record";
    case Tag::status_write:
        return "status-write";
    default:
        return "interrupt";
    }
}

// Events between two questions whether to stop.
constexpr u64 events_per_pause = 256;
// How many of the expected observations one that was seen is compared with.
constexpr std::size_t lookahead = 64;
constexpr u32 source_id_last = 0xffff;

} // namespace

Replay::Replay(UnitConfig config, std::size_t findings_kept)
    : unit_(std::move(config)), findings_kept_(findings_kept),
      compared_bits_(
          ~(unit_.config().dialect.fault_record_ignored | layout::FaultRecordRegister::f.mask())) {}

std::optional<Damage> Replay::feed(std::span<const std::byte> raw,
                                   const std::function<void()> &stop) {
    EventReader reader(raw);
    Event event;
    for (;;) {
        if (counters_.events % events_per_pause == 0)
            stop();
        const std::size_t offset = reader.offset();
        switch (reader.next(event)) {
        case ReadResult::event:
            // An endpoint id of a virtio-iommu can be larger.
            if (static_cast<Tag>(event.tag) == Tag::access && event.sid > source_id_last)
                return Damage{counters_.events, offset, "source id is not a 16-bit number"};
            apply(event);
            break;
        case ReadResult::end:
            return std::nullopt;
        case ReadResult::damaged:
            return Damage{counters_.events, offset, reader.problem()};
        }
    }
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
    report_unit_findings();
    if (!lost_)
        for (const Observation &seen : unit_.emitted)
            expected_.push_back({counters_.events, seen});
    unit_.emitted.clear();
    ++counters_.events;
}

void Replay::report_unit_findings() {
    if (unit_.findings.empty())
        return;
    for (Finding &finding : unit_.findings)
        report(std::move(finding));
    unit_.findings.clear();
}

void Replay::report(Finding finding) {
    if (lost_)
        return;
    ++counters_.divergences;
    if (findings_.size() < findings_kept_)
        findings_.push_back(std::move(finding));
}

void Replay::access(const Event &event) {
    if (event.outcome.type == OutcomeType::translation)
        ++counters_.translations;
    else if (event.outcome.type == OutcomeType::fault)
        ++counters_.faults;
    if (lost_) {
        counters_.unjudged += event.outcome.type != OutcomeType::none;
        return;
    }
    unit_.access({event.sid, event.pasid, event.address, static_cast<AccessKind>(event.kind)},
                 event.outcome);
    if (event.outcome.type != OutcomeType::none && unit_.findings.empty())
        ++counters_.agreed;
    report_unit_findings();
}

void Replay::register_read(const Event &event) {
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
    Finding finding;
    finding.event = static_cast<Number>(counters_.events);
    finding.subject = "register";
    finding.observed = Compared(event.value);
    finding.permitted.emplace_back(now);
    report(std::move(finding));
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
    Finding finding;
    finding.event = static_cast<Number>(counters_.events);
    finding.subject = subject_of(seen);
    finding.observed = Compared(seen);
    if (!expected_.empty() && expected_.front().observation.kind == seen.kind) {
        finding.permitted.emplace_back(expected_.front().observation);
        expected_.pop_front();
    }
    report(std::move(finding));
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

void Replay::missing(const Expected &expected) {
    Finding finding;
    finding.event = static_cast<Number>(expected.cause);
    finding.subject = subject_of(expected.observation);
    finding.permitted.emplace_back(expected.observation);
    report(std::move(finding));
}

void Replay::flush() {
    while (!expected_.empty()) {
        missing(expected_.front());
        expected_.pop_front();
    }
}

} // namespace dmarewind
