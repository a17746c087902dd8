#include "defects.hpp"

#include "../core/defects.hpp"

#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace nb = nanobind;

namespace dmarewind::bind {

#if defined(DMAREWIND_DEFECTS)

namespace {

void plant(std::string_view name) {
    const auto *found = std::ranges::find(defects, name, &PlantedDefect::name);
    if (found == std::end(defects))
        throw nb::value_error("there is no such defect");
    planted_defect = static_cast<Defect>(found - defects);
}

nb::list all_defects() {
    nb::list all;
    for (const PlantedDefect &one : defects)
        all.append(nb::make_tuple(one.name, one.targets, one.source, one.what));
    return all;
}

} // namespace

void bind_defects(nb::module_ &m) {
    m.def("plant", &plant, nb::arg("name"));
    m.def("defects", &all_defects);
    // Whoever starts processes that know nothing of defects, such as a campaign, says it here.
    if (const char *name = std::getenv("DMAREWIND_PLANT"); name != nullptr)
        plant(name);
}

#else

void bind_defects(nb::module_ &) {}

#endif

} // namespace dmarewind::bind
