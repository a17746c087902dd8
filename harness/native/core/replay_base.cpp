#include "replay_base.hpp"

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
    case Tag::fault_report:
        return "fault-report";
    case Tag::page_request_record:
        return "page-request-record";
    case Tag::page_response:
        return "page-response";
    case Tag::device_tlb_message:
        return "device-tlb";
    default:
        return "interrupt";
    }
}

} // namespace

void ReplayBase::count_outcome(const Outcome &outcome) {
    counters_.translations += outcome.type == OutcomeType::translation;
    counters_.faults += outcome.type == OutcomeType::fault;
}

void ReplayBase::expect(Observations &emitted) {
    if (!lost_ && listens_)
        for (const Observation &seen : emitted)
            expected_.push_back({counters_.events, seen});
    emitted.clear();
}

void ReplayBase::report(Finding finding) {
    if (lost_)
        return;
    ++counters_.divergences;
    if (findings_.size() >= findings_kept_ || bytes_ >= bytes_kept_)
        return;
    bytes_ += finding.size();
    findings_.push_back(std::move(finding));
}

void ReplayBase::report_all(std::vector<Finding> &findings) {
    if (findings.empty())
        return;
    for (Finding &finding : findings)
        report(std::move(finding));
    findings.clear();
}

Finding ReplayBase::divergence(u64 event, const char *subject) const {
    Finding finding;
    finding.event = static_cast<Number>(event);
    finding.subject = subject;
    return finding;
}

void ReplayBase::report_register(const char *subject, u64 observed, u64 now) {
    Finding finding = divergence(counters_.events, subject);
    finding.observed = Compared(observed);
    finding.permitted.emplace_back(now);
    report(std::move(finding));
}

void ReplayBase::report_observation(const Observation &seen) {
    Finding finding = divergence(counters_.events, subject_of(seen));
    finding.observed = Compared(seen);
    if (!expected_.empty() && expected_.front().observation.kind == seen.kind) {
        finding.permitted.emplace_back(expected_.front().observation);
        expected_.pop_front();
    }
    report(std::move(finding));
}

void ReplayBase::missing(const Expected &expected) {
    Finding finding = divergence(expected.cause, subject_of(expected.observation));
    finding.permitted.emplace_back(expected.observation);
    report(std::move(finding));
}

void ReplayBase::flush() {
    while (!expected_.empty()) {
        missing(expected_.front());
        expected_.pop_front();
    }
}

} // namespace dmarewind
