#include "walk.hpp"

namespace dmarewind {
namespace {

using FirstStage = layout::FirstStageEntry;
using SecondStage = layout::SecondStageEntry;
using layout::Reason;

constexpr unsigned large_leaf_first = 2;

constexpr unsigned at(AccessKind kind) {
    return static_cast<unsigned>(kind);
}

// Levels where PS makes a leaf, and the level of 4 KiB pages, where everything is one.
template <class Entry> void set_leaf_bits(WalkRules &rules) {
    for (unsigned level = large_leaf_first; level <= layout::largest_leaf; ++level)
        rules.leaf_bit[level] = Entry::ps.mask();
}

WalkRules second_stage_rules(const UnitConfig &config, const SecondStageReasons &reasons,
                             bool execute_enable, bool accessed_dirty) {
    WalkRules rules;
    const u64 read = SecondStage::r.mask();
    const u64 write = SecondStage::w.mask();
    const u64 execute = execute_enable ? SecondStage::x.mask() : 0;
    const u64 present = read | write | execute;
    rules.kinds[at(AccessKind::read)] = {
        read, 0, {{present, reasons.not_present_read}, {read, reasons.no_read}}, {}};
    rules.kinds[at(AccessKind::write)] = {
        write, 0, {{present, reasons.not_present_write}, {write, reasons.no_write}}, {}};
    rules.kinds[at(AccessKind::execute)] = {read | execute,
                                            0,
                                            {{present, reasons.not_present_read},
                                             {read, reasons.no_read},
                                             {execute, code(Reason::sm_no_execute)}},
                                            {}};
    rules.rights[0] = read;
    rules.rights[1] = write;
    rules.rights[2] = execute;

    const bool snoop_control = config.ecap(layout::ExtendedCapability::sc) != 0 ||
                               (config.dialect.snoop_bit_in_scalable &&
                                config.ecap(layout::ExtendedCapability::smts) != 0);
    const u64 large = config.cap(layout::Capability::sslps);
    set_leaf_bits<SecondStage>(rules);
    for (unsigned level = 1; level <= max_levels; ++level)
        for (unsigned leaf = 0; leaf < 2; ++leaf) {
            u64 &mask = rules.reserved[level][leaf];
            mask = layout::reserved_second_stage[level][leaf] | config.beyond_host();
            if (leaf)
                mask |= layout::tm_mask;
            if (!leaf || !snoop_control)
                mask |= layout::snp_mask;
            if (leaf && rules.leaf_bit[level] != 0 &&
                (large >> (level - large_leaf_first) & 1) == 0)
                mask |= SecondStage::ps.mask();
        }
    if (accessed_dirty) {
        rules.set_always = SecondStage::a.mask();
        rules.set_by_leaf_write = SecondStage::d.mask();
    }
    rules.input_width = config.guest_address_width();
    rules.input_reason = reasons.beyond_width;
    rules.reserved_reason = reasons.reserved;
    rules.root_read = reasons.root_read;
    rules.entry_read = reasons.entry_read;
    rules.interrupt_range = reasons.interrupt_range;
    rules.interrupt_range_by_page = config.dialect.interrupt_range_by_page;
    rules.all_ones_unreadable = config.dialect.all_ones_unreadable;
    rules.role = Role::second_stage;
    return rules;
}

WalkRules first_stage_rules(const UnitConfig &config, bool no_execute_enable,
                            bool extended_accessed) {
    WalkRules rules;
    const u64 present = FirstStage::p.mask();
    const u64 user = FirstStage::us.mask();
    const u64 write = FirstStage::rw.mask();
    const u64 execute = no_execute_enable ? FirstStage::xd.mask() : 0;
    rules.invert = execute;
    const Check present_check{present, code(Reason::fs_not_present)};
    const Check user_check{user, code(Reason::fs_user)};
    const Check write_check{write, code(Reason::sm_no_write)};
    const Check execute_check{execute, code(Reason::sm_no_execute)};
    rules.kinds[at(AccessKind::read)] = {present, user, {present_check}, {user_check}};
    rules.kinds[at(AccessKind::write)] = {
        present, user | write, {present_check}, {user_check, write_check}};
    rules.kinds[at(AccessKind::execute)] = {
        present, user | execute, {present_check}, {user_check, execute_check}};
    if (config.dialect.first_stage_rights_by_level)
        for (WalkRules::Kind &kind : rules.kinds) {
            kind.level |= kind.leaf;
            std::copy(std::begin(kind.leaf_checks), std::end(kind.leaf_checks),
                      kind.level_checks + 1);
        }
    rules.rights[1] = write;
    rules.rights[2] = execute;
    rules.rights[3] = user;

    set_leaf_bits<FirstStage>(rules);
    const bool execute_disable_reserved =
        config.dialect.execute_disable_reserved && !no_execute_enable;
    for (unsigned level = 1; level <= max_levels; ++level)
        for (unsigned leaf = 0; leaf < 2; ++leaf) {
            u64 &mask = rules.reserved[level][leaf];
            mask = layout::reserved_first_stage[level][leaf] | config.beyond_host();
            if (execute_disable_reserved)
                mask |= FirstStage::xd.mask();
            if (leaf && level == layout::largest_leaf && config.cap(layout::Capability::fs1gp) == 0)
                mask |= FirstStage::ps.mask();
        }
    rules.set_always = FirstStage::a.mask() | (extended_accessed ? FirstStage::ea.mask() : 0);
    rules.set_by_leaf_write = FirstStage::d.mask();
    rules.canonical = true;
    rules.input_reason = code(Reason::fs_not_canonical);
    rules.reserved_reason = code(Reason::fs_reserved);
    rules.root_read = code(Reason::fs_root_access);
    rules.entry_read = code(Reason::fs_access);
    rules.interrupt_range = code(Reason::sm_interrupt_range);
    rules.interrupt_range_by_page = config.dialect.interrupt_range_by_page;
    rules.all_ones_unreadable = config.dialect.all_ones_unreadable;
    rules.role = Role::first_stage;
    return rules;
}

// Both stages keep the address in the same bits; step() relies on it.
static_assert(FirstStage::addr.mask() == SecondStage::addr.mask());

// Notes everything the model's walk returns.
class Recorder {
  public:
    explicit Recorder(WalkResult &out) : out_(out) {}

    void entry(Role role, unsigned level, u64 address, u64 value) {
        out_.steps[out_.steps_count++] = {address, value, role, static_cast<u8>(level)};
    }

    void table(const WalkRules &rules, u64 granted, unsigned, u64 address, u64 value, u64 child) {
        out_.nonleaf[out_.nonleaf_count++] = {out_.steps[out_.steps_count - 1], child,
                                              rules.rights_of(granted)};
        update(address, value, rules.update(value, false, AccessKind::unknown));
    }

    void leaf(const WalkRules &rules, u64 address, u64 value, AccessKind kind) {
        update(address, value, rules.update(value, true, kind));
    }

  private:
    void update(u64 address, u64 value, u64 bits) {
        if (bits != 0)
            out_.updates[out_.updates_count++] = {address, value | bits};
    }

    WalkResult &out_;
};

} // namespace

RuleBook::RuleBook(const UnitConfig &config)
    : legacy_(second_stage_rules(config, config.dialect.legacy_second_stage, false, false)) {
    for (const bool one : {false, true})
        for (const bool other : {false, true}) {
            second_[one][other] =
                second_stage_rules(config, config.dialect.scalable_second_stage, one, other);
            first_[one][other] = first_stage_rules(config, one, other);
        }
}

void walk(const Memory::View &view, const PagingRoot &root, u64 iova, AccessKind kind,
          const Resume *resume, WalkResult &out) {
    const WalkRules &rules = *root.rules;
    out.outcome = Outcome{};
    out.steps_count = out.nonleaf_count = out.updates_count = 0;
    Cursor cursor{root.pointer, ~u64{0}, root.levels};
    if (resume != nullptr)
        cursor = {resume->table, rules.granted_by(resume->rights), resume->level};
    u8 reason = resume != nullptr ? u8{0} : input_fault(rules, root.levels, iova);
    u64 page = 0;
    StepResult result = reason != 0 ? StepResult::fault : StepResult::advanced;
    Recorder recorder(out);
    while (result == StepResult::advanced)
        result = step(view, rules, root.levels, cursor, iova, kind, recorder, page, reason);
    out.rights = rules.rights_of(cursor.granted);
    if (result == StepResult::leaf) {
        out.outcome.type = OutcomeType::translation;
        out.outcome.address = page;
        out.outcome.mask = (u64{1} << layout::page_shift[cursor.level]) - 1;
        return;
    }
    // A walk that ended in a fault leaves no trace in the tables or the caches.
    out.outcome.type = OutcomeType::fault;
    out.outcome.reason = reason;
    out.nonleaf_count = out.updates_count = 0;
}

} // namespace dmarewind
