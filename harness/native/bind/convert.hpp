// The core's values as plain Python objects; the facade turns those into the project's dataclasses.
#pragma once

#include "replay.hpp"

#include <nanobind/nanobind.h>

namespace dmarewind::bind {

namespace nb = nanobind;

template <class... Values> nb::tuple tuple(Values &&...values) {
    return nb::make_tuple(std::forward<Values>(values)...);
}

nb::object from_outcome(const Outcome &outcome);
nb::tuple from_steps(std::span<const Step> steps);
nb::tuple from_candidate(const Candidate &candidate);
nb::tuple from_remapping(const Remapping &remapping);
nb::tuple from_observation(const Observation &seen);
nb::tuple from_finding(const Finding &finding);

// From what from_outcome and from_observation make; nb::value_error for anything else.
Outcome to_outcome(nb::handle value);
Observation to_observation(nb::handle value);

} // namespace dmarewind::bind
