// A machine of nested translation for tests: five levels in each stage, requests without PASID.
#pragma once

#include "machine.hpp"

namespace dmarewind::tests {

inline constexpr u64 directory = 0x3000;
inline constexpr u64 pasid_table = 0x4000;
inline constexpr u64 first_tables =
    0x1'0000; // the root first, one page each; guest and host address
inline constexpr u64 second_tables = 0x2'0000; // the same of the second stage
inline constexpr u64 data = 0x3'0000;
inline constexpr u64 all_bits = 7; // P, R/W, U/S or R, W, X

inline u64 table(u64 tables, unsigned level) {
    return tables + page_size * (max_levels - level);
}

inline UnitConfig nested_config() {
    using Ecap = layout::ExtendedCapability;
    UnitConfig made = config();
    made.capability = layout::Capability::sagaw.in_place(8) |
                      layout::Capability::mgaw.in_place(56) | layout::Capability::fs5lp.mask() |
                      layout::Capability::fro.in_place(0x22);
    made.extended_capability |= Ecap::smts.mask() | Ecap::nest.mask() | Ecap::fsts.mask() |
                                Ecap::ssts.mask() | Ecap::ssads.mask();
    made.dialect.scalable_entries = made.dialect.legacy_entries;
    made.dialect.scalable_second_stage = made.dialect.legacy_second_stage;
    return made;
}

struct Nested {
    Unit unit;

    explicit Nested(UnitConfig made = nested_config()) : unit(std::move(made)) {
        using Entry = layout::PasidEntry;
        unit.store(root_table, 8, context_table | 1);
        const u64 context = context_table + u64{layout::ScalableContextEntry::size} * device;
        unit.store(context, 8, directory | 1);
        unit.store(directory, 8, pasid_table | 1);
        unit.store(pasid_table, 8,
                   second_tables | Entry::p.mask() | Entry::pgtt.in_place(3) |
                       Entry::aw.in_place(3) | Entry::ssade.mask());
        unit.store(pasid_table + 8, 8, Entry::did.in_place(1));
        unit.store(pasid_table + 16, 8, first_tables | Entry::fspm.in_place(1));
        for (unsigned level = max_levels; level > 1; --level) {
            unit.store(table(first_tables, level), 8, table(first_tables, level - 1) | all_bits);
            unit.store(table(second_tables, level), 8, table(second_tables, level - 1) | all_bits);
        }
        unit.store(table(first_tables, 1), 8, data | all_bits);
        for (u64 page = first_tables; page <= data; page += page_size)
            map(page, page);
        write(layout::reg::rtaddr, root_table | layout::RootTableAddress::ttm.in_place(1));
        write(layout::reg::gcmd, layout::GlobalCommand::srtp.mask());
        write(layout::reg::gcmd, layout::GlobalCommand::te.mask());
    }

    void write(const Register &which, u64 value) {
        unit.write_register(which.offset, which.size, value);
    }

    void map(u64 guest, u64 host) {
        unit.store(table(second_tables, 1) + 8 * (guest / page_size), 8, host | all_bits);
    }

    const Permitted &access(AccessKind kind) {
        ++unit.event;
        return unit.access({device, no_pasid, 0, kind}, {});
    }
};

} // namespace dmarewind::tests
