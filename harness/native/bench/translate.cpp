// Batch translation against its floor: one line "MODE SET cold|warm NATIVE_NS FLOOR_NS" each.
//
// Both run over one memory and one random stream of requests. SET says what the stream reaches:
// small   16 devices, 16 MiB mapped: all tables stay in the first caches of the processor
// large   65536 devices with PASIDs of their own, 2 GiB mapped: they do not
// cached  16 devices and 8192 pages, which FastTlb holds
#include "floor.hpp"
#include "machine.hpp"

#include <chrono>
#include <cstdio>
#include <functional>
#include <random>

using namespace dmarewind;
using namespace dmarewind::bench;

namespace {

constexpr std::size_t requests = std::size_t{1} << 16;
constexpr int rounds = 45;

// What FSPM or AW say is tested with the most and the usual number of levels.
constexpr Mode modes[] = {
    {"legacy-second-stage", false, 4, 0, 0},
    {"legacy-pass-through", false, 0, 2, 0},
    {"scalable-second-stage-4", true, 4, 2, 0},
    {"scalable-second-stage-5", true, 5, 2, 0},
    {"scalable-first-stage-4", true, 4, 1, 0},
    {"scalable-first-stage-5", true, 5, 1, 0},
    {"scalable-pass-through", true, 0, 4, 0},
    {"nested-4x4", true, 4, 3, 4},
    {"nested-5x5", true, 5, 3, 5},
};

struct Set {
    const char *name;
    u32 devices;
    u64 pages;
    bool warm;
};

constexpr Set sets[] = {
    {"small", 16, u64{1} << 12, false},
    {"large", u32{1} << 16, u64{1} << 19, false},
    {"cached", 16, u64{1} << 13, true},
};

double nanoseconds(const std::function<void()> &work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return took.count() * 1e9 / static_cast<double>(requests);
}

bool measure(const Mode &mode, const Set &set, bool wide) {
    Machine machine(mode, set.devices);
    machine.unit.batch().use_wide_registers(wide);
    // Where PASIDs have pages of their own, as many pages in all.
    const bool own = mode.scalable && (mode.type == 1 || mode.type == 3);
    const u64 pages = set.warm && own ? set.pages / set.devices : set.pages;
    machine.build(pages);
    std::mt19937_64 random(1);
    std::vector<u16> sids(requests);
    std::vector<u32> pasids(requests);
    std::vector<u64> iovas(requests);
    std::vector<u8> kinds(requests, static_cast<u8>(AccessKind::read));
    std::vector<u64> right(requests);
    std::vector<u64> answers(requests);
    std::vector<u64> floor(requests);
    std::vector<u8> statuses(requests);
    for (std::size_t i = 0; i < requests; ++i) {
        const u32 device = static_cast<u32>(random() % set.devices);
        sids[i] = static_cast<u16>(device);
        pasids[i] = mode.scalable ? device : no_pasid;
        iovas[i] = (random() % pages) << 12 | (random() & 0xff8);
        right[i] = mode.levels == 0 ? iovas[i] : data + iovas[i];
    }
    const BatchRequests batch{requests,     sids.data(),    pasids.data(),  iovas.data(),
                              kinds.data(), answers.data(), statuses.data()};
    const Stream stream{requests, sids.data(), pasids.data(), iovas.data(), floor.data()};
    Unit &unit = machine.unit;
    const std::byte *memory = unit.memory().page(0);
    const HashFloor hash({requests, sids.data(), pasids.data(), iovas.data(), right.data()}, !own,
                         mode.levels != 0);
    const std::function<void()> floor_work = [&] {
        if (set.warm)
            hash.run(stream);
        else if (mode.type == 3)
            nested_floor(memory, root, mode.levels, stream);
        else if (mode.scalable)
            scalable_floor(memory, root, mode.levels, mode.type == 1 ? 2 : 0, stream);
        else
            legacy_floor(memory, root, mode.levels, stream);
    };
    // In turns, so that neither gets the better moments of the machine.
    double native = 1e9;
    double least = 1e9;
    for (int round = 0; round < rounds; ++round) {
        native = std::min(native, nanoseconds([&] { unit.translate(batch, !set.warm); }));
        least = std::min(least, nanoseconds(floor_work));
    }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < requests; ++i)
        wrong += answers[i] != right[i] || statuses[i] != 0 || floor[i] != right[i];
    std::printf("%s %s %s %.3f %.3f\n", mode.name, set.name, set.warm ? "warm" : "cold", native,
                least);
    if (wrong != 0)
        std::fprintf(stderr, "%s %s: %zu wrong answers\n", mode.name, set.name, wrong);
    return wrong == 0;
}

} // namespace

int main(int argc, char **argv) {
    // "plain" measures what processors without wide registers get.
    const bool wide = argc < 2 || std::strcmp(argv[1], "plain") != 0;
    bool good = true;
    for (const Mode &mode : modes)
        for (const Set &set : sets)
            good &= measure(mode, set, wide);
    return good ? 0 : 1;
}
