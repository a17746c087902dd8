#include "virtio.hpp"

#include "replay_binding.hpp"
#include "unit_binding.hpp"
#include "virtio_replay.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

namespace dmarewind::bind {
namespace {

using virtio::Bytes;
using virtio::Config;
using virtio::Replay;
using virtio::Unit;

Bytes span_of(const nb::bytes &data) {
    return {static_cast<const u8 *>(data.data()), data.size()};
}

std::vector<u8> vector_of(const nb::bytes &data) {
    const Bytes span = span_of(data);
    return {span.begin(), span.end()};
}

Config make_config(u64 features, nb::bytes space, bool known, u64 mapping_budget,
                   nb::bytes statuses, const std::vector<u32> &others, u64 binding, u64 doubtful,
                   u64 ignored, nb::bytes trouble, nb::bytes unattached_reasons,
                   u32 fault_flags_ignored, u32 endpoint_bits, nb::dict switches) {
    Config config;
    config.features = features;
    config.space = vector_of(space);
    config.known = known;
    config.mapping_budget = mapping_budget;
    virtio::Dialect &dialect = config.dialect;
    const Bytes codes = span_of(statuses);
    if (codes.size() != dialect.statuses.size() || others.size() != dialect.others.size())
        throw nb::value_error("wrong number of statuses");
    std::copy(codes.begin(), codes.end(), dialect.statuses.begin());
    std::copy(others.begin(), others.end(), dialect.others.begin());
    dialect.binding = binding;
    dialect.doubtful = doubtful;
    dialect.ignored = ignored;
    dialect.trouble = vector_of(trouble);
    dialect.unattached_reasons = vector_of(unattached_reasons);
    if (dialect.unattached_reasons.empty())
        throw nb::value_error("no reason for an access without a domain");
    dialect.fault_flags_ignored = fault_flags_ignored;
    if (endpoint_bits < 8 || endpoint_bits > 32)
        throw nb::value_error("an endpoint's id has 8 to 32 bits");
    dialect.endpoint_bits = endpoint_bits;
    const Switch flags[] = {
        {"first_decides", &dialect.first_decides},
        {"flags_need_features", &dialect.flags_need_features},
        {"detaches_first", &dialect.detaches_first},
        {"remembers_endpoints", &dialect.remembers_endpoints},
        {"reserved_regions_without_domain", &dialect.reserved_regions_without_domain},
        {"write_may_imply_read", &dialect.write_may_imply_read},
        {"short_probe_tail_first", &dialect.short_probe_tail_first},
        {"reaches_next_byte", &dialect.reaches_next_byte},
        {"keeps_page_offset", &dialect.keeps_page_offset},
        {"reset_keeps_domains", &dialect.reset_keeps_domains},
        {"breaks", &dialect.breaks},
        {"order_first", &dialect.order_first},
        {"endpoint_ids_wrap", &dialect.endpoint_ids_wrap},
        {"removes_before_split", &dialect.removes_before_split},
        {"fault_flags_of_rights_only", &dialect.fault_flags_of_rights_only},
    };
    set_switches(flags, switches);
    return config;
}

nb::tuple request(Unit &unit, nb::bytes data, u64 room, std::optional<nb::bytes> recorded) {
    std::optional<Bytes> answer;
    if (recorded.has_value())
        answer = span_of(*recorded);
    nb::list answers;
    for (const std::string &one : unit.request(span_of(data), room, answer))
        answers.append(nb::bytes(one.data(), one.size()));
    return nb::tuple(answers);
}

nb::tuple access(Unit &unit, u32 endpoint, u64 iova, unsigned kind, nb::object recorded) {
    nb::list outcomes;
    for (const Outcome &one : unit.access(endpoint, iova, kind_from(kind), to_outcome(recorded)))
        outcomes.append(from_outcome(one));
    return nb::tuple(outcomes);
}

nb::dict domains(const Unit &unit) {
    nb::dict all;
    for (const auto &[number, domain] : unit.state().domains()) {
        nb::list endpoints, mappings;
        for (const u32 endpoint : domain.endpoints)
            endpoints.append(endpoint);
        for (const auto &[start, mapping] : domain.mappings())
            mappings.append(tuple(mapping.start, mapping.end, mapping.physical, mapping.flags));
        all[nb::int_(number)] = tuple(domain.bypass, nb::tuple(endpoints), nb::tuple(mappings));
    }
    return all;
}

} // namespace

void bind_virtio(nb::module_ &m) {
    nanobind::exception<virtio::BudgetError>(m, "MappingError", PyExc_RuntimeError);

    nb::class_<Config>(m, "VirtioConfig")
        .def(
            "__init__",
            [](Config *self, u64 features, nb::bytes config, bool known, u64 mapping_budget,
               nb::bytes statuses, const std::vector<u32> &others, u64 binding, u64 doubtful,
               u64 ignored, nb::bytes trouble, nb::bytes unattached_reasons,
               u32 fault_flags_ignored, u32 endpoint_bits, nb::dict switches) {
                new (self)
                    Config(make_config(features, config, known, mapping_budget, statuses, others,
                                       binding, doubtful, ignored, trouble, unattached_reasons,
                                       fault_flags_ignored, endpoint_bits, switches));
            },
            nb::kw_only(), nb::arg("features"), nb::arg("config"), nb::arg("known"),
            nb::arg("mapping_budget"), nb::arg("statuses"), nb::arg("others"), nb::arg("binding"),
            nb::arg("doubtful"), nb::arg("ignored"), nb::arg("trouble"),
            nb::arg("unattached_reasons"), nb::arg("fault_flags_ignored"), nb::arg("endpoint_bits"),
            nb::arg("switches"));

    nb::class_<Unit>(m, "VirtioUnit")
        .def(nb::init<Config>(), nb::arg("config"))
        .def_prop_rw("event", &Unit::event, &Unit::set_event)
        .def("reset", &Unit::reset)
        .def("device_reset", &Unit::device_reset)
        .def("features", &Unit::features)
        .def("endpoint",
             [](Unit &unit, u32 endpoint, std::vector<std::tuple<u8, u64, u64>> regions) {
                 std::vector<Region> made;
                 for (const auto &[subtype, start, end] : regions)
                     made.push_back({subtype, start, end});
                 unit.endpoint(endpoint, made);
             })
        .def("config_space", [](Unit &unit, nb::bytes data) { unit.config_space(span_of(data)); })
        .def("read_register",
             [](const Unit &unit, u32 offset, unsigned size) {
                 check_size(size);
                 return unit.read_register(offset, size);
             })
        .def("write_register",
             [](Unit &unit, u32 offset, unsigned size, u64 value) {
                 check_size(size);
                 unit.write_register(offset, size, value);
             })
        .def("request", &request, nb::arg("data"), nb::arg("room"),
             nb::arg("recorded").none() = nb::none())
        .def("access", &access, nb::arg("endpoint"), nb::arg("iova"), nb::arg("kind"),
             nb::arg("recorded").none() = nb::none())
        .def("same_report",
             [](const Unit &unit, nb::object expected, nb::object seen) {
                 return unit.same_report(to_observation(expected), to_observation(seen));
             })
        .def("emitted", &take_emitted<Unit>)
        .def("findings", &take_findings<Unit>)
        .def("domains", &domains);

    bind_replay<Replay, Config>(m, "VirtioReplay");
}

} // namespace dmarewind::bind
