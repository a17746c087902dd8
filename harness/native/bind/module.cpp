// The Python module harness.native._core; _core.pyi documents what it offers.
#include "buffer.hpp"

namespace nb = nanobind;

NB_MODULE(_core, m) {
#if defined(DMAREWIND_INSTRUMENTED)
    m.attr("instrumented") = true;
#else
    m.attr("instrumented") = false;
#endif
}
