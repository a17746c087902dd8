#include "novelty.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

// The linker (--wrap) leads the call that instrumented code makes when it is loaded to the first
// of these, and calls the fuzzer's own the second. Another engine may have none.
extern "C" {
void __wrap___sanitizer_cov_8bit_counters_init(std::uint8_t *start, std::uint8_t *stop);
void __real___sanitizer_cov_8bit_counters_init(std::uint8_t *start, std::uint8_t *stop)
    __attribute__((weak));
}

namespace dmarewind::novelty {
namespace {

// So many counters are compared at once; they begin anywhere.
using Aligned [[gnu::vector_size(32)]] = std::uint8_t;
using Vector [[gnu::aligned(1), gnu::may_alias]] = Aligned;
using Words [[gnu::vector_size(32)]] = std::uint64_t;
constexpr std::size_t line = 4; // vectors that are looked at together
constexpr std::size_t line_bytes = line * sizeof(Vector);

// From so many times on a counter is in the next class: libFuzzer's classes.
constexpr std::uint8_t classes[] = {1, 2, 3, 4, 8, 16, 32, 128};

struct Module {
    std::uint8_t *counters;
    std::size_t size;
    std::size_t lines;
    std::vector<std::uint8_t> shown; // what libFuzzer looks at
    std::vector<std::uint8_t> seen;  // a bit for each class that a run has shown
    std::vector<std::uint32_t> used; // the vectors that a run has left something in
    std::uint8_t rest[line_bytes]{}; // behind the last whole line

    Module(std::uint8_t *start, std::size_t length)
        : counters(start), size(length), lines(length / line_bytes), shown(length),
          seen((lines + 1) * line_bytes) {
        used.reserve((lines + 1) * line);
    }
};

// Counters register themselves before anything here is constructed, and are there until the end.
std::vector<Module *> &modules() {
    static auto *const made = new std::vector<Module *>;
    return *made;
}

bool all = false;
unsigned runs = 0;

[[gnu::always_inline]] inline bool is_empty(const Aligned &vector) {
    const auto words = reinterpret_cast<Words>(vector);
    return (words[0] | words[1] | words[2] | words[3]) == 0;
}

// Add the classes of counters to those seen, and list the vectors that are not empty; whether a
// class is new.
#if defined(__x86_64__)
[[gnu::target_clones("avx2", "default")]]
#endif
bool learn(const Vector *counters, Vector *seen, std::size_t lines,
           std::vector<std::uint32_t> &used) {
    Aligned added{};
    for (std::size_t first = 0; first < lines * line; first += line) {
        const Aligned any =
            (counters[first] | counters[first + 1]) | (counters[first + 2] | counters[first + 3]);
        if (is_empty(any))
            continue;
        for (std::size_t at = first; at < first + line; ++at) {
            const Aligned counted = counters[at];
            if (is_empty(counted))
                continue;
            used.push_back(static_cast<std::uint32_t>(at));
            Aligned reached{}; // a bit for each class that was passed, too
            for (unsigned bit = 0; bit < std::size(classes); ++bit)
                reached |= reinterpret_cast<Aligned>(counted >= classes[bit]) &
                           static_cast<std::uint8_t>(1 << bit);
            const Aligned of = reached ^ (reached >> 1);
            added |= of & ~seen[at];
            seen[at] |= of;
        }
    }
    return !is_empty(added);
}

bool learn(Module &module) {
    module.used.clear();
    const std::size_t whole = module.lines * line_bytes;
    std::memcpy(module.rest, module.counters + whole, module.size - whole);
    auto *seen = reinterpret_cast<Vector *>(module.seen.data());
    std::vector<std::uint32_t> &used = module.used;
    const bool rest =
        learn(reinterpret_cast<const Vector *>(module.rest), seen + module.lines * line, 1, used);
    used.clear(); // the rest is shown and cleared in any case
    return learn(reinterpret_cast<const Vector *>(module.counters), seen, module.lines, used) ||
           rest;
}

// Let libFuzzer see the counters, if it shall, and clear them.
void clear(Module &module, bool shows) {
    const auto part = [&](std::size_t at, std::size_t size) {
        if (shows)
            std::memcpy(module.shown.data() + at, module.counters + at, size);
        std::memset(module.counters + at, 0, size);
    };
    for (const std::uint32_t at : module.used)
        part(at * sizeof(Vector), sizeof(Vector));
    const std::size_t whole = module.lines * line_bytes;
    part(whole, module.size - whole);
}

} // namespace

void settle() {
    bool shows = all || ++runs % sampled == 0;
    for (Module *module : modules())
        shows |= learn(*module);
    for (Module *module : modules())
        clear(*module, shows);
}

void show_all() {
    all = true;
}

} // namespace dmarewind::novelty

void __wrap___sanitizer_cov_8bit_counters_init(std::uint8_t *start, std::uint8_t *stop) {
    using namespace dmarewind::novelty;
    if (__real___sanitizer_cov_8bit_counters_init == nullptr)
        return;
    if (!is_wanted()) {
        __real___sanitizer_cov_8bit_counters_init(start, stop);
        return;
    }
    const auto known = [&](const Module *one) { return one->counters == start; };
    if (start == stop || std::any_of(modules().begin(), modules().end(), known))
        return;
    auto *const made = new Module(start, static_cast<std::size_t>(stop - start));
    modules().push_back(made);
    __real___sanitizer_cov_8bit_counters_init(made->shown.data(), made->shown.data() + made->size);
}
