#include "machine.hpp"

namespace dmarewind::bench {
namespace {

constexpr u64 context_tables = 0x10'0000;
constexpr u64 directory = 0x80'0000;
constexpr u64 pasid_tables = 0x100'0000;
constexpr u64 first_table = 0x200'0000;
constexpr u64 host_top = 0x180'0000;
// Under a nested first stage its tables and the data have addresses of the guest's.
constexpr u64 guest_below = 0x1'0000'0000; // a host address less that of the guest
constexpr unsigned first_stage = 1;        // PGTT
constexpr unsigned nested = 3;

} // namespace

// By the specification.
UnitConfig Machine::everything() {
    using Cap = layout::Capability;
    using Ecap = layout::ExtendedCapability;
    UnitConfig config;
    config.capability = Cap::sagaw.in_place(0xe) | Cap::mgaw.in_place(56) |
                        Cap::fro.in_place(0x22) | Cap::fs5lp.mask();
    config.extended_capability = Ecap::iro.in_place(0xf) | Ecap::pt.mask() | Ecap::smts.mask() |
                                 Ecap::fsts.mask() | Ecap::ssts.mask() | Ecap::nest.mask();
    return config;
}

void Machine::build(u64 pages) {
    using First = layout::FirstStageEntry;
    for (u32 device = 0; device < devices_; ++device)
        describe(device);
    // A and D are set, as in tables that have been in use.
    constexpr u64 first_flags =
        First::p.mask() | First::rw.mask() | First::us.mask() | First::a.mask() | First::d.mask();
    constexpr u64 second_flags =
        layout::SecondStageEntry::r.mask() | layout::SecondStageEntry::w.mask();
    const bool is_first = mode_.type == first_stage || mode_.type == nested;
    const Stage stage{mode_.levels, first_table, is_first ? first_flags : second_flags};
    host_ = {mode_.host_levels, host_top, second_flags};
    next_table_ = first_table;
    if (mode_.levels != 0)
        allocate_for(stage);
    for (u64 page = 0; mode_.levels != 0 && page < pages; ++page) {
        const u64 target = data + (page << layout::page_bits);
        if (mode_.type == nested)
            map(host_, target - guest_below, target);
        map(stage, page << layout::page_bits, mode_.type == nested ? target - guest_below : target);
    }
    unit.write_register(layout::reg::rtaddr.offset, 8,
                        root | layout::RootTableAddress::ttm.in_place(mode_.scalable));
    unit.write_register(layout::reg::gcmd.offset, 4, layout::GlobalCommand::srtp.mask());
    unit.write_register(layout::reg::gcmd.offset, 4, layout::GlobalCommand::te.mask());
}

void Machine::describe(u32 device) {
    // AW: 39 bits are 1, and each level more is one more.
    const unsigned second_levels = mode_.type == nested ? mode_.host_levels : mode_.levels;
    const u64 aw = second_levels < 3 ? 2 : second_levels - 2;
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
    store(directory + 8 * (u64{device} >> 6), (pasid_tables + (u64{device} >> 6) * page_size) | 1);
    const u64 entry = pasid_tables + Entry::size * u64{device};
    const u64 second = mode_.type == nested ? host_top : first_table;
    store(entry,
          second | Entry::p.mask() | Entry::aw.in_place(aw) | Entry::pgtt.in_place(mode_.type));
    store(entry + 8, Entry::did.in_place(1));
    store(entry + 16, first_table | Entry::fspm.in_place(mode_.levels == 5));
}

// Where a table of the stage on top lies.
u64 Machine::place(u64 address) const {
    return mode_.type == nested ? address + guest_below : address;
}

// A page for a table, scattered, as an allocator leaves them; the second stage knows it.
u64 Machine::allocate_for(const Stage &stage) {
    const u64 made = next_table_;
    next_table_ += page_size * 3;
    if (mode_.type == nested && &stage != &host_)
        map(host_, made, place(made));
    return made;
}

void Machine::map(const Stage &stage, u64 iova, u64 target) {
    constexpr u64 address = layout::SecondStageEntry::addr.mask();
    constexpr u64 index = (u64{1} << layout::index_bits) - 1;
    const bool of_host = &stage == &host_;
    u64 table = stage.top;
    for (unsigned level = stage.levels;; --level) {
        const u64 at = (of_host ? table : place(table)) +
                       layout::entry_size * (iova >> layout::page_shift[level] & index);
        u64 entry = unit.memory().load_quadword(at);
        if (level == 1) {
            store(at, (target & address) | stage.flags);
            return;
        }
        if (entry == 0) {
            entry = allocate_for(stage) | stage.flags;
            store(at, entry);
        }
        table = entry & address;
    }
}

} // namespace dmarewind::bench
