#include "virtio_unit.hpp"

#include "defects.hpp"
#include "oracle.hpp"

namespace dmarewind::virtio {

using wire::RequestTail;
using wire::Status;

namespace {

constexpr u32 bypass_offset = wire::Config::bypass.offset;
constexpr ConditionSet not_whole =
    bit(Condition::no_head_or_tail) | bit(Condition::unknown_type) | bit(Condition::short_body);
constexpr u8 ok = static_cast<u8>(Status::ok);

std::string text_of(Bytes data) {
    return {data.begin(), data.end()};
}

bool equal(Bytes left, const std::string &right) {
    return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                      [](u8 one, char other) { return one == static_cast<u8>(other); });
}

Bytes bytes_of(const std::string &text) {
    return {reinterpret_cast<const u8 *>(text.data()), text.size()};
}

Number number_or_none(std::optional<u32> number) {
    return number.has_value() ? Number{*number} : Number{-1};
}

} // namespace

Unit::Unit(Config config)
    : state_(config), space_(std::move(config.space)), known_(config.known),
      boot_bypass_(state_.parameters.bypass) {}

void Unit::reset() {
    state_.forget();
    set_bypass(boot_bypass_);
}

void Unit::device_reset() {
    state_.broken = false;
    if (state_.dialect.reset_keeps_domains)
        state_.accepted = 0;
    else
        state_.forget();
}

void Unit::features(u64 offered, u64 accepted) {
    state_.offered = offered;
    state_.accepted = accepted;
}

void Unit::config_space(Bytes data) {
    const bool there = data.size() > bypass_offset;
    if (known_ && there && data[bypass_offset] != state_.parameters.bypass) {
        const bool expects = space_.size() > bypass_offset;
        const Bytes expected = expects ? Bytes(space_).subspan(bypass_offset, 1) : Bytes();
        diverged("config", text_of(data.subspan(bypass_offset, 1)), {text_of(expected)});
    }
    if (!known_ && there)
        boot_bypass_ = data[bypass_offset];
    known_ = true;
    space_.assign(data.begin(), data.end());
    state_.parameters = Parameters::of(data);
}

u64 Unit::read_register(u64 offset, u32 size) const {
    u64 value = 0;
    for (u64 at = std::min<u64>(offset + size, space_.size()); at > offset; --at)
        value = value << 8 | space_[at - 1];
    return value;
}

void Unit::write_register(u64 offset, u32 size, u64 value) {
    if (offset > bypass_offset || bypass_offset >= offset + size)
        return;
    const u64 wanted = value >> (8 * (bypass_offset - offset)) & 0xff;
    if (wanted <= 1 && state_.in_use(wire::Feature::bypass_config))
        set_bypass(wanted);
    else if (wanted != state_.parameters.bypass)
        state_.broken |= state_.dialect.breaks;
}

void Unit::set_bypass(u64 value) {
    state_.parameters.bypass = value;
    if (space_.size() > bypass_offset && !defect(Defect::virtio_bypass_reads_old))
        space_[bypass_offset] = static_cast<u8>(value);
}

const std::vector<std::string> &Unit::request(Bytes data, u64 room, std::optional<Bytes> recorded) {
    answers_.clear();
    const Conditions conditions = handler_.conditions(data, room);
    const bool whole = (conditions.set() & not_whole) == 0;
    const bool probe = data.size() >= wire::RequestHead::size &&
                       data[0] == static_cast<u8>(wire::RequestType::probe);
    if (state_.dialect.breaks && (conditions.set() & bit(Condition::no_head_or_tail)) != 0)
        state_.broken = true;
    if (state_.broken && !recorded.has_value())
        return answers_;
    statuses_.clear();
    if (!state_.broken)
        add_statuses(data, conditions, whole);
    state_.broken = false; // or it would not have answered
    const bool short_enough = !probe || answer_size(room) <= wire::answer_limit;
    if (!short_enough && std::any_of(statuses_.begin(), statuses_.end(),
                                     [](u8 status) { return status != wire::unwritten; }))
        return answers_;
    std::optional<std::string> payload = std::string();
    if (probe && whole && short_enough && has_room(room))
        payload = handler_.payload(data);
    for (const u8 status : statuses_)
        answers_.push_back(answer(status, probe, room, payload));
    const Bytes given = recorded.has_value() ? *recorded : bytes_of(answers_[0]);
    const bool foreseen = std::any_of(answers_.begin(), answers_.end(),
                                      [&](const auto &one) { return equal(given, one); });
    if (!foreseen) {
        const bool succeeds = std::find(statuses_.begin(), statuses_.end(), ok) != statuses_.end();
        if (payload.has_value() || !succeeds || !is_probed(given))
            diverged("request", text_of(given), answers_);
    }
    std::optional<u8> status;
    if (given.size() >= RequestTail::size)
        status = given[given.size() - RequestTail::size];
    if (status == ok)
        handler_.succeed(data, given);
    else
        handler_.fail(data, conditions, status);
    return answers_;
}

void Unit::add_status(u8 status) {
    if (std::find(statuses_.begin(), statuses_.end(), status) == statuses_.end())
        statuses_.push_back(status);
}

void Unit::add_others(Condition condition) {
    const u32 others = state_.dialect.others[static_cast<std::size_t>(condition)];
    for (u8 status = 0; others >> status != 0; ++status)
        if ((others >> status & 1) != 0)
            add_status(status);
}

void Unit::add_statuses(Bytes data, const Conditions &conditions, bool whole) {
    const Dialect &dialect = state_.dialect;
    const auto status_of = [&](Condition one) {
        return dialect.statuses[static_cast<std::size_t>(one)];
    };
    bool decided = false;
    if (dialect.first_decides) {
        bool firm = false;
        for (const Condition one : conditions) {
            add_status(status_of(one));
            // What is doubtful decides nothing.
            firm = (dialect.doubtful & bit(one)) == 0;
            if (firm) {
                add_others(one);
                break;
            }
        }
        if (!firm)
            add_status(ok);
        decided = conditions.set() != 0 && !conditions.begins_with(Condition::attach_bypass);
    } else {
        for (const Condition one : conditions)
            if ((dialect.binding & bit(one)) != 0)
                add_status(status_of(one));
        if (statuses_.empty())
            add_status(ok);
        for (const Condition one : conditions)
            add_status(status_of(one));
        for (const Condition one : conditions)
            add_others(one);
    }
    if (whole) {
        if (!decided && handler_.may_be_absent(data))
            add_status(static_cast<u8>(Status::noent));
        for (const u8 status : dialect.trouble)
            add_status(status);
    }
}

// Whether all of a PROBE's answer can be written.
bool Unit::has_room(u64 room) const {
    return room >= state_.parameters.probe_size + RequestTail::size;
}

// The length of what a PROBE is answered, whatever its status.
u64 Unit::answer_size(u64 room) const {
    if (has_room(room))
        return state_.parameters.probe_size + RequestTail::size;
    return state_.dialect.short_probe_tail_first ? RequestTail::size : room;
}

std::string Unit::answer(u8 status, bool probe, u64 room,
                         const std::optional<std::string> &payload) {
    if (status == wire::unwritten)
        return {};
    std::string tail(RequestTail::size, '\0');
    tail[RequestTail::status.offset] = static_cast<char>(status);
    if (!probe)
        return tail;
    if (status == ok && payload.has_value() && !payload->empty())
        return *payload + tail;
    return std::string(answer_size(room) - RequestTail::size, '\0') + tail;
}

// Whether an answer holds properties of an endpoint of which nothing is known.
bool Unit::is_probed(Bytes answer) const {
    const u64 size = state_.parameters.probe_size;
    if (answer.size() != size + RequestTail::size)
        return false;
    const Bytes tail = answer.subspan(size);
    return std::all_of(tail.begin(), tail.end(), [](u8 one) { return one == 0; }) &&
           read_regions(answer.first(size), nullptr);
}

const std::vector<Outcome> &Unit::access(u32 endpoint, u64 iova, AccessKind kind,
                                         const Outcome &recorded) {
    permitted(state_, endpoint, iova, kind, permitted_);
    outcomes_.clear();
    for (const Permitted &one : permitted_)
        if (std::find(outcomes_.begin(), outcomes_.end(), one.outcome) == outcomes_.end())
            outcomes_.push_back(one.outcome);
    flags_.clear();
    const auto fits = [&](const Permitted &one) {
        return recorded.type == OutcomeType::none || compatible(recorded, one.outcome, iova);
    };
    const auto chosen = std::find_if(permitted_.begin(), permitted_.end(), fits);
    if (chosen == permitted_.end()) {
        judge(endpoint, iova, recorded);
        return outcomes_;
    }
    // What fits both a mapping and its end shows neither.
    const bool certain = std::all_of(chosen, permitted_.end(), [&](const Permitted &one) {
        return !fits(one) || (one.mapping == chosen->mapping && one.gone == chosen->gone);
    });
    if (recorded.type != OutcomeType::none && certain && chosen->mapping.has_value())
        settle(endpoint, *chosen);
    if (chosen->outcome.type == OutcomeType::fault && !state_.broken) {
        emitted.push_back(
            Observation::fault_report(chosen->outcome.reason, chosen->flags, endpoint, iova));
        for (const Permitted &one : permitted_)
            if (fits(one) && one.outcome == chosen->outcome)
                flags_.push_back(one.flags);
    }
    return outcomes_;
}

// Take over what an outcome shows of a mapping that may be gone.
void Unit::settle(u32 endpoint, const Permitted &chosen) {
    const u32 number = *state_.domain_of(endpoint);
    if (chosen.gone)
        state_.drop(number, *chosen.mapping);
    else
        state_.domain(number)->doubtful.erase(chosen.mapping->start);
}

bool Unit::same_report(const Observation &expected, const Observation &seen) const {
    const u64 flags = seen.word[0], endpoint = seen.word[1];
    const bool same_place =
        expected.address == seen.address || (flags & wire::FaultFlag::address) == 0;
    const auto fits = [&](u64 known) {
        return ((known ^ flags) & ~u64{state_.dialect.fault_flags_ignored}) == 0;
    };
    return same_place && expected.value == seen.value && expected.word[1] == endpoint &&
           (fits(expected.word[0]) || std::any_of(flags_.begin(), flags_.end(), fits));
}

void Unit::judge(u32 endpoint, u64 iova, const Outcome &recorded) {
    const auto attached = state_.domain_of(endpoint);
    const auto left = state_.left(endpoint);
    Finding finding;
    finding.event = static_cast<Number>(event());
    finding.subject = "access";
    finding.observed = Compared(recorded);
    for (const Outcome &outcome : outcomes_)
        finding.permitted.emplace_back(outcome);
    if (recorded.type == OutcomeType::translation && searches_++ < wire::searches)
        for (auto one = state_.dropped.rbegin(); one != state_.dropped.rend(); ++one) {
            const Mapping &mapping = one->mapping;
            if ((one->domain != attached && one->domain != left) || !mapping.holds(iova))
                continue;
            Outcome was;
            was.type = OutcomeType::translation;
            was.address = mapping.address(iova);
            if (!same_place(recorded, was, iova))
                continue;
            finding.kind = FindingKind::stale_after_invalidation;
            finding.cache = "domain";
            finding.domain = one->domain;
            finding.filled_by = static_cast<Number>(mapping.event);
            finding.covered_by = static_cast<Number>(one->event);
            findings.push_back(std::move(finding));
            return;
        }
    finding.domain = number_or_none(attached);
    if (const auto &source = permitted_[0].mapping)
        finding.filled_by = static_cast<Number>(source->event);
    findings.push_back(std::move(finding));
}

void Unit::diverged(const char *subject, std::string observed, std::vector<std::string> expected) {
    Finding finding;
    finding.event = static_cast<Number>(event());
    finding.subject = subject;
    finding.observed = Compared(std::move(observed));
    for (std::string &one : expected)
        finding.permitted.emplace_back(std::move(one));
    findings.push_back(std::move(finding));
}

} // namespace dmarewind::virtio
