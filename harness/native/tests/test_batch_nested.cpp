// Batches of nested translations and of supervisors, and what a batch keeps of its devices.
#include "check.hpp"
#include "nested.hpp"
#include "requests.hpp"

#include <random>

using namespace dmarewind;
using namespace dmarewind::tests;

namespace {

constexpr u64 pages = 64;
constexpr u64 targets = data; // of guest pages; the second stage maps as many from here on

// One entry in so many is not what it should be.
void damage(Nested &machine, std::mt19937_64 &random, u64 address, u64 value) {
    constexpr u64 strange[] = {0, ~u64{0}, 1, 3, 0x800, u64{1} << 51, 0xfee0'0000, u64{1} << 45};
    if (random() % 24 == 0)
        value ^= strange[random() % std::size(strange)] | (random() & 0x7);
    machine.unit.store(address, 8, value);
}

// Map pages by entries that are mostly good; marked: A and D are set.
void fill(Nested &machine, std::mt19937_64 &random, u64 marks) {
    for (u64 page = 0; page < pages; ++page) {
        const u64 guest = targets + page * page_size;
        damage(machine, random, table(first_tables, 1) + 8 * page, guest | all_bits | marks);
        damage(machine, random, table(second_tables, 1) + 8 * (guest / page_size),
               (guest + 0x10'0000) | all_bits | marks << 3);
    }
}

void allow_supervisors(Nested &machine) {
    using Entry = layout::PasidEntry;
    const u64 before = machine.unit.memory().load_quadword(pasid_table + 16);
    machine.unit.store(pasid_table + 16, 8, before | Entry::sre.mask() | Entry::ere.mask());
}

UnitConfig able_config() {
    using Ecap = layout::ExtendedCapability;
    UnitConfig made = nested_config();
    made.extended_capability |= Ecap::srs.mask() | Ecap::ers.mask() | Ecap::dt.mask();
    return made;
}

void agrees_with_single_accesses() {
    std::mt19937_64 random(3);
    std::size_t translated = 0;
    for (const bool wide : {false, true})
        for (const bool cold : {true, false})
            for (const u64 marks : {u64{0}, u64{0x60}})
                for (std::size_t count : {1, 8, 15, 16, 33, 128}) {
                    Nested machine(able_config());
                    machine.unit.batch().use_wide_registers(wide);
                    allow_supervisors(machine);
                    fill(machine, random, marks);
                    Batch batch(count);
                    u8 kind = 1;
                    u8 attributes = 0;
                    for (std::size_t i = 0; i < count; ++i) {
                        if (i % 8 == 0) {
                            kind = static_cast<u8>(1 + random() % 3);
                            attributes = random() % 2 == 0 ? u8{0} : is_privileged;
                        }
                        batch.kinds[i] = random() % 64 == 0 ? u8{0} : kind;
                        batch.attributes[i] = random() % 64 == 0 ? is_translated : attributes;
                        batch.iovas[i] = (random() % pages) << 12 | (random() & 0xff8);
                        if (random() % 64 == 0)
                            batch.iovas[i] = u64{1} << (20 + random() % 44);
                    }
                    // The first time marks are set, the second time all is plain.
                    for (int round = 0; round < 2; ++round)
                        machine.unit.translate(batch.requests(), cold);
                    for (std::size_t i = 0; i < count; ++i) {
                        EXPECT(batch.agrees(i, machine.unit));
                        translated += batch.statuses[i] == 0;
                    }
                }
    EXPECT(translated > 500);
}
const Test agrees("batch: nested, what single accesses give", agrees_with_single_accesses);

// Entries of supervisors: what a bit of the PASID entry says of one is not what it says of another.
void tells_supervisors_apart() {
    using Entry = layout::PasidEntry;
    for (const bool wide : {false, true}) {
        Nested machine(able_config());
        machine.unit.batch().use_wide_registers(wide);
        constexpr u64 no_user = all_bits & ~u64{4};
        machine.unit.store(table(first_tables, 1), 8, data | no_user);
        Batch batch(48);
        std::fill(batch.iovas.begin(), batch.iovas.end(), u64{0x8});
        std::fill(batch.attributes.begin(), batch.attributes.begin() + 32, is_privileged);
        machine.unit.translate(batch.requests(), true);
        EXPECT(batch.statuses[0] == code(layout::Reason::pasid_supervisor_disabled));
        const u64 before = machine.unit.memory().load_quadword(pasid_table + 16);
        machine.unit.store(pasid_table + 16, 8, before | Entry::sre.mask());
        for (int round = 0; round < 2; ++round)
            machine.unit.translate(batch.requests(), true);
        EXPECT(batch.statuses[0] == 0 && batch.statuses[31] == 0 &&
               batch.addresses[31] == data + 8);
        EXPECT(batch.statuses[32] == code(layout::Reason::fs_user));
        EXPECT(batch.statuses[47] == code(layout::Reason::fs_user));
    }
}
const Test apart("batch: requests of supervisors and others", tells_supervisors_apart);

// A walk may set A and D where the entry of a device lies: pass-through then is no mode any more.
void forgets_devices_when_marks_change_memory() {
    using Entry = layout::PasidEntry;
    constexpr u32 passing = 5;
    for (const bool wide : {false, true}) {
        UnitConfig config = nested_config();
        config.extended_capability |= layout::ExtendedCapability::pt.mask();
        Nested machine(config);
        machine.unit.batch().use_wide_registers(wide);
        constexpr u64 at = pasid_table + u64{Entry::size} * passing;
        const u64 context = context_table + u64{layout::ScalableContextEntry::size} * device;
        machine.unit.store(context, 8, directory | 1 | layout::ScalableContextEntry::paside.mask());
        // P, FPD and AW are P, R/W and U/S of a first-stage leaf; D is a bit of PGTT.
        machine.unit.store(at, 8,
                           Entry::p.mask() | Entry::fpd.mask() | Entry::aw.in_place(1) |
                               Entry::pgtt.in_place(4) | data);
        // The other requests' leaf table is the page of that entry.
        machine.unit.store(table(first_tables, 2), 8, pasid_table | all_bits);
        machine.map(pasid_table, pasid_table);
        Batch batch(64);
        std::fill(batch.iovas.begin(), batch.iovas.end(), u64{0x8});
        std::fill(batch.pasids.begin(), batch.pasids.end(), passing);
        for (std::size_t i = 32; i < 40; ++i) {
            batch.pasids[i] = no_pasid;
            batch.iovas[i] = (Entry::size / layout::entry_size * passing) << 12;
            batch.kinds[i] = static_cast<u8>(i % 2 == 0 ? AccessKind::write : AccessKind::read);
        }
        machine.unit.translate(batch.requests(), true);
        EXPECT(batch.statuses[0] == 0 && batch.addresses[31] == 0x8);
        EXPECT(batch.statuses[32] == 0 && batch.addresses[32] == data);
        EXPECT(batch.statuses[40] == code(layout::Reason::pasid_invalid));
        EXPECT(batch.statuses[63] == code(layout::Reason::pasid_invalid));
    }
}
const Test forgets("batch: devices are looked up again when marks were set",
                   forgets_devices_when_marks_change_memory);

// More devices than are kept, and devices that share a slot.
void tells_devices_apart() {
    for (const bool wide : {false, true}) {
        Machine machine;
        machine.unit.batch().use_wide_registers(wide);
        using Entry = layout::ContextEntry;
        constexpr u64 contexts = 0x4'0000;
        constexpr u64 buses = 4;
        for (u64 bus = 0; bus < buses; ++bus) {
            const u64 context = contexts + bus * page_size;
            machine.unit.store(root_table + 16 * bus, 8, context | 1);
            for (u64 function = 0; function < 256; ++function) {
                // Each bus has tables of its own, and of each function only some are present.
                const u64 top = 0x1'0000 + bus * 0x3000;
                const u64 at = context + u64{Entry::size} * function;
                machine.unit.store(at, 8, top | (function % 8 != 0));
                machine.unit.store(at + 8, 8, Entry::aw.in_place(1) | Entry::did.in_place(1));
                machine.unit.store(top, 8, (top + 0x1000) | read_write);
                machine.unit.store(top + 0x1000, 8, (top + 0x2000) | read_write);
                machine.unit.store(top + 0x2000, 8, (0x8'0000 + bus * page_size) | read_write);
            }
        }
        std::mt19937_64 random(5);
        Batch batch(2048);
        for (std::size_t i = 0; i < batch.iovas.size(); ++i) {
            // First a few devices again and again, of two buses; then all of them.
            const u64 bus = random() % (i < 1024 ? 2 : buses);
            const u64 function = i < 1024 ? 1 + random() % 7 : random() % 256;
            batch.sids[i] = static_cast<u16>(bus << 8 | function);
            batch.iovas[i] = random() & 0xff8;
        }
        machine.unit.translate(batch.requests(), true);
        for (std::size_t i = 0; i < batch.iovas.size(); ++i)
            EXPECT(batch.agrees(i, machine.unit));
    }
}
const Test devices_apart("batch: devices that share a slot", tells_devices_apart);

} // namespace
