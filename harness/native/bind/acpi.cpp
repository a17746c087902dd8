#include "acpi.hpp"

#include "acpi/resolve.hpp"
#include "buffer.hpp"
#include "convert.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>

namespace dmarewind::bind {
namespace {

using PlainBridges = std::optional<std::vector<nb::tuple>>;

template <class Number> Number number_from(nb::handle value) {
    Number number;
    if (!nb::try_cast<Number>(value, number))
        throw nb::value_error("a number of a device or bridge does not fit");
    return number;
}

std::string text_from(nb::handle value) {
    const auto bytes = nb::cast<nb::bytes>(value);
    return {bytes.c_str(), bytes.size()};
}

acpi::Device device_from(nb::tuple plain) {
    const auto kind = plain.size() == 0 ? "" : nb::cast<std::string>(plain[0]);
    acpi::Device device{};
    if (kind == "pci" && plain.size() == 3) {
        device.kind = acpi::DeviceKind::pci;
        device.function = {number_from<u32>(plain[1]), number_from<u16>(plain[2])};
    } else if (kind == "mmio" && plain.size() == 2) {
        device.kind = acpi::DeviceKind::mmio;
        device.address = number_from<u64>(plain[1]);
    } else if (kind == "named" && plain.size() == 5) {
        device.kind = acpi::DeviceKind::named;
        device.name = text_from(plain[1]);
        device.uid = text_from(plain[2]);
        if (!plain[3].is_none())
            device.number = text_from(plain[3]);
        device.id = number_from<u32>(plain[4]);
    } else {
        throw nb::value_error("not a device");
    }
    return device;
}

acpi::Topology topology_from(const std::vector<nb::tuple> &plain) {
    std::vector<acpi::Bridge> bridges;
    for (const nb::tuple &bridge : plain) {
        if (bridge.size() != 4)
            throw nb::value_error("not a bridge");
        const acpi::Function function{number_from<u32>(bridge[0]), number_from<u16>(bridge[1])};
        const auto kind = nb::cast<std::string>(bridge[3]);
        const auto names = std::span(acpi::layout::bridge_kind_names);
        const auto found = std::ranges::find(names, kind);
        if (found == names.end())
            throw nb::value_error("not a kind of bridge");
        const auto known = static_cast<acpi::BridgeKind>(found - names.begin());
        bridges.push_back({function, number_from<u8>(bridge[2]), known});
    }
    return acpi::Topology(bridges);
}

template <class Enum, std::size_t size>
nb::str name_of(Enum value, const std::string_view (&names)[size]) {
    const std::string_view name = names[static_cast<std::size_t>(value)];
    return nb::str(name.data(), name.size());
}

template <class Number> nb::object number_or_minus_one(const std::optional<Number> &value) {
    return value.has_value() ? nb::object(nb::int_(*value)) : nb::object(nb::int_(-1));
}

nb::tuple from_answer(const acpi::Answer &answer) {
    if (!answer.behind.has_value()) {
        const acpi::Nowhere &nowhere = answer.nowhere;
        return tuple("nowhere", name_of(nowhere.why, acpi::layout::why_names), nowhere.path,
                     nowhere.text);
    }
    const acpi::Behind &behind = *answer.behind;
    const acpi::Iommu &iommu = behind.iommu;
    return tuple("behind", name_of(iommu.kind, acpi::layout::iommu_kind_names), iommu.node,
                 number_or_minus_one(iommu.base), number_or_minus_one(iommu.segment),
                 number_or_minus_one(iommu.bdf), behind.endpoint, behind.path, behind.ats);
}

// Devices and a topology, ready to be asked about any number of tables.
class Questions {
  public:
    Questions(std::vector<nb::tuple> devices, const PlainBridges &bridges) {
        if (bridges.has_value())
            topology_ = std::make_unique<acpi::Topology>(topology_from(*bridges));
        for (const nb::tuple &device : devices)
            questions_.emplace_back(device_from(device), topology_.get());
    }

    nb::tuple ask(Buffer<const u8> data) const {
        const acpi::Table table = acpi::read_table(std::as_bytes(data.span()));
        nb::list answers;
        for (const acpi::Question &question : questions_)
            answers.append(from_answer(acpi::resolve(table, question)));
        nb::object problem = nb::none();
        if (table.problem.has_value())
            problem = tuple(table.problem->path, table.problem->text, table.problem->offset);
        return tuple(problem, nb::tuple(answers));
    }

    // The same without handing over what comes of it.
    void run(Buffer<const u8> data) const {
        const acpi::Table table = acpi::read_table(std::as_bytes(data.span()));
        for (const acpi::Question &question : questions_)
            acpi::resolve(table, question);
    }

  private:
    std::unique_ptr<const acpi::Topology> topology_; // questions point to it
    std::vector<acpi::Question> questions_;
};

} // namespace

void bind_acpi(nb::module_ &m) {
    nb::class_<Questions>(m, "AcpiQuestions")
        .def(nb::init<std::vector<nb::tuple>, const PlainBridges &>(), nb::arg("devices"),
             nb::arg("bridges").none())
        .def("ask", &Questions::ask, nb::arg("data"))
        .def("run", &Questions::run, nb::arg("data"));
}

} // namespace dmarewind::bind
