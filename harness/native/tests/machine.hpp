// A unit with tables for tests: bus 0, legacy mode, three levels, domain 1.
#pragma once

#include "unit.hpp"

namespace dmarewind::tests {

inline constexpr u64 root_table = 0x1000;
inline constexpr u64 context_table = 0x2000;
inline constexpr u64 top_table = 0x3000;
inline constexpr u64 middle_table = 0x4000;
inline constexpr u64 leaf_table = 0x5000;
inline constexpr u64 queue = 0x6000;
inline constexpr u32 device = 0x18;
inline constexpr u64 read_write = 3;

// Everything off but what the tests use; reasons as in the specification.
inline UnitConfig config() {
    using layout::Reason;
    UnitConfig made;
    made.capability =
        layout::Capability::sagaw.in_place(2) | layout::Capability::mgaw.in_place(38) |
        layout::Capability::fro.in_place(0x22) | layout::Capability::mamv.in_place(18);
    made.extended_capability = layout::ExtendedCapability::iro.in_place(0xf);
    made.dialect.legacy_entries = {
        code(Reason::root_access),         code(Reason::root_not_present),
        code(Reason::root_reserved),       code(Reason::context_access),
        code(Reason::context_not_present), code(Reason::context_reserved),
        code(Reason::context_invalid)};
    made.dialect.legacy_second_stage = {code(Reason::second_stage_access),
                                        code(Reason::second_stage_access),
                                        code(Reason::no_read),
                                        code(Reason::no_write),
                                        code(Reason::no_read),
                                        code(Reason::no_write),
                                        code(Reason::second_stage_reserved),
                                        code(Reason::address_beyond_width),
                                        code(Reason::interrupt_range)};
    return made;
}

struct Machine {
    Unit unit{config()};
    u64 tail = 0;

    Machine() {
        using Entry = layout::ContextEntry;
        unit.store(root_table, 8, context_table | 1);
        unit.store(context_table + Entry::size * device, 8, top_table | Entry::p.mask());
        unit.store(context_table + Entry::size * device + 8, 8,
                   Entry::aw.in_place(1) | Entry::did.in_place(1));
        unit.store(top_table, 8, middle_table | read_write);
        unit.store(middle_table, 8, leaf_table | read_write);
        write(layout::reg::rtaddr, root_table);
        write(layout::reg::iqa, queue);
        write(layout::reg::gcmd, layout::GlobalCommand::srtp.mask());
        write(layout::reg::gcmd,
              layout::GlobalCommand::te.mask() | layout::GlobalCommand::qie.mask());
    }

    void write(const Register &which, u64 value) {
        unit.write_register(which.offset, which.size, value);
    }

    void map(u64 page, u64 target) { unit.store(leaf_table + 8 * page, 8, target); }

    Outcome access(u64 iova, AccessKind kind = AccessKind::read, Outcome recorded = {}) {
        ++unit.event;
        return unit.access({device, no_pasid, iova, kind}, recorded).fresh_candidate().outcome;
    }

    void submit(u64 low, u64 high) {
        unit.store(queue + tail, 8, low);
        unit.store(queue + tail + 8, 8, high);
        tail = (tail + 16) % page_size;
        write(layout::reg::iqt, tail);
    }
};

inline Outcome translation(u64 address) {
    Outcome made;
    made.type = OutcomeType::translation;
    made.address = address;
    made.mask = page_size - 1;
    return made;
}

inline Outcome fault(layout::Reason reason) {
    Outcome made;
    made.type = OutcomeType::fault;
    made.reason = code(reason);
    return made;
}

} // namespace dmarewind::tests
