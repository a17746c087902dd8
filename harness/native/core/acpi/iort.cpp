// IORT, also as a draft VIOT wraps it (decoders/acpi/iort.py, harness/acpi/resolve_iort.py).
#include "defects.hpp"
#include "names.hpp"
#include "reading.hpp"
#include "resolve.hpp"

#include <algorithm>
#include <array>

namespace dmarewind::acpi {

using namespace layout;

namespace {

// An array in a node: its name, its elements, and the field that places it (or counts it).
struct Array {
    std::string_view name;
    const Structure *element;
    u64 count;
    u64 offset;
    const Field *field;
};

struct Arrays {
    std::array<Array, 4> all;
    unsigned count = 0;

    void add(std::string_view name, const Structure &element, u64 number, u64 offset,
             const Field &field) {
        if (number != 0)
            all[count++] = {name, &element, number, offset, &field};
    }
};

bool is_root_complex(const Node &node) {
    return node.form == &RootComplex::self || node.form == &EarlyRootComplex::self;
}

bool is_named(const Node &node) {
    return node.form == &NamedComponent::self || node.form == &Iwb::self;
}

Arrays arrays_of(const Table &table, const Node &node) {
    const auto value = [&](const Field &field) { return table.get(node, field); };
    Arrays arrays;
    if (node.form == &ItsGroup::self) {
        arrays.add("identifier", Number32::self, value(ItsGroup::its_count), ItsGroup::self.size,
                   ItsGroup::its_count);
    } else if (node.form == &Smmu::self) {
        const u64 global = value(Smmu::global_interrupt_offset);
        arrays.add("global_interrupt", GlobalInterrupts::self, global != 0, global,
                   Smmu::global_interrupt_offset);
        arrays.add("context_interrupt", Number64::self, value(Smmu::context_interrupt_count),
                   value(Smmu::context_interrupt_offset), Smmu::context_interrupt_offset);
        arrays.add("pmu_interrupt", Number64::self, value(Smmu::pmu_interrupt_count),
                   value(Smmu::pmu_interrupt_offset), Smmu::pmu_interrupt_offset);
    } else if (node.form == &ReservedMemory::self) {
        arrays.add("range", ReservedRange::self, value(ReservedMemory::rmr_count),
                   value(ReservedMemory::rmr_offset), ReservedMemory::rmr_offset);
    }
    arrays.add("mapping", IdMapping::self, value(IortNodeHeader::mapping_count),
               value(IortNodeHeader::mapping_offset), IortNodeHeader::mapping_offset);
    return arrays;
}

// Read what follows the fixed part of a node: its name and its arrays.
bool read_parts(Reading &reading, const Place &place, Node &node) {
    Arrays arrays = arrays_of(reading.table(), node);
    const std::span<Array> all(arrays.all.data(), arrays.count);
    for (const Array &array : all) {
        const u64 start = node.offset + array.offset;
        if (start < node.after() || start > node.end)
            return reading.fail(place.then(array.field->name),
                                hex(array.offset) + " is not behind the fixed part of the node",
                                node.offset + array.field->offset);
        if (!reading.array(*array.element, place.then(array.name), start, array.count, node.end))
            return false;
        if (array.element == &IdMapping::self) {
            node.mappings = static_cast<u32>(start);
            node.mapping_count = static_cast<u32>(array.count);
        }
    }
    std::ranges::stable_sort(all, {}, &Array::offset);
    u64 after = node.after();
    if (is_named(node)) {
        const u64 stop = all.empty() ? node.end : node.offset + all[0].offset;
        const std::string_view text = as_text(reading.data().subspan(after, stop - after));
        node.name = text.substr(0, text.find('\0'));
        after = stop;
    }
    for (const Array &array : all) {
        const u64 start = node.offset + array.offset;
        if (start < after)
            return reading.fail(place.then(array.name), "overlaps what comes before it in the node",
                                start);
        after = start + array.count * array.element->size;
    }
    return true;
}

} // namespace

void read_iort(Reading &reading, std::size_t start, std::size_t end, bool draft) {
    const Bytes data = reading.data();
    const std::span<const Form> known =
        draft ? std::span<const Form>(draft_iort_nodes) : std::span<const Form>(iort_nodes);
    reading.counted<Iort>(start, end, [&](const Place &place, std::size_t at) {
        if (!reading.structure(IortNodeHeader::self, place, at, end))
            return false;
        const u64 type = get(data, at, IortNodeHeader::type);
        const u64 length = get(data, at, IortNodeHeader::length);
        const Structure *form = least_form_of(known, type);
        if (form == nullptr)
            form = &IortNodeHeader::self;
        if (!reading.fits(*form, IortNodeHeader::length, place, at, length, end))
            return false;
        // Early forms of a node are shorter; where its mappings begin tells them apart.
        const u64 mappings = get(data, at, IortNodeHeader::mapping_offset);
        const bool mapped = get(data, at, IortNodeHeader::mapping_count) != 0;
        const u64 room = mapped && mappings >= form->size && mappings < length ? mappings : length;
        if (const Structure *longest = form_of(known, type, room); longest != nullptr)
            form = longest;
        if (!reading.structure(*form, place, at, end))
            return false;
        Node node{form, static_cast<u32>(at), static_cast<u32>(at + length)};
        if (!read_parts(reading, place, node))
            return false;
        reading.add(node);
        return true;
    });
}

namespace {

struct Mapped {
    u32 id;
    u64 reference;
    u32 index;
};

// Return the id that a node's mappings give, and where they lead.
std::optional<Mapped> map(const Table &table, const Node &node, u32 wanted) {
    std::optional<Mapped> found;
    for (u32 index = 0; index < node.mapping_count; ++index) {
        const std::size_t at = node.mappings + std::size_t{index} * IdMapping::self.size;
        const auto value = [&](const Field &field) {
            return static_cast<u32>(get(table.data, at, field));
        };
        const u32 reference = value(IdMapping::output_reference);
        if (index == 0 && reference == 0)
            return std::nullopt; // Linux gives up on the node
        if ((value(IdMapping::flags) & IdMapping::flags_single_mapping) != 0) {
            if (is_named(node) || is_root_complex(node))
                return Mapped{value(IdMapping::output_base), reference, index};
            continue;
        }
        const u32 first = value(IdMapping::input_base), count = value(IdMapping::id_count);
        const u32 more = defect(Defect::acpi_id_count_exclusive) ? count - 1 : count;
        const u32 last = first + more; // wraps, as in Linux
        if (wanted < first || wanted > last)
            continue;
        if (found.has_value() && found->reference != 0 && wanted != first)
            continue;
        found = Mapped{value(IdMapping::output_base) + wanted - first, reference, index};
        // id_count is the number of ids less one, but some firmware gives the number: the last id
        // belongs to a range that begins with it, if there is one.
        if (count == 0 || wanted != last)
            break;
    }
    return found;
}

std::optional<Iommu> iommu_at(const Table &table, const Node &node) {
    const auto value = [&](const Field &field) { return table.get(node, field); };
    if (node.form == &SmmuV3::self || node.form == &EarlySmmuV3::self)
        return Iommu{IommuKind::smmu_v3, node.offset, value(EarlySmmuV3::base_address)};
    if (node.form == &Smmu::self)
        return Iommu{IommuKind::smmu, node.offset, value(Smmu::base_address)};
    if (node.form == &DraftVirtioMmio::self)
        return Iommu{IommuKind::virtio_mmio, node.offset, value(DraftVirtioMmio::base_address)};
    if (node.form == &DraftVirtioPci::self) {
        const u64 place = value(DraftVirtioPci::devid);
        return Iommu{IommuKind::virtio_pci, node.offset, std::nullopt,
                     static_cast<u32>(place >> 16), static_cast<u16>(place)};
    }
    return std::nullopt;
}

Answer follow(const Table &table, const Node &start, u32 number, const Device &device,
              std::optional<bool> ats) {
    std::vector<bool> seen(table.nodes.size());
    const Node *node = &start;
    while (true) {
        if (const auto iommu = iommu_at(table, *node); iommu.has_value()) {
            if (iommu->bdf.has_value() && device.is({*iommu->segment, *iommu->bdf}))
                return {Why::is_iommu, table.place(*node)};
            return {*iommu, number, table.place(start), ats};
        }
        const auto index = static_cast<std::size_t>(node - table.nodes.data());
        if (seen[index] && !defect(Defect::acpi_circle_unnoticed))
            return {Why::circle, table.place(*node)};
        seen[index] = true;
        const std::optional<Mapped> mapped = map(table, *node, number);
        if (!mapped.has_value())
            return {Why::no_mapping, table.place(*node), "for id " + hex(number)};
        const Node *target = table.find(mapped->reference);
        if (target == nullptr)
            return {Why::dangling, table.place(*node).then("mapping", mapped->index),
                    "no node at " + hex(mapped->reference)};
        number = mapped->id;
        node = target;
    }
}

} // namespace

Answer resolve_iort(const Table &table, const Question &question) {
    const Device &device = question.device();
    if (device.kind == DeviceKind::mmio)
        return {Why::no_such_name, table.place(), "an IORT gives names, not addresses"};
    if (device.kind == DeviceKind::named) {
        for (const Node &node : table.nodes)
            if (node.form == &NamedComponent::self && shows_as(*node.name, device.name))
                return follow(table, node, device.id, device, std::nullopt);
        return {Why::not_described, table.place()};
    }
    // Of several root complexes for a segment Linux takes the first.
    for (const Node &node : table.nodes) {
        if (!is_root_complex(node) ||
            table.get(node, EarlyRootComplex::pci_segment_number) != device.function.segment)
            continue;
        const u64 attribute = table.get(node, EarlyRootComplex::ats_attribute);
        const bool ats = (attribute & EarlyRootComplex::ats_attribute_ats) != 0;
        return follow(table, node, question.shown().bdf, device, ats);
    }
    return {Why::not_described, table.place(),
            "no root complex of segment " + decimal(device.function.segment)};
}

} // namespace dmarewind::acpi
