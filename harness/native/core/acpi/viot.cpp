// VIOT in its final form (decoders/acpi/viot.py, harness/acpi/resolve_viot.py).
#include "defects.hpp"
#include "reading.hpp"
#include "resolve.hpp"

namespace dmarewind::acpi {

using layout::MmioEndpoint;
using layout::PciRange;
using layout::ViotNodeHeader;
using layout::VirtioMmioIommu;
using layout::VirtioPciIommu;

void read_viot(Reading &reading, std::size_t start, std::size_t end) {
    const Bytes data = reading.data();
    reading.counted<layout::Viot>(start, end, [&](const Place &place, std::size_t at) {
        if (!reading.structure(ViotNodeHeader::self, place, at, end))
            return false;
        const u64 length = get(data, at, ViotNodeHeader::length);
        const Structure *form = form_of(layout::viot_nodes, get(data, at, ViotNodeHeader::type));
        if (form == nullptr)
            form = &ViotNodeHeader::self;
        if (!reading.fits(*form, ViotNodeHeader::length, place, at, length, end) ||
            !reading.structure(*form, place, at, end))
            return false;
        reading.add(*form, at, length);
        return true;
    });
}

namespace {

Answer behind(const Table &table, const Node &node, u64 output, const Device &device,
              u32 endpoint) {
    const Node *target = table.find(output);
    if (target != nullptr && target->form == &VirtioPciIommu::self) {
        const auto segment = static_cast<u16>(table.get(*target, VirtioPciIommu::segment));
        const auto bdf = static_cast<u16>(table.get(*target, VirtioPciIommu::bdf));
        if (device.is({segment, bdf}))
            return {Why::is_iommu, table.place(*target)};
        const Iommu iommu{IommuKind::virtio_pci, target->offset, std::nullopt, segment, bdf};
        return {iommu, endpoint, table.place(node)};
    }
    if (target != nullptr && target->form == &VirtioMmioIommu::self) {
        const u64 base = table.get(*target, VirtioMmioIommu::base_address);
        if (device.kind == DeviceKind::mmio && device.address == base)
            return {Why::is_iommu, table.place(*target)};
        return {Iommu{IommuKind::virtio_mmio, target->offset, base}, endpoint, table.place(node)};
    }
    return {Why::dangling, table.place(node).then("output_node"), "no IOMMU at " + hex(output)};
}

} // namespace

Answer resolve_viot(const Table &table, const Question &question) {
    const Device &device = question.device();
    if (device.kind == DeviceKind::named)
        return {Why::no_such_name, table.place(), "a VIOT gives addresses, not names"};
    const Function shown = question.shown();
    for (const Node &node : table.nodes) {
        const auto value = [&](const Field &field) { return table.get(node, field); };
        if (device.kind == DeviceKind::mmio) {
            if (node.form == &MmioEndpoint::self &&
                value(MmioEndpoint::base_address) == device.address)
                return behind(table, node, value(MmioEndpoint::output_node), device,
                              static_cast<u32>(value(MmioEndpoint::endpoint)));
        } else if (node.form == &PciRange::self) {
            const u64 segment = value(PciRange::segment_start), bdf = value(PciRange::bdf_start);
            const bool beyond = shown.segment > value(PciRange::segment_end) &&
                                !defect(Defect::acpi_segment_ignored);
            if (shown.segment < segment || beyond || shown.bdf < bdf ||
                shown.bdf > value(PciRange::bdf_end))
                continue;
            const u64 endpoint = ((shown.segment - segment) << 16) + (shown.bdf - bdf) +
                                 value(PciRange::endpoint_start);
            const bool narrow = defect(Defect::acpi_endpoint_of_16_bits);
            return behind(table, node, value(PciRange::output_node), device,
                          static_cast<u32>(narrow ? endpoint & 0xffff : endpoint));
        }
    }
    return {Why::not_described, table.place()};
}

} // namespace dmarewind::acpi
