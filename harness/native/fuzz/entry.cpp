// What libFuzzer calls: runs a twin's input and settles what it has reached.
#include "novelty.hpp"
#include "twin.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>

bool dmarewind::novelty::is_wanted() {
    return true;
}

extern "C" int LLVMFuzzerInitialize(int *count, char ***words) {
    const auto compares = [](std::string_view word) {
        return word.starts_with("-merge") || word.starts_with("-set_cover_merge") ||
               word.starts_with("-fork");
    };
    if (std::any_of(*words, *words + *count, compares))
        dmarewind::novelty::show_all();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    twin::run(std::as_bytes(std::span(data, size)));
    dmarewind::novelty::settle();
    return 0;
}
