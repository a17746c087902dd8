#include "check.hpp"
#include "machine.hpp"

using namespace dmarewind;
using namespace dmarewind::tests;
using layout::Reason;

namespace {

void translates_and_faults() {
    Machine machine;
    machine.map(1, 0xabc000 | read_write);
    machine.map(2, 0xdef000 | 1);
    EXPECT(machine.access(0x1234) == translation(0xabc000));
    EXPECT(machine.access(0x2000, AccessKind::write) == fault(Reason::no_write));
    EXPECT(machine.access(0x3000) == fault(Reason::no_read));
    EXPECT(machine.access(u64{1} << 39) == fault(Reason::address_beyond_width));
    EXPECT(machine.access(0xfee0'0000).type == OutcomeType::translation);
    EXPECT(machine.unit.emitted.size() == 1); // one source id, one pending record
    EXPECT(machine.unit.emitted[0].kind == layout::Tag::fault_record);
}
const Test translates("unit: translations and faults", translates_and_faults);

void tells_stale_from_wrong() {
    Machine machine;
    machine.map(1, 0xabc000 | read_write);
    machine.access(0x1000);
    machine.map(1, 0xdef000 | read_write);
    machine.unit.findings.clear();

    machine.access(0x1000, AccessKind::read, translation(0xabc000));
    EXPECT(machine.unit.findings.size() == 1);
    EXPECT(machine.unit.findings[0].kind == FindingKind::stale_use);
    EXPECT(machine.unit.findings[0].changed_by == 1);
    machine.unit.findings.clear();

    machine.access(0x1000, AccessKind::read, translation(0xdef000));
    EXPECT(machine.unit.findings[0].kind == FindingKind::unflushed);
    machine.unit.findings.clear();

    using Descriptor = layout::IotlbInvalidation;
    machine.submit(
        Descriptor::type.in_place(2) | Descriptor::g.in_place(2) | Descriptor::did.in_place(1), 0);
    machine.access(0x1000, AccessKind::read, translation(0xabc000));
    EXPECT(machine.unit.findings[0].kind == FindingKind::divergence ||
           machine.unit.findings[0].kind == FindingKind::stale_after_invalidation);
    machine.unit.findings.clear();
    machine.access(0x1000, AccessKind::read, translation(0xdef000));
    EXPECT(machine.unit.findings.empty());
}
const Test stale("unit: stale, luck and wrong", tells_stale_from_wrong);

void consumes_its_queue() {
    Machine machine;
    using Wait = layout::InvalidationWait;
    machine.submit(Wait::type.in_place(5) | Wait::sw.mask() | Wait::stdata.in_place(0x1234),
                   0x7000);
    EXPECT(machine.unit.emitted.size() == 2);
    EXPECT(machine.unit.emitted[1] == Observation::status_write(0x7000, 0x1234));
    EXPECT(machine.unit.memory().load_quadword(0x7000) == 0x1234);
    machine.submit(0xf, 0);
    const u64 status = machine.unit.read_register(layout::reg::fsts.offset, 4);
    EXPECT(layout::FaultStatus::iqe.of(status) == 1);
    EXPECT(machine.unit.read_register(layout::reg::iqh.offset, 8) == 16);
}
const Test queued("unit: the queue", consumes_its_queue);

void sees_a_table_page_come_back() {
    Machine machine;
    machine.map(1, 0xabc000 | read_write);
    machine.access(0x1000);
    machine.unit.store(middle_table, 8, 0);
    machine.unit.findings.clear();
    machine.unit.store(leaf_table + 64, 8, 0x55);
    EXPECT(machine.unit.findings.size() == 1);
    EXPECT(machine.unit.findings[0].kind == FindingKind::page_reuse);
    machine.unit.store(leaf_table + 72, 8, 0x55);
    EXPECT(machine.unit.findings.size() == 1);
}
const Test reuse("unit: page reuse is reported once", sees_a_table_page_come_back);

} // namespace
