#include "faults.hpp"

#include "defects.hpp"

namespace dmarewind {

namespace reg = layout::reg;
using Status = layout::FaultStatus;
using Record = layout::FaultRecordRegister;
using Control = layout::FaultEventControl;

namespace {

// What keeps the fault event from being raised again.
constexpr u64 any_pending = Status::pfo.mask() | Status::ppf.mask() | Status::iqe.mask() |
                            Status::ice.mask() | Status::ite.mask();

void compose(const Request &request, u64 reason, bool page_request, bool has_type, u64 *words) {
    words[0] = request.iova & ~(defect(Defect::fault_address_not_page) ? 0 : page_size - 1);
    words[1] = 0;
    Record::sid.put(words, request.sid);
    Record::fr.put(words, reason);
    if (page_request)
        Record::t2.put(words, 1);
    else if (request.kind != AccessKind::write)
        Record::t1.put(words, 1);
    if (request.kind == AccessKind::execute)
        Record::exe.put(words, 1);
    if ((request.attributes & is_privileged) != 0)
        Record::priv.put(words, 1);
    // AT: 0 untranslated, 1 translation request, 2 translated.
    if (has_type)
        Record::at.put(words, (request.attributes & is_translated) != 0            ? 2
                              : (request.attributes & is_translation_request) != 0 ? 1
                                                                                   : 0);
    if (defect(Defect::fault_record_sign_extended) && request.pasid != no_pasid)
        words[1] |= static_cast<u64>(static_cast<std::int32_t>(request.pasid << 12)) << 28;
    if (request.pasid != no_pasid || defect(Defect::fault_pasid_present)) {
        Record::pp.put(words, 1);
        Record::pv.put(words, request.pasid);
    }
}

} // namespace

// -- the event ------------------------------------------------------------------------------------

void EventMessage::request() {
    registers_.put(control_, Control::ip, 1);
    send_if_unmasked();
}

void EventMessage::send_if_unmasked() {
    const u64 control = registers_.load(control_);
    if (Control::ip.of(control) == 0 || Control::im.of(control) != 0) {
        if (defect(Defect::masked_event_lost))
            withdraw();
        return;
    }
    const u64 address = registers_.load(address_) | registers_.load(upper_) << 32;
    emitted_.push_back(Observation::interrupt(address, registers_.load(data_)));
    registers_.put(control_, Control::ip, 0);
}

void EventMessage::withdraw() {
    registers_.put(control_, Control::ip, 0);
}

// -- the records ----------------------------------------------------------------------------------

FaultRecorder::FaultRecorder(const UnitConfig &config, RegisterFile &registers,
                             Observations &emitted)
    : config_(config), registers_(registers), emitted_(emitted),
      event_(registers, emitted, reg::fectl, reg::fedata, reg::feaddr, reg::feuaddr),
      count_(registers.fault_records()) {}

// Whether FPD suppresses a fault.
bool FaultRecorder::qualified(u64 reason) const {
    const auto which = static_cast<layout::Reason>(reason);
    if (which == layout::Reason::context_reserved && config_.dialect.context_reserved_unqualified)
        return false;
    return layout::is_qualified(which);
}

bool FaultRecorder::pending(u64 index) const {
    const u64 words[2] = {
        0, registers_.load(reg::frcd_high, registers_.fault_record(index) + reg::frcd_high.offset)};
    return Record::f.get(words) != 0;
}

bool FaultRecorder::pending_from(u64 index, u32 sid) const {
    const u64 words[2] = {
        0, registers_.load(reg::frcd_high, registers_.fault_record(index) + reg::frcd_high.offset)};
    return Record::f.get(words) != 0 && Record::sid.get(words) == sid;
}

void FaultRecorder::fill(u64 index, const u64 *words) {
    u64 filled[2] = {words[0], words[1]};
    Record::f.put(filled, 1);
    const u32 base = registers_.fault_record(index);
    registers_.poke(reg::frcd_low, filled[0], base);
    registers_.poke(reg::frcd_high, filled[1], base + reg::frcd_high.offset);
    next_ = (index + 1) % count_;
}

void FaultRecorder::record(const Request &request, u64 reason, bool fault_disable,
                           bool page_request) {
    const bool unchecked = config_.dialect.device_requests_unchecked;
    const bool asked = (request.attributes & is_translation_request) != 0;
    // The device finds it in the answer.
    if (asked && !unchecked && layout::is_recoverable(static_cast<layout::Reason>(reason)))
        return;
    if (fault_disable && qualified(reason))
        return;
    const u64 before = registers_.load(reg::fsts);
    if (Status::pfo.of(before) != 0)
        return;
    for (u64 index = 0; index < count_; ++index)
        if (pending_from(index, request.sid))
            return;
    if (pending(next_)) {
        registers_.put(reg::fsts, Status::pfo, 1);
        return;
    }
    const u64 index = next_;
    u64 words[2];
    compose(request, reason, page_request, !unchecked, words);
    emitted_.push_back(Observation::fault_record(index, words[0], words[1]));
    fill(index, words);
    report(index, before);
}

void FaultRecorder::adopt(const Observation &seen) {
    if (seen.address >= count_)
        return;
    fill(seen.address, seen.word);
    report(seen.address, registers_.load(reg::fsts));
}

// Says in FSTS that a register was filled, and raises the event unless one was before.
void FaultRecorder::report(u64 index, u64 before) {
    if (Status::ppf.of(before) != 0)
        return;
    registers_.put(reg::fsts, Status::fri, index);
    registers_.put(reg::fsts, Status::ppf, 1);
    raise_event(before);
}

u64 FaultRecorder::undefined(u32 offset, u32 size) const {
    const u64 ignored = config_.dialect.fault_record_ignored;
    u64 found = 0;
    for (u64 index = 0; index < count_; ++index) {
        const u32 high = registers_.fault_record(index) + reg::frcd_high.offset;
        if (touches(offset, size, high, reg::frcd_high.size))
            found |=
                offset >= high ? ignored >> 8 * (offset - high) : ignored << 8 * (high - offset);
    }
    return found;
}

void FaultRecorder::raise_event(u64 before) {
    if ((before & any_pending) == 0)
        event_.request();
}

void FaultRecorder::registers_written(u32 offset, u32 size) {
    for (u64 index = 0; index < count_; ++index) {
        const u32 high = registers_.fault_record(index) + reg::frcd_high.offset;
        if (!touches(offset, size, high, reg::frcd_high.size))
            continue;
        bool any = false;
        for (u64 other = 0; other < count_ && !any; ++other)
            any = pending(other);
        registers_.put(reg::fsts, Status::ppf, any);
        break;
    }
    if (touches(offset, size, reg::fsts.offset) && (registers_.load(reg::fsts) & any_pending) == 0)
        event_.withdraw();
    if (touches(offset, size, reg::fectl.offset))
        event_.send_if_unmasked();
}

} // namespace dmarewind
