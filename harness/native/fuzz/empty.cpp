// Does nothing: the most that libFuzzer can run of anything in a second.
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *, std::size_t) {
    return 0;
}
