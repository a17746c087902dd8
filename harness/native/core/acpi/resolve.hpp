// Say which IOMMU a device is behind, with the answers of harness/acpi/resolve.py.
#pragma once

#include "table.hpp"
#include "topology.hpp"

namespace dmarewind::acpi {

using layout::IommuKind;
using layout::Why;

// An IOMMU: the offset of its node, its registers, its PCI function; -1 in Python is none here.
struct Iommu {
    IommuKind kind;
    u32 node;
    std::optional<u64> base = std::nullopt;
    std::optional<u32> segment = std::nullopt;
    std::optional<u16> bdf = std::nullopt;
};

struct Behind {
    Iommu iommu;
    u32 endpoint;
    std::string path;
    std::optional<bool> ats;
};

struct Nowhere {
    Why why;
    std::string path;
    std::string text;
};

// One of the two.
struct Answer {
    std::optional<Behind> behind;
    Nowhere nowhere{};

    Answer(Iommu iommu, u32 endpoint, const Place &place, std::optional<bool> ats = std::nullopt)
        : behind(Behind{iommu, endpoint, place.text(), ats}) {}
    Answer(Why why, const Place &place, std::string text = "")
        : nowhere{why, place.text(), std::move(text)} {}
};

enum class DeviceKind : std::uint8_t { pci, mmio, named };

struct Device {
    DeviceKind kind;
    Function function{};               // pci
    u64 address = 0;                   // mmio
    std::string name{};                // named, and what follows
    std::string uid{};                 // or empty
    std::optional<std::string> number; // what uid is as a little-endian number, if it is one
    u32 id = 0;

    bool is(Function other) const { return kind == DeviceKind::pci && function == other; }
};

// A device together with what a topology says of it, which is the same for every table.
class Question {
  public:
    // Without a topology, what depends on bridges is not known. It must outlive the question.
    Question(Device device, const Topology *topology);

    const Device &device() const { return device_; }
    const Topology *topology() const { return topology_; }
    // The bridges above a PCI function, the nearest first.
    std::span<const Bridge> above() const { return above_; }
    // The function as which its requests show at the root.
    Function shown() const { return shown_; }

  private:
    Device device_;
    const Topology *topology_;
    std::vector<Bridge> above_;
    Function shown_;
};

Answer resolve(const Table &table, const Question &question);

Answer resolve_viot(const Table &table, const Question &question);
Answer resolve_iort(const Table &table, const Question &question);
Answer resolve_dmar(const Table &table, const Question &question);
Answer resolve_ivrs(const Table &table, const Question &question);

} // namespace dmarewind::acpi
