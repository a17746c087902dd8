// The resolver of ACPI tables, for Python.
#pragma once

#include <nanobind/nanobind.h>

namespace dmarewind::bind {

void bind_acpi(nanobind::module_ &m);

} // namespace dmarewind::bind
