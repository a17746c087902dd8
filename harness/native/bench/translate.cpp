// Batch translation against its floor: one line "MODE SET cold|warm NATIVE_NS FLOOR_NS" each.
//
// Both run over one memory and one random stream of requests. SET says what the stream reaches:
// small   16 devices, 16 MiB mapped: all tables stay in the first caches of the processor
// large   65536 devices with PASIDs of their own, 2 GiB mapped: they do not
// cached  16 devices and 8192 pages, which FastTlb holds
#include "floor.hpp"
#include "unit.hpp"

#include <chrono>
#include <cstdio>
#include <functional>
#include <random>

using namespace dmarewind;
using namespace dmarewind::bench;

namespace {

constexpr u64 root = 0x1000;
constexpr u64 context_tables = 0x10'0000;
constexpr u64 directory = 0x80'0000;
constexpr u64 pasid_tables = 0x100'0000;
constexpr u64 first_table = 0x200'0000;
constexpr std::size_t requests = std::size_t{1} << 16;
constexpr int runs = 15;

struct Mode {
    const char *name;
    bool scalable;
    unsigned levels; // 0: pass-through
    unsigned type;   // TT or PGTT
};

constexpr Mode modes[] = {
    {"legacy-second-stage", false, 4, 0},   {"legacy-pass-through", false, 0, 2},
    {"scalable-second-stage", true, 4, 2},  {"scalable-first-stage-4", true, 4, 1},
    {"scalable-first-stage-5", true, 5, 1}, {"scalable-pass-through", true, 0, 4},
};

// A unit that can do everything, by the specification.
UnitConfig everything() {
    using Cap = layout::Capability;
    using Ecap = layout::ExtendedCapability;
    UnitConfig config;
    config.capability = Cap::sagaw.in_place(0xe) | Cap::mgaw.in_place(56) |
                        Cap::fro.in_place(0x22) | Cap::fs5lp.mask();
    config.extended_capability = Ecap::iro.in_place(0xf) | Ecap::pt.mask() | Ecap::smts.mask() |
                                 Ecap::fsts.mask() | Ecap::ssts.mask();
    return config;
}

class Machine {
  public:
    Machine(const Mode &mode, u32 devices) : unit(everything()), mode_(mode), devices_(devices) {}

    void store(u64 address, u64 value) { unit.memory().store(address, sizeof value, value); }

    // Device n has source id and PASID n; all share the page tables.
    void build(u64 pages) {
        for (u32 device = 0; device < devices_; ++device)
            describe(device);
        next_table_ = first_table;
        const u64 top = next_table_;
        next_table_ += page_size;
        for (u64 page = 0; mode_.levels != 0 && page < pages; ++page)
            map(top, page << 12, 0x1'0000'0000 + (page << 12));
        unit.write_register(layout::reg::rtaddr.offset, 8,
                            root | layout::RootTableAddress::ttm.in_place(mode_.scalable));
        unit.write_register(layout::reg::gcmd.offset, 4, layout::GlobalCommand::srtp.mask());
        unit.write_register(layout::reg::gcmd.offset, 4, layout::GlobalCommand::te.mask());
    }

    Unit unit;

  private:
    void describe(u32 device) {
        const u64 aw = 2; // 48 bits
        const u64 bus = device >> 8;
        if (!mode_.scalable) {
            using Entry = layout::ContextEntry;
            const u64 context = context_tables + bus * page_size;
            const u64 at = context + Entry::size * u64{device & 0xff};
            store(root + layout::RootEntry::size * bus, context | 1);
            const u64 widest = mode_.levels == 0 ? 3 : aw;
            store(at, first_table | Entry::p.mask() | Entry::tt.in_place(mode_.type));
            store(at + 8, Entry::aw.in_place(widest) | Entry::did.in_place(1));
            return;
        }
        using Context = layout::ScalableContextEntry;
        using Entry = layout::PasidEntry;
        const u64 half = u64{device} >> 7;
        const u64 context = context_tables + half * page_size;
        store(root + 8 * half, context | 1);
        store(context + Context::size * u64{device & 0x7f},
              directory | Context::p.mask() | Context::paside.mask() | Context::pdts.in_place(7));
        store(directory + 8 * (u64{device} >> 6),
              (pasid_tables + (u64{device} >> 6) * page_size) | 1);
        const u64 entry = pasid_tables + Entry::size * u64{device};
        store(entry, first_table | Entry::p.mask() | Entry::aw.in_place(aw) |
                         Entry::pgtt.in_place(mode_.type));
        store(entry + 8, Entry::did.in_place(1));
        store(entry + 16, first_table | Entry::fspm.in_place(mode_.levels == 5));
    }

    void map(u64 table, u64 iova, u64 target) {
        using Entry = layout::FirstStageEntry;
        // Valid in both stages; A and D are set, as in tables that have been in use.
        const bool first_stage = mode_.type == 1;
        const u64 flags = first_stage ? Entry::p.mask() | Entry::rw.mask() | Entry::us.mask() |
                                            Entry::a.mask() | Entry::d.mask()
                                      : 3;
        for (unsigned level = mode_.levels; level > 1; --level) {
            const u64 at = table + 8 * (iova >> layout::page_shift[level] & 511);
            u64 entry = unit.memory().load_quadword(at);
            if (entry == 0) {
                entry = next_table_ | flags;
                // Scattered, as an allocator leaves them.
                next_table_ += page_size * 3;
                store(at, entry);
            }
            table = entry & Entry::addr.mask();
        }
        store(table + 8 * (iova >> 12 & 511), (target & Entry::addr.mask()) | flags);
    }

    const Mode &mode_;
    u32 devices_;
    u64 next_table_ = 0;
};

double shortest(const std::function<void()> &work) {
    double best = 1e9;
    for (int run = 0; run < runs; ++run) {
        const auto start = std::chrono::steady_clock::now();
        work();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::min(best, took.count());
    }
    return best * 1e9 / static_cast<double>(requests);
}

bool measure(const Mode &mode, const char *set, u32 devices, u64 pages, bool warm, bool wide) {
    Machine machine(mode, devices);
    machine.unit.batch().use_wide_registers(wide);
    machine.build(pages);
    std::mt19937_64 random(1);
    std::vector<u16> sids(requests);
    std::vector<u32> pasids(requests);
    std::vector<u64> iovas(requests);
    std::vector<u8> kinds(requests);
    std::vector<u64> answers(requests);
    std::vector<u64> floor(requests);
    std::vector<u8> statuses(requests);
    for (std::size_t i = 0; i < requests; ++i) {
        const u32 device = static_cast<u32>(random() % devices);
        sids[i] = static_cast<u16>(device);
        pasids[i] = mode.scalable ? device : no_pasid;
        iovas[i] = (random() % pages) << 12 | (random() & 0xff8);
        kinds[i] = static_cast<u8>(AccessKind::read);
    }
    const BatchRequests batch{requests,     sids.data(),    pasids.data(),  iovas.data(),
                              kinds.data(), answers.data(), statuses.data()};
    const Stream stream{requests, sids.data(), pasids.data(), iovas.data(), floor.data()};
    Unit &unit = machine.unit;
    const std::byte *memory = unit.memory().page(0);
    const std::function<void()> floor_work = [&] {
        if (warm)
            warm_floor(unit.fast_tlb(), mode.levels != 0, stream);
        else if (mode.scalable)
            scalable_floor(memory, root, mode.levels, mode.type == 1 ? 2 : 0, stream);
        else
            legacy_floor(memory, root, mode.levels, stream);
    };
    // Alternate, so that neither gets the better moments of the machine.
    double native = 1e9;
    double least = 1e9;
    unit.translate(batch, !warm);
    for (int round = 0; round < 3; ++round) {
        native = std::min(native, shortest([&] { unit.translate(batch, !warm); }));
        least = std::min(least, shortest(floor_work));
    }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < requests; ++i) {
        // A set's other way is not what the floor loads: warm answers are compared with the truth.
        const u64 right = mode.levels == 0 ? iovas[i] : 0x1'0000'0000 + iovas[i];
        wrong += answers[i] != right || statuses[i] != 0 || (!warm && floor[i] != right);
    }
    std::printf("%s %s %s %.3f %.3f\n", mode.name, set, warm ? "warm" : "cold", native, least);
    if (wrong != 0)
        std::fprintf(stderr, "%s %s: %zu wrong answers\n", mode.name, set, wrong);
    return wrong == 0;
}

} // namespace

int main(int argc, char **argv) {
    // "plain" measures what processors without wide registers get.
    const bool wide = argc < 2 || std::strcmp(argv[1], "plain") != 0;
    bool good = true;
    for (const Mode &mode : modes) {
        good &= measure(mode, "small", 16, u64{1} << 12, false, wide);
        good &= measure(mode, "large", u32{1} << 16, u64{1} << 19, false, wide);
        // Where PASIDs have pages of their own, as many pages in all.
        good &= measure(mode, "cached", 16, u64{1} << (mode.type == 1 ? 9 : 13), true, wide);
    }
    return good ? 0 : 1;
}
