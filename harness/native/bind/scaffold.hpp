// Binds what fuzzers run: units between a scaffold's events.
#pragma once

#include <nanobind/nanobind.h>

namespace dmarewind::bind {

void bind_scaffold(nanobind::module_ &m);

} // namespace dmarewind::bind
