// Runs inputs between the scaffolds of one fuzz target (fuzzers/targets), without Python.
#include "twin.hpp"

#include "scaffold.hpp"

#include <string_view>

#include TWIN_SCAFFOLDS

void twin::run(std::span<const std::byte> input) {
    static auto made = runs();
    made.run(input);
}
