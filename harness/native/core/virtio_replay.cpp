#include "virtio_replay.hpp"

namespace dmarewind::virtio {

using layout::Tag;

namespace {

Bytes bytes_of(std::span<const std::byte> data) {
    return {reinterpret_cast<const u8 *>(data.data()), data.size()};
}

} // namespace

std::optional<Damage> Replay::feed(std::span<const std::byte> raw,
                                   const std::function<void()> &stop) {
    return each_event(raw, stop, [this](const Event &event) -> const char * {
        apply(event);
        return nullptr;
    });
}

void Replay::apply(const Event &event) {
    unit_.set_event(counters_.events);
    switch (static_cast<Tag>(event.tag)) {
    case Tag::fault_report:
        ++counters_.fault_records;
        observe(event);
        break;
    case Tag::access:
        forget_expected();
        access(event);
        break;
    case Tag::request:
        forget_expected();
        request(event);
        break;
    case Tag::reg_read:
        forget_expected();
        register_read(event);
        break;
    case Tag::reg_write:
        forget_expected();
        unit_.write_register(event.address, event.size, event.value);
        break;
    case Tag::config_space:
        forget_expected();
        unit_.config_space(bytes_of(event.data));
        break;
    case Tag::features:
        unit_.features(event.address, event.value);
        break;
    case Tag::endpoint:
        unit_.endpoint(event.sid, {event.regions, event.region_count});
        break;
    case Tag::device_reset:
        forget_expected();
        unit_.device_reset();
        break;
    case Tag::reset:
        forget_expected();
        unit_.reset();
        lost_ = false;
        break;
    case Tag::gap:
        // What was lost may be a request: nothing can be judged until a reset.
        expected_.clear();
        lost_ = true;
        break;
    // Of a VT-d unit, or of any:
    case Tag::store:
    case Tag::snapshot:
    case Tag::release:
    case Tag::descriptor:
    case Tag::fault_record:
    case Tag::status_write:
    case Tag::interrupt:
    case Tag::interrupt_request:
    case Tag::page_request:
    case Tag::page_request_record:
    case Tag::page_response:
    case Tag::device_tlb_message:
    case Tag::clock:
        break;
    }
    report_all(unit_.findings);
    ++counters_.events;
}

void Replay::access(const Event &event) {
    count_outcome(event.outcome);
    const bool known = event.outcome.type != OutcomeType::none;
    if (lost_ || !known) {
        counters_.unjudged += known;
        any_report_ = !lost_;
        return;
    }
    unit_.access(event.sid, event.address, static_cast<AccessKind>(event.kind), event.outcome);
    any_report_ = !unit_.findings.empty();
    counters_.agreed += unit_.findings.empty();
    report_all(unit_.findings);
    expect(unit_.emitted);
}

void Replay::request(const Event &event) {
    ++counters_.requests;
    std::optional<Bytes> answer;
    if (event.has_value)
        answer = bytes_of(event.answer);
    const bool permits = !unit_.request(bytes_of(event.data), event.room, answer).empty();
    const bool agrees = unit_.findings.empty();
    report_all(unit_.findings);
    if (!event.has_value)
        return;
    if (lost_ || (!permits && agrees))
        ++counters_.unjudged;
    else
        counters_.agreed += agrees;
}

void Replay::register_read(const Event &event) {
    if (!event.has_value)
        return;
    ++counters_.register_reads;
    if (lost_) {
        ++counters_.unjudged;
        return;
    }
    const u64 now = unit_.read_register(event.address, event.size);
    if (now == event.value)
        ++counters_.agreed;
    else
        report_register("config", event.value, now);
}

void Replay::observe(const Event &event) {
    if (lost_) {
        ++counters_.unjudged;
        return;
    }
    if (any_report_) {
        any_report_ = false;
        return;
    }
    const Observation seen =
        Observation::fault_report(event.value, event.flags, event.sid, event.address);
    if (!expected_.empty() && unit_.same_report(expected_.front().observation, seen)) {
        expected_.pop_front();
        ++counters_.agreed;
        return;
    }
    report_observation(seen);
}

void Replay::forget_expected() {
    any_report_ = false;
    flush();
}

} // namespace dmarewind::virtio
