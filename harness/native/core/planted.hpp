// Mistakes that a fuzzer must find; they are there in an instrumented build only.
#pragma once

#include "memory.hpp"

namespace dmarewind {

#if defined(DMAREWIND_INSTRUMENTED)
// Make the mistake that an input asks for: "DMR" and "o" reads beyond its end, "uuu" overflows a
// number, "lll" loses memory, "hhh" never comes back.
void planted(std::span<const u8> input);
#endif

} // namespace dmarewind
