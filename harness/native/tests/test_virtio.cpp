// A virtio-iommu and its replay, with the hostile numbers that sanitizers should see.
#include "check.hpp"
#include "virtio_replay.hpp"

#include <random>

using namespace dmarewind;
using dmarewind::tests::Test;
using layout::AccessKind;
using virtio::Bytes;

namespace wire = dmarewind::layout::virtio_iommu;

namespace {

constexpr u8 ok = static_cast<u8>(wire::Status::ok);
constexpr u8 inval = static_cast<u8>(wire::Status::inval);
constexpr u8 range = static_cast<u8>(wire::Status::range);
constexpr u32 device = 0x18;

// Everything INVAL but a split, which is RANGE, and what has no tail; four-kilobyte pages, no
// bypass.
virtio::Config config(u64 budget = 1000, u32 probe_size = 64) {
    virtio::Config made;
    made.features = wire::Feature::map_unmap | wire::Feature::probe | wire::Feature::bypass_config;
    made.space.resize(wire::Config::size);
    wire::Config::page_size_mask.put(made.space.data(), ~u64{0xfff});
    wire::Config::probe_size.put(made.space.data(), probe_size);
    made.mapping_budget = budget;
    made.dialect.statuses.fill(inval);
    const auto answer = [&](wire::Condition condition, u8 status) {
        made.dialect.statuses[static_cast<std::size_t>(condition)] = status;
    };
    answer(wire::Condition::unmap_split, range);
    answer(wire::Condition::no_head_or_tail, static_cast<u8>(wire::unwritten));
    made.dialect.binding = ~u64{0};
    made.dialect.unattached_reasons = {1};
    return made;
}

using Request = std::vector<u8>;

template <class Kind> Request blank(wire::RequestType type) {
    Request made(Kind::size);
    Kind::type.put(made.data(), static_cast<u64>(type));
    return made;
}

Request attach(u32 domain, u32 endpoint) {
    Request made = blank<wire::Attach>(wire::RequestType::attach);
    wire::Attach::domain.put(made.data(), domain);
    wire::Attach::endpoint.put(made.data(), endpoint);
    return made;
}

Request map(u32 domain, u64 start, u64 end, u64 physical) {
    Request made = blank<wire::Map>(wire::RequestType::map);
    wire::Map::domain.put(made.data(), domain);
    wire::Map::virt_start.put(made.data(), start);
    wire::Map::virt_end.put(made.data(), end);
    wire::Map::phys_start.put(made.data(), physical);
    wire::Map::flags.put(made.data(), wire::MapFlag::read | wire::MapFlag::write);
    return made;
}

Request unmap(u32 domain, u64 start, u64 end) {
    Request made = blank<wire::Unmap>(wire::RequestType::unmap);
    wire::Unmap::domain.put(made.data(), domain);
    wire::Unmap::virt_start.put(made.data(), start);
    wire::Unmap::virt_end.put(made.data(), end);
    return made;
}

u8 ask(virtio::Unit &unit, const Request &request, u64 room = wire::RequestTail::size) {
    const auto &answers = unit.request(request, room, std::nullopt);
    return answers.empty() || answers[0].empty()
               ? static_cast<u8>(wire::unwritten)
               : static_cast<u8>(answers[0][answers[0].size() - wire::RequestTail::size]);
}

Outcome read(virtio::Unit &unit, u64 iova) {
    return unit.access(device, iova, AccessKind::read, {})[0];
}

void maps_and_unmaps() {
    virtio::Unit unit(config());
    EXPECT(ask(unit, map(1, 0, 0xfff, 0)) == inval);
    EXPECT(ask(unit, attach(1, device)) == ok);
    EXPECT(ask(unit, map(1, 0x1000, 0x2fff, 0x8'1000)) == ok);
    EXPECT(ask(unit, map(1, 0x2000, 0x3fff, 0)) == inval);
    EXPECT(read(unit, 0x2345).address + 0x345 == 0x8'2345);
    EXPECT(ask(unit, unmap(1, 0x1000, 0x1fff)) == range);
    EXPECT(ask(unit, unmap(1, 0, virtio::top)) == ok);
    EXPECT(read(unit, 0x2345).type == OutcomeType::fault);
    EXPECT(unit.emitted.size() == 1);
    EXPECT(unit.findings.empty());
}
const Test maps("virtio: maps and unmaps", maps_and_unmaps);

void reaches_both_ends_of_the_address_space() {
    virtio::Unit unit(config());
    ask(unit, attach(1, device));
    EXPECT(ask(unit, map(1, 0, virtio::top, 0x1000)) == ok);
    EXPECT(read(unit, virtio::top).address == 0);
    EXPECT(ask(unit, unmap(1, 1, virtio::top)) == range);
    EXPECT(ask(unit, unmap(1, 0, virtio::top)) == ok);
    EXPECT(ask(unit, map(1, virtio::top - 0xfff, virtio::top, 0)) == ok);
    EXPECT(read(unit, virtio::top).mask == 0xfff);
    EXPECT(ask(unit, map(1, 0x1000, 0xfff, 0)) == inval);
}
const Test ends("virtio: both ends of the address space", reaches_both_ends_of_the_address_space);

void recognises_what_has_ended() {
    virtio::Unit unit(config());
    unit.set_event(7);
    ask(unit, attach(1, device));
    ask(unit, map(1, 0x1000, 0x1fff, 0x5000));
    unit.set_event(8);
    ask(unit, unmap(1, 0x1000, 0x1fff));
    Outcome stale;
    stale.type = OutcomeType::translation;
    stale.address = 0x5010;
    unit.access(device, 0x1010, AccessKind::read, stale);
    EXPECT(unit.findings.size() == 1);
    EXPECT(unit.findings[0].kind == FindingKind::stale_after_invalidation);
    EXPECT(unit.findings[0].filled_by == 7);
    EXPECT(unit.findings[0].covered_by == 8);
}
const Test ended("virtio: a mapping that has ended", recognises_what_has_ended);

void remembers_what_was_dropped_up_to_a_limit() {
    virtio::Unit unit(config());
    ask(unit, attach(1, device));
    for (u32 i = 0; i < wire::dropped_kept + 10; ++i) {
        ask(unit, map(1, 0, 0xfff, u64{i} << 12));
        ask(unit, unmap(1, 0, 0xfff));
    }
    EXPECT(unit.state().dropped.size() == wire::dropped_kept);
}
const Test dropped("virtio: dropped mappings have a limit",
                   remembers_what_was_dropped_up_to_a_limit);

void keeps_to_its_budget() {
    virtio::Unit unit(config(10));
    ask(unit, attach(1, device));
    bool stopped = false;
    try {
        for (u64 page = 0; page < 20; ++page)
            ask(unit, map(1, page << 12, page << 12 | 0xfff, 0));
    } catch (const virtio::BudgetError &) {
        stopped = true;
    }
    EXPECT(stopped);
}
const Test budget("virtio: the budget", keeps_to_its_budget);

void reads_properties_that_lie() {
    using Resv = wire::ResvMem;
    std::vector<u8> whole(2 * Resv::size + 2);
    for (u8 *place : {whole.data(), whole.data() + Resv::size}) {
        Resv::type.put(place, 1);
        Resv::length.put(place, Resv::size - wire::PropertyHead::size);
        Resv::end.put(place, 0xfff);
    }
    for (std::size_t size = 0; size <= whole.size(); ++size) {
        // A vector of its own, so that a byte too many is seen.
        const std::vector<u8> part(whole.begin(),
                                   whole.begin() + static_cast<std::ptrdiff_t>(size));
        std::vector<Region> regions;
        const bool sound = virtio::read_regions(part, &regions);
        EXPECT(regions.size() == size / Resv::size);
        EXPECT(sound == (size % Resv::size == 0 || size > 2 * Resv::size));
    }
    wire::ResvMem::length.put(whole.data(), 0xffff);
    EXPECT(!virtio::read_regions(whole, nullptr));
}
const Test properties("virtio: properties that lie", reads_properties_that_lie);

// Random bytes, most of them of a known type, and any room; answers as well.
void survives_noise() {
    std::mt19937_64 random(1);
    for (const u32 probe_size : {0U, 3U, 64U, 0xfffcU, 0xffff'ffffU}) {
        virtio::Unit unit(config(50, probe_size));
        for (int turn = 0; turn < 3000; ++turn) {
            Request data(random() % 80);
            for (u8 &byte : data)
                byte = random() % 3 == 0 ? static_cast<u8>(random() % 4) : 0;
            if (!data.empty())
                data[0] = static_cast<u8>(random() % 7);
            std::vector<u8> answer(random() % 3 == 0 ? random() % 70 : wire::RequestTail::size);
            if (random() % 4 == 0 && !answer.empty())
                answer[answer.size() / 2] = static_cast<u8>(random() % 9);
            const u64 room = random() % 2 == 0 ? random() % 100 : random() % 0x2'0000;
            try {
                unit.set_event(unit.event() + 1);
                unit.request(data, room,
                             random() % 2 == 0 ? std::optional<Bytes>(answer) : std::nullopt);
                unit.access(static_cast<u32>(random() % 4), random() % 4,
                            static_cast<AccessKind>(random() % 4), {});
                unit.findings.clear();
                unit.emitted.clear();
            } catch (const virtio::BudgetError &) {
                unit.reset();
            }
            if (turn % 500 == 499)
                unit.config_space(Bytes(data));
            unit.write_register(random() % 44, 1U << random() % 4, random() % 3);
            EXPECT(unit.read_register(80, 8) == 0);
        }
        EXPECT(unit.event() == 3000);
    }
}
const Test noise("virtio: noise", survives_noise);

Event event_of(layout::Tag tag) {
    Event made;
    made.tag = static_cast<u8>(tag);
    return made;
}

void replays_requests_and_reports() {
    virtio::Replay replay(config(), 10, 1 << 20);
    const Request data = attach(1, device);
    const std::vector<u8> good(wire::RequestTail::size);
    Event event = event_of(layout::Tag::request);
    event.data = std::as_bytes(std::span(data));
    event.room = wire::RequestTail::size;
    event.has_value = true;
    event.answer = std::as_bytes(std::span(good));
    replay.apply(event);
    EXPECT(replay.counters().agreed == 1);

    Event access = event_of(layout::Tag::access);
    access.sid = device;
    access.address = 0x1000;
    access.kind = static_cast<u8>(AccessKind::write);
    access.outcome.type = OutcomeType::fault;
    access.outcome.reason = static_cast<u64>(wire::FaultReason::mapping);
    replay.apply(access);
    replay.finish();
    EXPECT(replay.counters().agreed == 2);
    EXPECT(replay.findings().size() == 1);
    EXPECT(replay.findings()[0].event == 1);
    EXPECT(std::string_view(replay.findings()[0].subject) == "fault-report");
}
const Test replays("virtio: replay", replays_requests_and_reports);

} // namespace
