// What the bindings of both kinds of units have in common.
#pragma once

#include "convert.hpp"

#include <bit>
#include <span>

namespace dmarewind::bind {

// A dialect's flag by its name.
using Switch = std::pair<const char *, bool *>;

inline void set_switches(std::span<const Switch> flags, nb::dict switches) {
    // A switch this core does not know would be a difference nobody sees.
    if (switches.size() != flags.size())
        throw nb::value_error("wrong number of dialect switches");
    for (const auto &[name, flag] : flags)
        *flag = nb::cast<bool>(switches[name]);
}

inline layout::AccessKind kind_from(unsigned kind) {
    if (kind > static_cast<unsigned>(layout::AccessKind::execute))
        throw nb::value_error("access kind is not known");
    return static_cast<layout::AccessKind>(kind);
}

inline void check_size(unsigned size) {
    if (size > sizeof(u64) || !std::has_single_bit(size))
        throw nb::value_error("size is not 1, 2, 4 or 8");
}

template <class Unit> nb::tuple take_findings(Unit &unit) {
    nb::list found;
    for (const Finding &finding : unit.findings)
        found.append(from_finding(finding));
    unit.findings.clear();
    return nb::tuple(found);
}

template <class Unit> nb::tuple take_emitted(Unit &unit) {
    nb::list seen;
    for (const Observation &observation : unit.emitted)
        seen.append(from_observation(observation));
    unit.emitted.clear();
    return nb::tuple(seen);
}

} // namespace dmarewind::bind
