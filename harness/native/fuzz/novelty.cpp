#include "novelty.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <utility>
#include <vector>

// The linker (--wrap) leads the calls that instrumented code makes when it is loaded to the first
// of each pair, and calls the fuzzer's own the second. Another engine may have none.
extern "C" {
void __wrap___sanitizer_cov_8bit_counters_init(std::uint8_t *start, std::uint8_t *stop);
void __real___sanitizer_cov_8bit_counters_init(std::uint8_t *start, std::uint8_t *stop)
    __attribute__((weak));
void __wrap___sanitizer_cov_pcs_init(const std::uintptr_t *start, const std::uintptr_t *stop);
void __real___sanitizer_cov_pcs_init(const std::uintptr_t *start, const std::uintptr_t *stop)
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

// One counter in so many is expected to be reached: others are of checks that nothing fails, and of
// what a target does not use. libFuzzer looks at each counter that it knows, for each run.
constexpr std::size_t reached_of = 4;
constexpr std::size_t reached_at_least = 4096;

// An address in the code, and flags: what libFuzzer knows of a counter.
struct Place {
    std::uintptr_t address = 0;
    std::uintptr_t flags = 0;
};

struct Module {
    std::uint8_t *counters;
    std::size_t size;
    std::size_t lines;
    const Place *places = nullptr;    // of the counters
    std::vector<std::uint8_t> shown;  // what libFuzzer looks at: counters in the order they came in
    std::vector<Place> shown_places;  // of those
    std::vector<std::uint32_t> slots; // where a counter is shown, from 1 on; 0: it was not yet
    std::uint32_t taken = 0;
    std::vector<std::uint8_t> seen;  // a bit for each class that a run has shown
    std::vector<std::uint8_t> last;  // each vector as it was learnt from last
    std::vector<std::uint32_t> used; // the vectors that a run has left something in
    std::uint8_t rest[line_bytes]{}; // behind the last whole line

    Module(std::uint8_t *start, std::size_t length)
        : counters(start), size(length), lines(length / line_bytes),
          shown(std::max(length / reached_of, std::min(length, reached_at_least))),
          shown_places(shown.size()), slots(length), seen((lines + 1) * line_bytes),
          last(seen.size()) {
        used.reserve((lines + 1) * line);
    }

    // Show a counter. When more were reached than there is room for they share.
    void show(std::size_t at) {
        std::uint32_t &slot = slots[at];
        if (slot == 0) {
            const auto room = static_cast<std::uint32_t>(shown.size());
            if (taken == room)
                std::fputs("dmarewind: so many counters are reached that some are shown as one\n",
                           stderr);
            slot = 1 + taken++ % room;
            if (places != nullptr && shown_places[slot - 1].address == 0)
                shown_places[slot - 1] = places[at];
        }
        shown[slot - 1] = std::max(shown[slot - 1], last[at]);
    }
};

// Counters register themselves before anything here is constructed, and are there until the end.
std::vector<Module *> &modules() {
    static auto *const made = new std::vector<Module *>;
    return *made;
}

unsigned runs = 0;

[[gnu::always_inline]] inline bool is_empty(const Aligned &vector) {
    const auto words = reinterpret_cast<Words>(vector);
    return (words[0] | words[1] | words[2] | words[3]) == 0;
}

// Add the classes of counters to those seen, list the vectors that are not empty, and clear them;
// whether a class is new. What was there is what was learnt from last.
#if defined(__x86_64__)
[[gnu::target_clones("avx2", "default")]]
#endif
bool learn(Vector *counters, Vector *last, Vector *seen, std::size_t lines,
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
            counters[at] = Aligned{};
            if (is_empty(counted ^ last[at]))
                continue;
            last[at] = counted;
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
    auto *seen = reinterpret_cast<Vector *>(module.seen.data());
    auto *last = reinterpret_cast<Vector *>(module.last.data());
    const std::size_t end = module.lines * line;
    const bool added =
        learn(reinterpret_cast<Vector *>(module.counters), last, seen, module.lines, module.used);
    // What is behind the last whole line is copied, and learnt from whether it is empty or not.
    const std::size_t whole = module.lines * line_bytes;
    for (std::size_t at = whole; at < module.size; ++at)
        module.rest[at - whole] = std::exchange(module.counters[at], std::uint8_t{0});
    const std::size_t listed = module.used.size();
    const bool more =
        learn(reinterpret_cast<Vector *>(module.rest), last + end, seen + end, 1, module.used);
    for (std::size_t at = listed; at < module.used.size(); ++at)
        module.used[at] += static_cast<std::uint32_t>(end);
    return added || more;
}

// Other than memset(), which ASan looks at.
#if defined(__x86_64__)
[[gnu::target_clones("avx2", "default")]]
#endif
void clear(Vector *vectors, std::size_t count) {
    for (std::size_t at = 0; at < count; ++at)
        *const_cast<volatile Vector *>(vectors + at) = Aligned{};
}

// Let libFuzzer see what a run has left.
void show(Module &module) {
    for (const std::size_t vector : module.used)
        for (std::size_t at = vector * sizeof(Vector); at < (vector + 1) * sizeof(Vector); ++at)
            if (module.last[at] != 0)
                module.show(at);
}

} // namespace

void begin() {
    for (Module *module : modules()) {
        auto *vectors = reinterpret_cast<Vector *>(module->counters);
        clear(vectors, module->lines * line);
        for (std::size_t at = module->lines * line_bytes; at < module->size; ++at)
            module->counters[at] = 0;
    }
}

void settle() {
    bool shows = ++runs % sampled == 0;
    for (Module *module : modules())
        shows |= learn(*module);
    if (!shows)
        return;
    for (Module *module : modules())
        show(*module);
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
    __real___sanitizer_cov_8bit_counters_init(made->shown.data(),
                                              made->shown.data() + made->shown.size());
}

void __wrap___sanitizer_cov_pcs_init(const std::uintptr_t *start, const std::uintptr_t *stop) {
    using namespace dmarewind::novelty;
    if (__real___sanitizer_cov_pcs_init == nullptr)
        return;
    // A module's places register themselves behind its counters.
    Module *const module = modules().empty() ? nullptr : modules().back();
    const auto *const places = reinterpret_cast<const Place *>(start);
    const auto count = static_cast<std::size_t>(reinterpret_cast<const Place *>(stop) - places);
    if (module == nullptr || module->places == places) {
        if (module == nullptr)
            __real___sanitizer_cov_pcs_init(start, stop);
        return;
    }
    if (count != module->size)
        return;
    module->places = places;
    const auto *const shown = reinterpret_cast<const std::uintptr_t *>(module->shown_places.data());
    __real___sanitizer_cov_pcs_init(shown, shown + 2 * module->shown_places.size());
}
