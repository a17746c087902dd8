#include "resolve.hpp"

namespace dmarewind::acpi {

Question::Question(Device device, const Topology *topology)
    : device_(std::move(device)), topology_(topology) {
    if (topology_ != nullptr && device_.kind == DeviceKind::pci)
        above_ = topology_->above(device_.function);
    shown_ = requester(device_.function, above_);
}

Answer resolve(const Table &table, const Question &question) {
    switch (table.kind) {
    case Kind::viot:
        return resolve_viot(table, question);
    case Kind::iort:
        return resolve_iort(table, question);
    case Kind::dmar:
        return resolve_dmar(table, question);
    case Kind::ivrs:
        return resolve_ivrs(table, question);
    case Kind::other:
        break;
    }
    return {Why::no_table, table.place(), table.signature + " names no IOMMU"};
}

} // namespace dmarewind::acpi
