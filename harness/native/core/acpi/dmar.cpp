// DMAR (decoders/acpi/dmar.py, harness/acpi/resolve_dmar.py).
#include "defects.hpp"
#include "names.hpp"
#include "reading.hpp"
#include "resolve.hpp"

#include <algorithm>

namespace dmarewind::acpi {

using namespace layout;

namespace {

bool has_scopes(const Structure &form) {
    return &form == &Drhd::self || &form == &Rmrr::self || &form == &Atsr::self ||
           &form == &Satc::self || &form == &Sidp::self;
}

bool read_scope(Reading &reading, const Place &place, std::size_t at, std::size_t end) {
    if (!reading.structure(DeviceScope::self, place, at, end, "node"))
        return false;
    constexpr u32 size = DeviceScope::self.size;
    const u64 length = get(reading.data(), at, DeviceScope::length);
    if (length < size || (at + length > end && !defect(Defect::acpi_scope_overruns))) {
        std::string text =
            decimal(length) + " bytes, a device scope takes at least " + decimal(size);
        if (length >= size)
            text = "scope of " + decimal(length) + " bytes runs past its node, " +
                   decimal(end - at) + " are left";
        return reading.fail(place.then("length"), std::move(text), at + DeviceScope::length.offset);
    }
    const u64 steps = (length - size) / PathStep::self.size;
    return reading.array(PathStep::self, place.then("path"), at + size, steps, at + length);
}

bool read_scopes(Reading &reading, const Place &place, std::size_t start, std::size_t end) {
    std::int64_t index = 0;
    for (std::size_t at = start; at < end; at += get(reading.data(), at, DeviceScope::length))
        if (!read_scope(reading, place.then("scope", index++), at, end))
            return false;
    return true;
}

} // namespace

void read_dmar(Reading &reading, std::size_t start, std::size_t end) {
    const Bytes data = reading.data();
    reading.sequence<Dmar>(start, end, [&](const Place &place, std::size_t at) {
        if (!reading.structure(DmarNodeHeader::self, place, at, end))
            return false;
        const u64 length = get(data, at, DmarNodeHeader::length);
        const Structure *form = form_of(dmar_nodes, get(data, at, DmarNodeHeader::type));
        if (form == nullptr)
            form = &DmarNodeHeader::self;
        if (!reading.fits(*form, DmarNodeHeader::length, place, at, length, end) ||
            !reading.structure(*form, place, at, end))
            return false;
        Node node{form, static_cast<u32>(at), static_cast<u32>(at + length)};
        if (has_scopes(*form) && !read_scopes(reading, place, node.after(), node.end))
            return false;
        if (form == &Andd::self && node.after() < node.end) {
            const Bytes text = data.subspan(node.after(), node.end - node.after());
            node.name = as_text(text).substr(0, as_text(text).find('\0'));
        }
        reading.add(node);
        return true;
    });
}

namespace {

// A device scope of a node that has been read.
class Scope {
  public:
    Scope(const Table &table, std::size_t at, std::int64_t index)
        : data_(table.data), at_(at), index_(index) {}

    u64 value(const Field &field) const { return get(data_, at_, field); }
    std::size_t next() const { return at_ + value(DeviceScope::length); }
    std::int64_t index() const { return index_; }

    ScopeType type() const { return static_cast<ScopeType>(value(DeviceScope::entry_type)); }
    bool names_pci() const {
        return type() == ScopeType::endpoint || type() == ScopeType::sub_hierarchy;
    }

    // The function at the end of the path; none when a bridge on it is not known.
    std::optional<Function> end(u32 segment, const Topology *topology) const {
        std::optional<Function> end;
        u64 bus = value(DeviceScope::bus);
        constexpr u32 step = PathStep::self.size;
        for (std::size_t at = at_ + DeviceScope::self.size; at + step <= next(); at += step) {
            if (end.has_value()) {
                const Bridge *bridge = topology == nullptr ? nullptr : topology->at(*end);
                if (bridge == nullptr)
                    return std::nullopt;
                if (!defect(Defect::acpi_secondary_bus_lost))
                    bus = bridge->secondary;
            }
            const u64 device = get(data_, at, PathStep::device) & 0x1f;
            const u64 function = get(data_, at, PathStep::function) & 7;
            end = Function{segment, static_cast<u16>(bus << 8 | device << 3 | function)};
        }
        return end;
    }

  private:
    Bytes data_;
    std::size_t at_;
    std::int64_t index_;
};

// Call visit with each scope of a node until it returns true; return whether it did.
template <class Visit> bool any_scope(const Table &table, const Node &node, Visit visit) {
    std::int64_t index = 0;
    for (std::size_t at = node.after(); at < node.end;) {
        const Scope scope(table, at, index++);
        if (visit(scope))
            return true;
        at = scope.next();
    }
    return false;
}

Iommu unit_of(const Table &table, const Node &node) {
    return {IommuKind::vt_d, node.offset, table.get(node, Drhd::address),
            static_cast<u32>(table.get(node, Drhd::segment))};
}

// Whether a scope names a device or a bridge above it; none when that is not known.
std::optional<bool> covers(const Scope &scope, const Question &question) {
    const Function device = question.device().function;
    const std::optional<Function> end = scope.end(device.segment, question.topology());
    const std::optional<bool> unknown =
        question.topology() == nullptr ? std::nullopt : std::optional(false);
    if (!end.has_value())
        return unknown;
    if (*end == device)
        return true;
    if (scope.type() != ScopeType::sub_hierarchy)
        return false;
    // A bridge has higher bus numbers behind it than its own.
    if (question.topology() == nullptr)
        return device.bus() > end->bus() ? unknown : false;
    return std::ranges::find(question.above(), *end, &Bridge::function) != question.above().end();
}

// Whether a device may use ATS (Linux dmar_ats_supported); none when that is not known.
std::optional<bool> ats(const Table &table, const Question &question) {
    if (question.topology() == nullptr)
        return std::nullopt;
    const Function device = question.device().function;
    const auto names = [&](const Node &node, Function wanted) {
        return any_scope(table, node, [&](const Scope &scope) {
            return scope.names_pci() && scope.end(device.segment, question.topology()) == wanted;
        });
    };
    for (const Node &node : table.nodes)
        if (node.form == &Satc::self && table.get(node, Satc::segment) == device.segment &&
            names(node, device))
            return true;
    const std::span<const Bridge> above = question.above();
    if (above.empty())
        return true; // integrated into the root complex
    for (const Bridge &bridge : above)
        if (bridge.kind != BridgeKind::express)
            return false;
    for (const Node &node : table.nodes)
        if (node.form == &Atsr::self && table.get(node, Atsr::segment) == device.segment &&
            ((table.get(node, Atsr::flags) & Atsr::flags_all_ports) != 0 ||
             names(node, above.back().function)))
            return true;
    return false;
}

Answer resolve_pci(const Table &table, const Question &question) {
    const u32 segment = question.device().function.segment;
    const u32 endpoint = question.shown().bdf;
    std::optional<Place> unsure;
    const Node *everything = nullptr;
    for (const Node &node : table.nodes) {
        if (node.form != &Drhd::self || table.get(node, Drhd::segment) != segment)
            continue;
        std::optional<Place> claim;
        any_scope(table, node, [&](const Scope &scope) {
            if (!scope.names_pci())
                return false;
            const std::optional<bool> named = covers(scope, question);
            const Place place = table.place(node).then("scope", scope.index());
            if (!named.has_value() && !unsure.has_value())
                unsure = place;
            if (named == true)
                claim = place;
            return claim.has_value();
        });
        if (claim.has_value())
            return {unit_of(table, node), endpoint, *claim, ats(table, question)};
        const bool all = (table.get(node, Drhd::flags) & Drhd::flags_include_pci_all) != 0;
        if (all && defect(Defect::acpi_all_before_scopes))
            return {unit_of(table, node), endpoint, table.place(node).then("flags"),
                    ats(table, question)};
        if (all && everything == nullptr)
            everything = &node;
    }
    if (unsure.has_value())
        return {Why::topology, *unsure, "the path goes over bridges"};
    if (everything != nullptr)
        return {unit_of(table, *everything), endpoint, table.place(*everything).then("flags"),
                ats(table, question)};
    return {Why::not_described, table.place()};
}

Answer resolve_named(const Table &table, const Question &question) {
    const auto andd = std::ranges::find_if(table.nodes, [&](const Node &node) {
        return node.form == &Andd::self && node.name.has_value() &&
               shows_as(*node.name, question.device().name);
    });
    if (andd == table.nodes.end())
        return {Why::not_described, table.place(), "no ANDD has that name"};
    const u64 number = table.get(*andd, Andd::device_number);
    for (const Node &node : table.nodes) {
        if (node.form != &Drhd::self)
            continue;
        std::optional<Answer> answer;
        any_scope(table, node, [&](const Scope &scope) {
            if (scope.type() != ScopeType::namespace_ ||
                scope.value(DeviceScope::enumeration_id) != number)
                return false;
            const Iommu unit = unit_of(table, node);
            const Place place = table.place(node).then("scope", scope.index());
            if (const auto end = scope.end(*unit.segment, question.topology()); end.has_value())
                answer = Answer(unit, end->bdf, place);
            else
                answer = Answer(Why::topology, place, "the path goes over bridges");
            return true;
        });
        if (answer.has_value())
            return *answer;
    }
    return {Why::not_described, table.place(), "no unit has device number " + decimal(number)};
}

} // namespace

Answer resolve_dmar(const Table &table, const Question &question) {
    switch (question.device().kind) {
    case DeviceKind::pci:
        return resolve_pci(table, question);
    case DeviceKind::named:
        return resolve_named(table, question);
    case DeviceKind::mmio:
        break;
    }
    return {Why::no_such_name, table.place(), "a DMAR gives PCI functions and names"};
}

} // namespace dmarewind::acpi
