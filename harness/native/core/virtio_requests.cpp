#include "virtio_requests.hpp"

#include "defects.hpp"

#include <cassert>

namespace dmarewind::virtio {

using wire::RequestType;
using wire::Status;

namespace {

template <class Field> u32 number(Field field, const u8 *data) {
    return static_cast<u32>(field.get(data));
}

bool is(u8 type, RequestType wanted) {
    return type == static_cast<u8>(wanted);
}

// The endpoint that a whole request names, if its kind names one.
std::optional<u32> endpoint_of(Bytes data) {
    switch (static_cast<RequestType>(data[0])) {
    case RequestType::attach:
        return number(wire::Attach::endpoint, data.data());
    case RequestType::detach:
        return number(wire::Detach::endpoint, data.data());
    case RequestType::probe:
        return number(wire::Probe::endpoint, data.data());
    default:
        return std::nullopt;
    }
}

// Whether a request is there to its last byte.
bool is_whole(Bytes data) {
    return data.size() >= wire::RequestHead::size &&
           data.size() >= readable_size(data[0]).value_or(~u32{0});
}

} // namespace

void Conditions::ignore(ConditionSet ignored) {
    const auto last = std::remove_if(list_.begin(), list_.begin() + count_,
                                     [&](Condition one) { return (bit(one) & ignored) != 0; });
    count_ = static_cast<std::size_t>(last - list_.begin());
}

void Conditions::put_first(ConditionSet first) {
    std::stable_partition(list_.begin(), list_.begin() + count_,
                          [&](Condition one) { return (bit(one) & first) != 0; });
}

ConditionSet Conditions::set() const {
    ConditionSet all = 0;
    for (const Condition one : *this)
        all |= bit(one);
    return all;
}

std::optional<u32> readable_size(u8 type) {
    switch (static_cast<RequestType>(type)) {
    case RequestType::attach:
        return wire::Attach::size;
    case RequestType::detach:
        return wire::Detach::size;
    case RequestType::map:
        return wire::Map::size;
    case RequestType::unmap:
        return wire::Unmap::size;
    case RequestType::probe:
        return wire::Probe::size;
    }
    return std::nullopt;
}

bool read_regions(Bytes payload, std::vector<Region> *regions) {
    using Head = wire::PropertyHead;
    using Resv = wire::ResvMem;
    while (!payload.empty()) {
        const u8 *data = payload.data();
        if (payload.size() < Head::size)
            return std::all_of(payload.begin(), payload.end(), [](u8 one) { return one == 0; });
        const u64 type = Head::type.get(data);
        if (type == static_cast<u64>(wire::PropertyType::none))
            return true;
        const u64 size = Head::size + Head::length.get(data);
        if (size > payload.size())
            return false;
        // One with reserved bits is another type, which is passed over.
        if (type == static_cast<u64>(wire::PropertyType::resv_mem)) {
            if (size < Resv::size)
                return false;
            if (regions != nullptr)
                regions->push_back({static_cast<u8>(Resv::subtype.get(data)), Resv::start.get(data),
                                    Resv::end.get(data)});
        }
        payload = payload.subspan(size);
    }
    return true;
}

Conditions Handler::conditions(Bytes data, u64 room) const {
    Conditions found;
    assert(!defect(Defect::virtio_short_request_asserts) || data.size() >= wire::RequestHead::size);
    if (data.size() < wire::RequestHead::size || room < wire::RequestTail::size) {
        found.add(Condition::no_head_or_tail);
        return found;
    }
    const auto size = readable_size(data[0]);
    if (!size.has_value()) {
        found.add(Condition::unknown_type);
        return found;
    }
    const auto type = static_cast<RequestType>(data[0]);
    if (type == RequestType::probe && room < state_.parameters.probe_size + wire::RequestTail::size)
        found.add(Condition::probe_room);
    if (data.size() < *size && !defect(Defect::virtio_body_unchecked)) {
        found.add(Condition::short_body);
        return found;
    }
    switch (type) {
    case RequestType::attach:
        look_at_attach(data.data(), found);
        break;
    case RequestType::detach:
        look_at_detach(data.data(), found);
        break;
    case RequestType::map:
        look_at_map(data.data(), found);
        break;
    case RequestType::unmap:
        look_at_unmap(data.data(), found);
        break;
    case RequestType::probe:
        look_at_probe(data.data(), found);
        break;
    }
    if (state_.dialect.order_first)
        found.put_first(bit(Condition::map_order) | bit(Condition::unmap_order));
    found.ignore(state_.dialect.ignored);
    return found;
}

void Handler::look_at_attach(const u8 *data, Conditions &found) const {
    using Attach = wire::Attach;
    using wire::AttachFlag;
    const u32 domain = number(Attach::domain, data);
    const u32 endpoint = number(Attach::endpoint, data);
    const u32 flags = number(Attach::flags, data);
    if (!Attach::reserved.is_zero(data))
        found.add(Condition::attach_reserved);
    if ((flags & ~state_.known_flags(AttachFlag::bypass, wire::Feature::bypass_config, 0)) != 0)
        found.add(Condition::attach_flags);
    if (state_.endpoint_is_absent(endpoint))
        found.add(Condition::attach_endpoint);
    if (!state_.in_domain_range(domain))
        found.add(Condition::attach_domain_range);
    if (state_.domain_of(endpoint).value_or(domain) != domain)
        found.add(Condition::attach_moved);
    const Domain *there = state_.domain(domain);
    if (there == nullptr)
        return;
    const std::size_t others = there->endpoints.size() - there->endpoints.count(endpoint);
    if (state_.dialect.detaches_first && others == 0 && !there->endpoints.empty())
        return;
    if (there->bypass != ((flags & AttachFlag::bypass) != 0))
        found.add(Condition::attach_bypass);
    if (others != 0)
        found.add(Condition::attach_shared);
}

void Handler::look_at_detach(const u8 *data, Conditions &found) const {
    const u32 endpoint = number(wire::Detach::endpoint, data);
    if (state_.dialect.remembers_endpoints ? !state_.is_seen(endpoint)
                                           : state_.endpoint_is_absent(endpoint))
        found.add(Condition::detach_endpoint);
    if (state_.domain_of(endpoint) != number(wire::Detach::domain, data))
        found.add(Condition::detach_not_attached);
}

void Handler::look_at_map(const u8 *data, Conditions &found) const {
    using Map = wire::Map;
    using wire::MapFlag;
    const u64 start = Map::virt_start.get(data);
    const u64 end = Map::virt_end.get(data);
    const u32 known =
        state_.known_flags(MapFlag::mmio, wire::Feature::mmio, MapFlag::read | MapFlag::write);
    if ((number(Map::flags, data) & ~known) != 0)
        found.add(Condition::map_flags);
    const Domain *domain = state_.domain(number(Map::domain, data));
    if (domain == nullptr)
        found.add(Condition::map_domain);
    else if (domain->bypass)
        found.add(Condition::map_bypass);
    if (end < start)
        found.add(Condition::map_order);
    if (domain != nullptr && domain->overlaps(start, end)) {
        const auto met = domain->overlapping(start, end);
        const bool doubtful = std::all_of(met.begin(), met.end(), [&](const auto &one) {
            return domain->is_doubtful(one.second);
        });
        found.add(doubtful ? Condition::map_may_overlap : Condition::map_overlap);
    }
    if (((start | (end + 1) | Map::phys_start.get(data)) & (state_.parameters.granule() - 1)) != 0)
        found.add(Condition::map_alignment);
    if (!state_.in_input_range(start, end))
        found.add(Condition::map_input_range);
    if (domain != nullptr && state_.meets_reserved_region(*domain, start, end))
        found.add(Condition::map_reserved_region);
}

void Handler::look_at_unmap(const u8 *data, Conditions &found) const {
    using Unmap = wire::Unmap;
    const u64 start = Unmap::virt_start.get(data);
    const u64 end = Unmap::virt_end.get(data);
    if (!Unmap::reserved.is_zero(data))
        found.add(Condition::unmap_reserved);
    const Domain *domain = state_.domain(number(Unmap::domain, data));
    if (domain == nullptr)
        found.add(Condition::unmap_domain);
    else if (domain->bypass)
        found.add(Condition::unmap_bypass);
    if (end < start) {
        found.add(Condition::unmap_order);
        if ((state_.dialect.ignored & bit(Condition::unmap_order)) == 0)
            return;
    }
    if (domain == nullptr)
        return;
    bool split = false, doubtful = true;
    const auto look = [&](const Mapping &one) {
        split = true;
        doubtful &= domain->is_doubtful(one);
    };
    if (end < start) {
        for (const auto &[first, mapping] : domain->overlapping(start, end))
            look(mapping); // at most one, which holds both
    } else {
        // Only the mappings at the ends of the range can reach beyond it.
        for (const u64 address : {start, end})
            if (const Mapping *one = domain->at(address);
                one != nullptr && (one->start < start || one->end > end))
                look(*one);
    }
    if (split)
        found.add(doubtful ? Condition::unmap_may_split : Condition::unmap_split);
}

void Handler::look_at_probe(const u8 *data, Conditions &found) const {
    const u32 endpoint = number(wire::Probe::endpoint, data);
    if (!state_.offers(wire::Feature::probe))
        found.add(Condition::probe_not_offered);
    if (state_.endpoint_is_absent(endpoint))
        found.add(Condition::probe_endpoint);
    const auto *regions = state_.regions_of(endpoint);
    const u64 count = regions == nullptr ? 0 : regions->size();
    if (wire::ResvMem::size * count > state_.parameters.probe_size)
        found.add(Condition::probe_space);
}

bool Handler::may_be_absent(Bytes data) const {
    if (is(data[0], RequestType::detach) && state_.dialect.remembers_endpoints)
        return false;
    const auto endpoint = endpoint_of(data);
    return endpoint.has_value() && state_.endpoint_is_unknown(*endpoint);
}

std::optional<std::string> Handler::payload(Bytes data) const {
    using Resv = wire::ResvMem;
    const auto *regions = state_.regions_of(number(wire::Probe::endpoint, data.data()));
    if (regions == nullptr)
        return std::nullopt;
    std::string all(state_.parameters.probe_size, '\0');
    if (regions->size() * Resv::size > all.size() && !defect(Defect::virtio_probe_overrun))
        return all;
    u8 *place = reinterpret_cast<u8 *>(all.data());
    for (const Region &region : *regions) {
        Resv::type.put(place, static_cast<u64>(wire::PropertyType::resv_mem));
        Resv::length.put(place, Resv::size - wire::PropertyHead::size);
        Resv::subtype.put(place, region.subtype);
        Resv::start.put(place, region.start);
        Resv::end.put(place, region.end);
        place += Resv::size;
    }
    return all;
}

void Handler::succeed(Bytes data, Bytes answer) {
    if (!is_whole(data))
        return;
    const u8 *fields = data.data();
    switch (static_cast<RequestType>(data[0])) {
    case RequestType::attach:
        state_.attach(number(wire::Attach::endpoint, fields), number(wire::Attach::domain, fields),
                      (number(wire::Attach::flags, fields) & wire::AttachFlag::bypass) != 0);
        break;
    case RequestType::detach: {
        const u32 endpoint = number(wire::Detach::endpoint, fields);
        if (state_.domain_of(endpoint) == number(wire::Detach::domain, fields)) {
            state_.detach(endpoint);
            state_.forget_endpoint(endpoint);
        }
        break;
    }
    case RequestType::map: {
        using Map = wire::Map;
        const Mapping mapping{Map::virt_start.get(fields), Map::virt_end.get(fields),
                              Map::phys_start.get(fields), number(Map::flags, fields),
                              state_.event};
        if (mapping.end >= mapping.start)
            state_.map(number(Map::domain, fields), mapping);
        break;
    }
    case RequestType::unmap: {
        using Unmap = wire::Unmap;
        const u64 start = Unmap::virt_start.get(fields), end = Unmap::virt_end.get(fields);
        if (end >= start)
            state_.unmap(number(Unmap::domain, fields), start, end);
        break;
    }
    case RequestType::probe: {
        const u32 endpoint = number(wire::Probe::endpoint, fields);
        if (state_.regions_of(endpoint) != nullptr)
            break;
        std::vector<Region> regions;
        read_regions(answer.first(std::min<u64>(answer.size(), state_.parameters.probe_size)),
                     &regions);
        state_.learn(endpoint, regions);
        break;
    }
    }
}

void Handler::fail(Bytes data, const Conditions &conditions, std::optional<u8> status) {
    const bool invalid = status == static_cast<u8>(Status::inval);
    if (invalid && state_.dialect.detaches_first &&
        conditions.begins_with(Condition::attach_bypass)) {
        const u32 endpoint = number(wire::Attach::endpoint, data.data());
        state_.detach(endpoint);
        state_.see(endpoint);
    }
    const bool removes =
        state_.dialect.removes_before_split && status == static_cast<u8>(Status::range);
    if (removes || (invalid && (conditions.set() & bit(Condition::unmap_reserved)) != 0))
        doubt(data);
}

void Handler::doubt(Bytes data) {
    using Unmap = wire::Unmap;
    if (!is_whole(data) || !is(data[0], RequestType::unmap))
        return;
    const u64 start = Unmap::virt_start.get(data.data()), end = Unmap::virt_end.get(data.data());
    Domain *domain = state_.domain(number(Unmap::domain, data.data()));
    if (domain != nullptr && end >= start)
        domain->doubt(start, end);
}

} // namespace dmarewind::virtio
