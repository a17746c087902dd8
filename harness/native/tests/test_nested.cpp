// The longest walk there is, five levels in each stage with every A/D bit to set, and what stale
// entries make of it: nothing may be written past what a walk has room for.
#include "check.hpp"
#include "nested.hpp"

using namespace dmarewind;
using namespace dmarewind::tests;

namespace {

void walks_all_levels() {
    Nested machine;
    const Permitted &permitted = machine.access(AccessKind::write);
    EXPECT(permitted.fresh_candidate().outcome == translation(data));
    EXPECT(permitted.candidates().size() == 1);
    EXPECT(permitted.fresh.result.steps_count == max_steps);
    EXPECT(permitted.fresh.result.updates_count == max_steps + max_levels);
    EXPECT(permitted.fresh.result.below_count == max_levels + 1);
    Step kept[max_leaf_steps];
    EXPECT(permitted.fresh.result.leaf_steps(kept) == max_leaf_steps);
    constexpr u64 first_marks =
        layout::FirstStageEntry::a.mask() | layout::FirstStageEntry::d.mask();
    const u64 leaf = machine.unit.memory().load_quadword(table(first_tables, 1));
    EXPECT((leaf & first_marks) == first_marks);
    EXPECT(machine.access(AccessKind::write).fresh.result.updates_count == 0);
}
const Test longest("nested: every level and every mark", walks_all_levels);

void stale_entries_of_each_stage() {
    Nested machine;
    machine.access(AccessKind::write);
    machine.map(data, data + page_size);
    EXPECT(machine.access(AccessKind::write).candidates().size() == 2);
    // Each level of each stage led elsewhere once.
    for (unsigned level = max_levels; level > 1; --level) {
        const u64 spare = 0x4'0000 + page_size * level;
        for (const u64 tables : {first_tables, second_tables}) {
            const u64 at = table(tables, level);
            const u64 before = machine.unit.memory().load_quadword(at);
            machine.unit.store(at, 8, spare | all_bits);
            EXPECT(!machine.access(AccessKind::read).candidates().empty());
            machine.unit.store(at, 8, before);
        }
    }
    const Permitted &permitted = machine.access(AccessKind::read);
    EXPECT(permitted.fresh_candidate().outcome == translation(data + page_size));
    EXPECT(permitted.candidates().size() == 2);
    for (const Candidate &candidate : permitted.candidates())
        EXPECT(candidate.trail.count <= candidate.trail.steps.size());
}
const Test stale("nested: stale entries of both stages", stale_entries_of_each_stage);

} // namespace
