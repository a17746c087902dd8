// What libFuzzer calls: runs a twin's input and settles what it has reached.
#include "novelty.hpp"
#include "twin.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

// Asked before main has the words of the command line.
bool dmarewind::novelty::is_wanted() {
    static constexpr std::array<std::string_view, 7> whole{
        "-merge",          "-set_cover_merge",     "-fork",          "-features_dir",
        "-print_coverage", "-print_full_coverage", "-focus_function"};
    // For who wants to compare.
    const char *asked = std::getenv("DMAREWIND_NOVELTY");
    if (asked != nullptr && asked == std::string_view("0"))
        return false;
    std::ifstream words("/proc/self/cmdline");
    for (std::string word; std::getline(words, word, '\0');)
        if (std::any_of(whole.begin(), whole.end(),
                        [&](std::string_view start) { return word.starts_with(start); }))
            return false;
    return true;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    dmarewind::novelty::begin();
    twin::run(std::as_bytes(std::span(data, size)));
    dmarewind::novelty::settle();
    return 0;
}
