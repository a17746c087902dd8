// Runs inputs between the scaffolds of one fuzz target (fuzzers/targets), without Python.
#include "scaffold.hpp"

#include TWIN_SCAFFOLDS

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    static auto runs = twin::runs();
    runs.run(std::as_bytes(std::span(data, size)));
    return 0;
}
