#include "topology.hpp"

#include <bitset>

namespace dmarewind::acpi {

Topology::Topology(std::span<const Bridge> bridges) {
    for (const Bridge &bridge : bridges) {
        at_.insert_or_assign(bridge.function, bridge);
        above_.try_emplace({bridge.function.segment, bridge.secondary}, bridge);
    }
}

const Bridge *Topology::at(Function function) const {
    const auto found = at_.find(function);
    return found == at_.end() ? nullptr : &found->second;
}

std::vector<Bridge> Topology::above(Function function) const {
    std::vector<Bridge> chain;
    std::bitset<256> seen;
    std::uint8_t bus = function.bus();
    while (true) {
        const auto found = above_.find({function.segment, bus});
        if (found == above_.end() || seen[bus])
            return chain; // or buses that are behind themselves
        seen.set(bus);
        chain.push_back(found->second);
        bus = found->second.function.bus();
    }
}

Function requester(Function function, std::span<const Bridge> above) {
    Function shown = function;
    for (const Bridge &bridge : above)
        if (bridge.kind == BridgeKind::to_conventional)
            shown = {function.segment, static_cast<std::uint16_t>(bridge.secondary << 8)};
        else if (bridge.kind == BridgeKind::conventional)
            shown = bridge.function;
    return shown;
}

} // namespace dmarewind::acpi
