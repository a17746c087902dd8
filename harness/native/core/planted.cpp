#include "planted.hpp"

#if defined(DMAREWIND_INSTRUMENTED)

#include <limits>

namespace dmarewind {

void planted(std::span<const u8> input) {
    if (input.size() < 4 || input[0] != 'D' || input[1] != 'M' || input[2] != 'R')
        return;
    volatile int number = std::numeric_limits<int>::max();
    // All but one are harder to come by, so that a short run finds that one.
    if (input[3] != 'o' && (input.size() < 6 || input[4] != input[3] || input[5] != input[3]))
        return;
    switch (input[3]) {
    case 'o': // one more than the zero that Python puts behind bytes
        number = *(input.data() + input.size() + 1);
        break;
    case 'u':
        number = number + static_cast<int>(input.size());
        break;
    case 'l':
        number = static_cast<int>(reinterpret_cast<std::uintptr_t>(new u8[64]) & 1);
        break;
    case 'h':
        while (number != 0)
            number = number | 1;
        break;
    default:
        break;
    }
}

} // namespace dmarewind

#endif
