// The Python module harness.native._core; _core.pyi documents what it offers.
#include "acpi.hpp"
#include "buffer.hpp"
#include "convert.hpp"
#include "defects.hpp"
#include "replay_binding.hpp"
#include "scaffold.hpp"
#include "unit_binding.hpp"
#include "virtio.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace dmarewind::bind {
namespace {

// Fault reasons come as bytes, in the order the dialect declares them.
template <class Reasons> Reasons reasons_from(nb::bytes codes) {
    static_assert(std::is_trivially_copyable_v<Reasons> && alignof(Reasons) == 1);
    if (codes.size() != sizeof(Reasons))
        throw nb::value_error("wrong number of fault reasons");
    Reasons reasons;
    std::memcpy(&reasons, codes.data(), sizeof reasons);
    return reasons;
}

UnitConfig make_config(u64 capability, u64 extended_capability, u32 version,
                       unsigned host_address_width, std::vector<std::pair<u64, u64>> memory,
                       u64 page_budget, u64 descriptor_budget, nb::bytes legacy_entries,
                       nb::bytes scalable_entries, nb::bytes legacy_second_stage,
                       nb::bytes scalable_second_stage, nb::dict switches, u64 untraced_descriptors,
                       u64 fault_record_ignored, unsigned updates, u32 virtual_commands) {
    if (updates >= updates_count)
        throw nb::value_error("updates are not known");
    UnitConfig config;
    config.updates = static_cast<Updates>(updates);
    config.capability = capability;
    config.extended_capability = extended_capability;
    config.version = version;
    config.host_address_width = host_address_width;
    config.page_budget = page_budget;
    config.descriptor_budget = descriptor_budget;
    for (const auto &[start, length] : memory)
        if (length != 0)
            config.ram.push_back({start, start + (length - 1)});
    Dialect &dialect = config.dialect;
    dialect.legacy_entries = reasons_from<EntryReasons>(legacy_entries);
    dialect.scalable_entries = reasons_from<EntryReasons>(scalable_entries);
    dialect.legacy_second_stage = reasons_from<SecondStageReasons>(legacy_second_stage);
    dialect.scalable_second_stage = reasons_from<SecondStageReasons>(scalable_second_stage);
    const std::pair<const char *, bool *> flags[] = {
        {"snoop_bit_in_scalable", &dialect.snoop_bit_in_scalable},
        {"execute_disable_reserved", &dialect.execute_disable_reserved},
        {"interrupt_range_by_page", &dialect.interrupt_range_by_page},
        {"pasid_type_before_present", &dialect.pasid_type_before_present},
        {"pasid_structures_checked", &dialect.pasid_structures_checked},
        {"root_pointer_checked", &dialect.root_pointer_checked},
        {"root_mode_checked", &dialect.root_mode_checked},
        {"dirty_tracking_checked", &dialect.dirty_tracking_checked},
        {"pass_through_any_width", &dialect.pass_through_any_width},
        {"first_stage_rights_by_level", &dialect.first_stage_rights_by_level},
        {"all_ones_unreadable", &dialect.all_ones_unreadable},
        {"context_reserved_unqualified", &dialect.context_reserved_unqualified},
        {"honours_rid_pasid", &dialect.honours_rid_pasid},
        {"compatibility_format_passes", &dialect.compatibility_format_passes},
        {"request_data_checked_last", &dialect.request_data_checked_last},
        {"interrupt_index_wraps", &dialect.interrupt_index_wraps},
        {"interrupt_destination_checked", &dialect.interrupt_destination_checked},
        {"posted_taken_for_remapped", &dialect.posted_taken_for_remapped},
        {"handle_mask_checked", &dialect.handle_mask_checked},
        {"nested_unsupported", &dialect.nested_unsupported},
        {"device_selective_ignores_domain", &dialect.device_selective_ignores_domain},
        {"upper_event_addresses", &dialect.upper_event_addresses},
        {"device_requests_unchecked", &dialect.device_requests_unchecked},
        {"device_messages_traced", &dialect.device_messages_traced},
        {"resumes_after_queue_error", &dialect.resumes_after_queue_error},
    };
    set_switches(flags, switches);
    dialect.untraced_descriptors = untraced_descriptors;
    dialect.fault_record_ignored = fault_record_ignored;
    config.virtual_commands = virtual_commands;
    return config;
}

u32 pasid_from(std::optional<u32> pasid) {
    if (pasid.has_value() && *pasid >= (1U << layout::PasidIotlbInvalidation::pasid.width))
        throw nb::value_error("a PASID has 20 bits");
    return pasid.value_or(no_pasid);
}

u8 attributes_from(unsigned attributes) {
    constexpr u8 types = is_translation_request | is_translated;
    if (attributes > (types | is_privileged) || (attributes & types) == types)
        throw nb::value_error("attributes are not known");
    return static_cast<u8>(attributes);
}

nb::tuple access(Unit &unit, u16 sid, std::optional<u32> pasid, u64 iova, unsigned kind,
                 nb::object recorded, unsigned attributes) {
    const Request request{sid, pasid_from(pasid), iova, kind_from(kind),
                          attributes_from(attributes)};
    const Permitted &permitted = unit.access(request, to_outcome(recorded));
    nb::list candidates;
    for (const Candidate &candidate : permitted.candidates())
        candidates.append(from_candidate(candidate));
    return nb::tuple(candidates);
}

nb::tuple interrupt(Unit &unit, std::optional<u16> sid, u64 address, u32 data,
                    nb::object recorded) {
    const RemappingResult result = unit.interrupt(
        {sid.has_value() ? u32{*sid} : no_source, address, data}, to_outcome(recorded));
    nb::list permitted;
    for (const Remapping &one : result.permitted)
        permitted.append(from_remapping(one));
    return nb::tuple(permitted);
}

void translate(Unit &unit, Buffer<const u16> sids, Buffer<const u32> pasids,
               Buffer<const u64> iovas, Buffer<const u8> kinds, Buffer<u64> addresses,
               Buffer<u8> statuses, std::optional<Buffer<const u8>> attributes, bool cold) {
    const std::size_t count = sids.size();
    if (pasids.size() != count || iovas.size() != count || kinds.size() != count ||
        addresses.size() != count || statuses.size() != count ||
        (attributes.has_value() && attributes->size() != count))
        throw nb::value_error("the buffers differ in length");
    constexpr u32 pasid_end = 1U << layout::PasidIotlbInvalidation::pasid.width;
    for (const u32 pasid : pasids.span())
        if (pasid >= pasid_end && pasid != no_pasid)
            throw nb::value_error("a PASID has 20 bits");
    for (const u8 kind : kinds.span())
        kind_from(kind);
    const u8 *of_requests = nullptr;
    if (attributes.has_value()) {
        of_requests = attributes->data();
        for (const u8 each : attributes->span())
            attributes_from(each);
    }
    unit.translate({count, sids.data(), pasids.data(), iovas.data(), kinds.data(), addresses.data(),
                    statuses.data(), of_requests},
                   cold);
}

void bind_unit(nb::module_ &m) {
    nb::class_<UnitConfig>(m, "Config")
        .def(
            "__init__",
            [](UnitConfig *self, u64 capability, u64 extended_capability, u32 version,
               unsigned host_address_width, std::vector<std::pair<u64, u64>> memory,
               u64 page_budget, u64 descriptor_budget, nb::bytes legacy_entries,
               nb::bytes scalable_entries, nb::bytes legacy_second_stage,
               nb::bytes scalable_second_stage, nb::dict switches, u64 untraced_descriptors,
               u64 fault_record_ignored, unsigned updates, u32 virtual_commands) {
                new (self) UnitConfig(make_config(
                    capability, extended_capability, version, host_address_width, std::move(memory),
                    page_budget, descriptor_budget, legacy_entries, scalable_entries,
                    legacy_second_stage, scalable_second_stage, switches, untraced_descriptors,
                    fault_record_ignored, updates, virtual_commands));
            },
            nb::kw_only(), nb::arg("capability"), nb::arg("extended_capability"),
            nb::arg("version"), nb::arg("host_address_width"), nb::arg("memory"),
            nb::arg("page_budget"), nb::arg("descriptor_budget"), nb::arg("legacy_entries"),
            nb::arg("scalable_entries"), nb::arg("legacy_second_stage"),
            nb::arg("scalable_second_stage"), nb::arg("switches"), nb::arg("untraced_descriptors"),
            nb::arg("fault_record_ignored"), nb::arg("updates"), nb::arg("virtual_commands"));

    nb::class_<Unit>(m, "Unit")
        .def(nb::init<UnitConfig>(), nb::arg("config"))
        .def_rw("event", &Unit::event)
        .def("reset", &Unit::reset)
        .def("store",
             [](Unit &unit, u64 address, unsigned size, u64 value) {
                 check_size(size);
                 unit.store(address, size, value);
             })
        .def("snapshot",
             [](Unit &unit, u64 address, Buffer<const u8> data) {
                 if (address % page_size != 0 || data.size() > page_size)
                     throw nb::value_error("a snapshot is one page");
                 unit.snapshot(address, std::as_bytes(data.span()));
             })
        .def("load",
             [](const Unit &unit, u64 address, std::size_t length) {
                 std::vector<std::byte> out(length);
                 unit.load(address, out);
                 return nb::bytes(out.data(), out.size());
             })
        .def("last_writer",
             [](const Unit &unit, u64 address) -> nb::object {
                 const u64 writer = unit.memory().writer(address);
                 if (writer == Memory::no_writer)
                     return nb::none();
                 return nb::int_(writer - 1);
             })
        .def("read_register", &Unit::read_register)
        .def("write_register", &Unit::write_register)
        .def("access", &access, nb::arg("sid"), nb::arg("pasid").none(), nb::arg("iova"),
             nb::arg("kind"), nb::arg("recorded").none() = nb::none(), nb::arg("attributes") = 0U)
        .def("interrupt", &interrupt, nb::arg("sid").none(), nb::arg("address"), nb::arg("data"),
             nb::arg("recorded").none() = nb::none())
        .def(
            "page_request",
            [](Unit &unit, u16 sid, std::optional<u32> pasid, u64 address, u32 flags, u32 group) {
                if (address % page_size != 0 || flags > 31 || group > 0x1ff)
                    throw nb::value_error("a page request cannot say that");
                unit.page_request({sid, pasid_from(pasid), address, flags, group});
            },
            nb::arg("sid"), nb::arg("pasid").none(), nb::arg("address"), nb::arg("flags"),
            nb::arg("group"))
        .def("adopt_read", &Unit::adopt_read)
        .def("translate", &translate, nb::arg("sids"), nb::arg("pasids"), nb::arg("iovas"),
             nb::arg("kinds"), nb::arg("addresses"), nb::arg("statuses"),
             nb::arg("attributes").none(), nb::kw_only(), nb::arg("cold"))
        .def("use_wide_registers",
             [](Unit &unit, bool wide) { unit.batch().use_wide_registers(wide); })
        .def("adopt", [](Unit &unit, nb::object seen) { unit.adopt(to_observation(seen)); })
        .def("emitted", &take_emitted<Unit>)
        .def("findings", &take_findings<Unit>);
}

} // namespace
} // namespace dmarewind::bind

NB_MODULE(_core, m) {
#if defined(DMAREWIND_INSTRUMENTED)
    m.attr("instrumented") = true;
#else
    m.attr("instrumented") = false;
#endif
    m.attr("NO_PASID") = dmarewind::no_pasid;
    nanobind::exception<dmarewind::MemoryError>(m, "MemoryError", PyExc_MemoryError);
    nanobind::exception<dmarewind::DescriptorError>(m, "DescriptorError", PyExc_RuntimeError);
    dmarewind::bind::bind_unit(m);
    dmarewind::bind::bind_replay<dmarewind::Replay, dmarewind::UnitConfig>(m, "Replay");
    dmarewind::bind::bind_acpi(m);
    dmarewind::bind::bind_virtio(m);
    dmarewind::bind::bind_scaffold(m);
    dmarewind::bind::bind_defects(m);
}
