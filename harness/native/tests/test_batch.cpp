#include "check.hpp"
#include "requests.hpp"

#include <random>

using namespace dmarewind;
using namespace dmarewind::tests;

namespace {

void agrees_with_single_accesses() {
    std::mt19937_64 random(1);
    for (const bool wide : {false, true})
        for (const bool cold : {true, false})
            for (std::size_t count : {1, 7, 8, 9, 33, 100, 257}) {
                Machine machine;
                machine.unit.batch().use_wide_registers(wide);
                // Mostly mapped; without rights, in the interrupt range and reserved as well.
                for (u64 page = 0; page < 64; ++page)
                    machine.map(page, (random() % 16 == 0 ? 0xfee0'0000 : (0x100 + page) << 12) |
                                          (random() % 8 == 0 ? random() % 4 : read_write) |
                                          (random() % 32 == 0 ? 0x800 : 0));
                Batch batch(count);
                for (std::size_t i = 0; i < count; ++i) {
                    batch.iovas[i] = (random() % 64) << 12 | (random() & 0xff8);
                    if (random() % 40 == 0)
                        batch.iovas[i] = u64{1} << (20 + random() % 44);
                    if (random() % 40 == 0)
                        batch.kinds[i] = static_cast<u8>(random() % 4);
                    if (random() % 40 == 0)
                        batch.sids[i] = static_cast<u16>(random());
                }
                for (int round = 0; round < 2; ++round)
                    machine.unit.translate(batch.requests(), cold);
                for (std::size_t i = 0; i < count; ++i)
                    EXPECT(batch.agrees(i, machine.unit));
            }
}
const Test agrees("batch: what single accesses give", agrees_with_single_accesses);

void serves_what_it_keeps_until_told() {
    Machine machine;
    machine.map(1, 0xabc000 | read_write);
    Batch batch(16);
    std::fill(batch.iovas.begin(), batch.iovas.end(), 0x1008);
    machine.unit.translate(batch.requests(), false);
    machine.map(1, 0xdef000 | read_write);
    machine.unit.translate(batch.requests(), false);
    EXPECT(batch.addresses[15] == 0xabc008);
    using Descriptor = layout::IotlbInvalidation;
    machine.submit(Descriptor::type.in_place(2) | Descriptor::g.in_place(3) |
                       Descriptor::did.in_place(1),
                   0x1000);
    machine.unit.translate(batch.requests(), false);
    EXPECT(batch.addresses[0] == 0xdef008 && batch.addresses[15] == 0xdef008);
}
const Test serves("batch: the finite cache and its invalidation", serves_what_it_keeps_until_told);

// The last context entry and the last leaf of the last page that plain loads reach.
void stays_inside_the_window() {
    constexpr u64 last = Memory::default_window - page_size;
    constexpr u32 last_device = 0xff;
    using Context = layout::ContextEntry;
    for (const bool wide : {false, true}) {
        Machine machine;
        machine.unit.batch().use_wide_registers(wide);
        machine.unit.store(root_table, 8, last | 1);
        const u64 context = last + Context::size * last_device;
        machine.unit.store(context, 8, top_table | Context::p.mask());
        machine.unit.store(context + 8, 8, Context::aw.in_place(1) | Context::did.in_place(1));
        // The upper half of that context entry is the leaf, by chance a readable one.
        machine.unit.store(middle_table + 8, 8, last | read_write);
        Batch batch(16);
        std::fill(batch.sids.begin(), batch.sids.end(), u16{last_device});
        machine.map(0, 0xabc000 | read_write);
        for (const bool cold : {true, false}) {
            machine.unit.translate(batch.requests(), cold);
            EXPECT(batch.statuses[0] == 0 && batch.addresses[15] == 0xabc000);
        }
        std::fill(batch.iovas.begin(), batch.iovas.end(), 0x3f'f000);
        machine.unit.translate(batch.requests(), true);
        const Request request{last_device, no_pasid, 0x3f'f000, AccessKind::read};
        const Outcome right = machine.unit.access(request, {}).fresh_candidate().outcome;
        EXPECT(right == translation(0) && batch.statuses[15] == 0 && batch.addresses[15] == 0);
    }
}
const Test stays("batch: nothing behind the window is read", stays_inside_the_window);

// Generations are numbers of a few bits: when they are used up, what carries an early one is gone.
void forgets_before_generations_come_back() {
    Machine machine;
    machine.map(1, 0xabc000 | read_write);
    Batch batch(1);
    batch.iovas[0] = 0x1000;
    machine.unit.translate(batch.requests(), false);
    machine.map(1, 0xdef000 | read_write);
    using Descriptor = layout::IotlbInvalidation;
    for (unsigned domain_generation = 0; domain_generation < 1U << 16; ++domain_generation) {
        machine.submit(Descriptor::type.in_place(2) | Descriptor::g.in_place(2) |
                           Descriptor::did.in_place(1),
                       0);
        machine.unit.emitted.clear();
    }
    machine.unit.translate(batch.requests(), false);
    EXPECT(batch.statuses[0] == 0 && batch.addresses[0] == 0xdef000);

    FastTlb tlb;
    tlb.allocate();
    const u64 key = tlb.device_key(device, no_pasid);
    tlb.add_device(key, PagingRoot{}, false);
    EXPECT(tlb.device(key).key == key);
    u64 number = 0;
    do
        tlb.drop_devices();
    while (++number < u64{1} << 25 && tlb.device_key(device, no_pasid) != key);
    EXPECT(tlb.device_key(device, no_pasid) == key);
    EXPECT(tlb.device(key).key != key);
}
const Test generations("batch: generations come back", forgets_before_generations_come_back);

} // namespace
