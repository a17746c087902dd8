#include "page_requests.hpp"

#include "defects.hpp"

namespace dmarewind {

namespace reg = layout::reg;
using Record = layout::PageRequest;
using Status = layout::Prs;
using Flag = layout::PageRequestFlag;

namespace {

constexpr u64 any_pending = Status::ppr.mask() | Status::pro.mask();

constexpr bool has(const PageRequest &asked, Flag flag) {
    return (asked.flags & static_cast<u32>(flag)) != 0;
}

Observation record_of(const PageRequest &asked, u64 address) {
    u64 words[Record::words] = {};
    Record::type.put(words, layout::page_request_type);
    Record::rid.put(words, asked.sid);
    const bool short_group = defect(Defect::page_request_group_of_8_bits);
    Record::prgi.put(words, short_group ? asked.group & 0xff : asked.group);
    Record::addr.put(words, asked.address >> layout::page_bits);
    if (asked.pasid != no_pasid) {
        Record::pp.put(words, 1);
        Record::pasid.put(words, asked.pasid);
    }
    Record::rd.put(words, has(asked, Flag::read));
    Record::wr.put(words, has(asked, Flag::write));
    Record::exr.put(words, has(asked, Flag::execute));
    Record::pmr.put(words, has(asked, Flag::privileged));
    Record::lpig.put(words, has(asked, Flag::last));
    return Observation::page_request_record(address, words);
}

} // namespace

PageRequestQueue::PageRequestQueue(const UnitConfig &config, Memory &memory,
                                   RegisterFile &registers, Translator &translator,
                                   FaultRecorder &faults, Observations &emitted)
    : config_(config), memory_(memory), registers_(registers), translator_(translator),
      faults_(faults), emitted_(emitted),
      event_(registers, emitted, reg::pectl, reg::pedata, reg::peaddr, reg::peuaddr) {}

void PageRequestQueue::request(const PageRequest &asked, u64 event) {
    if (config_.ecap(layout::ExtendedCapability::prs) == 0 || !translator_.enabled)
        return;
    std::optional<Code> code = admit(asked);
    if (!code)
        code = enqueue(asked, event);
    // A last request that asks for nothing is a stop marker, and nobody answers it.
    const bool ends_group =
        has(asked, Flag::last) && (has(asked, Flag::read) || has(asked, Flag::write));
    if (code && ends_group)
        answer(asked.sid, asked.pasid, asked.group, static_cast<u64>(*code));
}

void PageRequestQueue::respond(const u64 *words) {
    using Response = layout::PageGroupResponse;
    const u64 pasid = Response::pp.get(words) != 0 ? Response::pasid.get(words) : no_pasid;
    answer(Response::rid.get(words), pasid, Response::prgi.get(words), Response::rc.get(words));
}

void PageRequestQueue::adopt(const Observation &seen, u64 event) {
    store(seen, event);
    const Ring place = ring();
    if (seen.address == place.base + place.tail)
        registers_.poke(reg::pqt, (place.tail + Record::size) % place.size);
    registers_.put(reg::prs, Status::ppr, 1);
}

void PageRequestQueue::registers_written(u32 offset, u32 size) {
    if (touches(offset, size, reg::prs.offset) && (registers_.load(reg::prs) & any_pending) == 0)
        event_.withdraw();
    if (touches(offset, size, reg::pectl.offset))
        event_.send_if_unmasked();
}

// Check the context entry; record the fault of a request that it does not let in.
std::optional<PageRequestQueue::Code> PageRequestQueue::admit(const PageRequest &asked) {
    using Context = layout::ScalableContextEntry;
    const Lookup &lookup = translator_.lookup();
    if (lookup.aborting())
        return Code::invalid;
    if (lookup.legacy())
        return refuse(asked, code(layout::Reason::legacy_mode_page_request), false);
    EntryResult context;
    Trail trail;
    lookup.context(memory_.view(), asked.sid, context, trail);
    if (context.reason != 0)
        return refuse(asked, context.reason, context.fault_disable);
    if (Context::pre.get(context.words) == 0)
        return refuse(asked, code(layout::Reason::sm_page_request_disabled),
                      Context::fpd.get(context.words) != 0);
    return std::nullopt;
}

PageRequestQueue::Code PageRequestQueue::refuse(const PageRequest &asked, u64 reason,
                                                bool fault_disable) {
    Request request{asked.sid, asked.pasid, asked.address,
                    has(asked, Flag::execute) ? AccessKind::execute : AccessKind::read};
    request.attributes = has(asked, Flag::privileged) ? is_privileged : 0;
    faults_.record(request, reason, fault_disable, true);
    return Code::invalid;
}

// Store a request at the tail; the answer to one that is dropped.
std::optional<PageRequestQueue::Code> PageRequestQueue::enqueue(const PageRequest &asked,
                                                                u64 event) {
    const u64 before = registers_.load(reg::prs);
    if (Status::pro.of(before) != 0)
        return Code::success;
    const Ring place = ring();
    const u64 following = (place.tail + Record::size) % place.size;
    const u64 head = registers_.load(reg::pqh);
    // What lies beyond the ring in PQH and PQT, which software may write, does not count.
    if (following == layout::Pqh::pqh.address(&head) % place.size) {
        raise(before, Status::pro);
        return Code::success;
    }
    u64 ignored;
    if (!memory_.view().load(place.base + place.tail, ignored))
        return Code::failure;
    const Observation record = record_of(asked, place.base + place.tail);
    store(record, event);
    emitted_.push_back(record);
    registers_.poke(reg::pqt, following);
    raise(before, Status::ppr);
    return std::nullopt;
}

PageRequestQueue::Ring PageRequestQueue::ring() const {
    const u64 address = registers_.load(reg::pqa);
    const u64 written = registers_.load(reg::pqt);
    const u64 size = page_size << layout::Pqa::pqs.of(address);
    return {layout::Pqa::pqa.address(&address), size, layout::Pqt::pqt.address(&written) % size};
}

void PageRequestQueue::store(const Observation &record, u64 event) {
    memory_.write(record.address, std::as_bytes(std::span(record.word)), event + 1);
}

// Set a status bit; raise the event when there was none before.
void PageRequestQueue::raise(u64 before, layout::Field status) {
    registers_.put(reg::prs, status, 1);
    if ((before & any_pending) == 0)
        event_.request();
}

void PageRequestQueue::answer(u64 sid, u64 pasid, u64 group, u64 code) {
    if (config_.dialect.device_messages_traced)
        emitted_.push_back(Observation::page_response(sid, pasid, group, code));
}

} // namespace dmarewind
