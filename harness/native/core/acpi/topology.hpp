// The PCI bridges of a machine, as harness/acpi/topology.py knows them.
#pragma once

#include "layout.hpp"

#include <map>
#include <span>
#include <vector>

namespace dmarewind::acpi {

using layout::BridgeKind;

// A PCI function: bus, device and function are 8, 5 and 3 bits.
struct Function {
    std::uint32_t segment;
    std::uint16_t bdf;

    std::uint8_t bus() const { return static_cast<std::uint8_t>(bdf >> 8); }
    auto operator<=>(const Function &) const = default;
};

struct Bridge {
    Function function;
    std::uint8_t secondary;
    BridgeKind kind;
};

class Topology {
  public:
    explicit Topology(std::span<const Bridge> bridges);

    // Return the bridge that a function is, or nullptr.
    const Bridge *at(Function function) const;

    // Return the bridges between a function and its root, the nearest first.
    std::vector<Bridge> above(Function function) const;

  private:
    std::map<Function, Bridge> at_;
    std::map<std::pair<std::uint32_t, std::uint8_t>, Bridge> above_; // by segment and bus
};

// Return the function as which requests show at the root, given the bridges above.
Function requester(Function function, std::span<const Bridge> above);

} // namespace dmarewind::acpi
