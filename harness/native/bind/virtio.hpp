// The part of the Python module that is about virtio-iommu; _core.pyi documents it.
#pragma once

#include <nanobind/nanobind.h>

namespace dmarewind::bind {

void bind_virtio(nanobind::module_ &m);

} // namespace dmarewind::bind
