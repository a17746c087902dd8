// What libFuzzer calls: runs a twin's input and settles what it has reached.
#include "novelty.hpp"
#include "twin.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

// Asked before main has the words of the command line.
bool dmarewind::novelty::is_wanted() {
    static constexpr std::array<std::string_view, 3> comparing{"-merge", "-set_cover_merge",
                                                               "-fork"};
    std::ifstream words("/proc/self/cmdline");
    for (std::string word; std::getline(words, word, '\0');)
        if (std::any_of(comparing.begin(), comparing.end(),
                        [&](std::string_view start) { return word.starts_with(start); }))
            return false;
    return true;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    twin::run(std::as_bytes(std::span(data, size)));
    dmarewind::novelty::settle();
    return 0;
}
