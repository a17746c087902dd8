// Binds the defects of a bench build; nothing in any other.
#pragma once

#include <nanobind/nanobind.h>

namespace dmarewind::bind {

void bind_defects(nanobind::module_ &m);

} // namespace dmarewind::bind
