// Makes the mistakes that fuzzers/targets/planted.py makes.
#include "planted.hpp"

#include "twin.hpp"

void twin::run(std::span<const std::byte> input) {
    dmarewind::planted({reinterpret_cast<const dmarewind::u8 *>(input.data()), input.size()});
}
