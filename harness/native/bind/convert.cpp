#include "convert.hpp"

#include <nanobind/stl/string.h>

namespace dmarewind::bind {
namespace {

template <class Range, class Convert> nb::tuple tuple_of(const Range &range, Convert convert) {
    nb::list items;
    for (const auto &item : range)
        items.append(convert(item));
    return nb::tuple(items);
}

nb::object from_compared(const Compared &value) {
    switch (value.type) {
    case Compared::Type::outcome:
        return from_outcome(value.outcome);
    case Compared::Type::observation:
        return from_observation(value.observation);
    case Compared::Type::number:
        return nb::int_(value.number);
    case Compared::Type::bytes:
        return nb::bytes(value.bytes.data(), value.bytes.size());
    default:
        return nb::none();
    }
}

nb::object from_pasid(u64 pasid) {
    if (pasid == no_pasid)
        return nb::none();
    return nb::int_(pasid);
}

u64 to_pasid(nb::handle value) {
    return value.is_none() ? u64{no_pasid} : nb::cast<u64>(value);
}

u64 number(nb::handle sequence, std::size_t index) {
    return nb::cast<u64>(sequence[index]);
}

} // namespace

nb::object from_outcome(const Outcome &outcome) {
    switch (outcome.type) {
    case OutcomeType::translation:
        return tuple("translation", outcome.address, outcome.mask);
    case OutcomeType::fault:
        return tuple("fault", outcome.reason);
    case OutcomeType::message:
        return tuple("message", outcome.address, outcome.mask);
    case OutcomeType::posted:
        return tuple("posted", outcome.address, outcome.mask, outcome.reason != 0);
    default:
        return nb::none();
    }
}

nb::tuple from_steps(std::span<const Step> steps) {
    return tuple_of(steps, [](const Step &step) {
        return tuple(static_cast<unsigned>(step.role), unsigned{step.level}, step.address,
                     step.value);
    });
}

nb::tuple from_candidate(const Candidate &candidate) {
    const std::span steps(candidate.trail.steps.data(), candidate.trail.count);
    return tuple(from_outcome(candidate.outcome), from_steps(steps), candidate.fault_disable,
                 text(candidate.cache), candidate.domain, candidate.filled_by,
                 candidate.changed_by);
}

nb::tuple from_remapping(const Remapping &remapping) {
    return tuple(from_outcome(remapping.outcome),
                 from_steps({remapping.steps, remapping.step_count}), remapping.fault_disable,
                 remapping.index, remapping.cache, remapping.filled_by, remapping.changed_by);
}

nb::tuple from_observation(const Observation &seen) {
    switch (seen.kind) {
    case layout::Tag::descriptor:
        return tuple("descriptor", tuple_of(std::span(seen.word, seen.words),
                                            [](u64 word) { return nb::int_(word); }));
    case layout::Tag::fault_record:
        return tuple("fault-record", seen.address, seen.word[0], seen.word[1]);
    case layout::Tag::status_write:
        return tuple("status-write", seen.address, seen.value);
    case layout::Tag::fault_report:
        return tuple("fault-report", seen.value, seen.word[0], seen.word[1], seen.address);
    case layout::Tag::page_request_record:
        return tuple("page-request-record", seen.address,
                     tuple_of(std::span(seen.word), [](u64 word) { return nb::int_(word); }));
    case layout::Tag::page_response:
        return tuple("page-response", seen.word[0], from_pasid(seen.word[1]), seen.address,
                     seen.value);
    case layout::Tag::device_tlb_message:
        return tuple("device-tlb", seen.word[0], from_pasid(seen.word[1]), seen.address, seen.value,
                     seen.word[2] != 0);
    default:
        return tuple("interrupt", seen.address, seen.value);
    }
}

nb::tuple from_finding(const Finding &finding) {
    return tuple(finding.event, text(finding.kind), finding.subject,
                 from_compared(finding.observed), tuple_of(finding.permitted, from_compared),
                 from_steps(finding.steps), finding.cache, finding.domain, finding.filled_by,
                 finding.changed_by, finding.covered_by);
}

Outcome to_outcome(nb::handle value) {
    Outcome outcome;
    if (value.is_none())
        return outcome;
    const auto kind = nb::cast<std::string>(value[0]);
    if (kind == "translation") {
        outcome.type = OutcomeType::translation;
        outcome.address = number(value, 1);
        outcome.mask = number(value, 2);
    } else if (kind == "fault") {
        outcome.type = OutcomeType::fault;
        outcome.reason = number(value, 1);
    } else if (kind == "message") {
        outcome.type = OutcomeType::message;
        outcome.address = number(value, 1);
        outcome.mask = number(value, 2);
    } else if (kind == "posted") {
        outcome.type = OutcomeType::posted;
        outcome.address = number(value, 1);
        outcome.mask = number(value, 2);
        outcome.reason = nb::cast<bool>(value[3]);
        if (outcome.address % layout::PostedInterruptDescriptor::size != 0 || outcome.mask > 0xff)
            throw nb::value_error("a posted descriptor is aligned and a vector has 8 bits");
    } else {
        throw nb::value_error("an outcome is a translation, a fault, a message or a posting");
    }
    return outcome;
}

Observation to_observation(nb::handle value) {
    const auto kind = nb::cast<std::string>(value[0]);
    if (kind == "descriptor") {
        const nb::handle words = value[1];
        const std::size_t count = nb::len(words);
        if (count != 2 && count != 4)
            throw nb::value_error("a descriptor has 2 or 4 words");
        u64 word[4] = {};
        for (std::size_t i = 0; i < count; ++i)
            word[i] = number(words, i);
        return Observation::descriptor(word, static_cast<u32>(count));
    }
    if (kind == "fault-record")
        return Observation::fault_record(number(value, 1), number(value, 2), number(value, 3));
    if (kind == "status-write")
        return Observation::status_write(number(value, 1), number(value, 2));
    if (kind == "fault-report")
        return Observation::fault_report(number(value, 1), number(value, 2), number(value, 3),
                                         number(value, 4));
    if (kind == "interrupt")
        return Observation::interrupt(number(value, 1), number(value, 2));
    if (kind == "page-request-record") {
        const nb::handle words = value[2];
        if (nb::len(words) != layout::PageRequest::words)
            throw nb::value_error("a page request record has 4 words");
        u64 word[layout::PageRequest::words];
        for (std::size_t i = 0; i < layout::PageRequest::words; ++i)
            word[i] = number(words, i);
        return Observation::page_request_record(number(value, 1), word);
    }
    if (kind == "page-response")
        return Observation::page_response(number(value, 1), to_pasid(value[2]), number(value, 3),
                                          number(value, 4));
    if (kind == "device-tlb")
        return Observation::device_tlb(number(value, 1), to_pasid(value[2]), number(value, 3),
                                       number(value, 4), nb::cast<bool>(value[5]));
    throw nb::value_error("not an observation");
}

} // namespace dmarewind::bind
