#include "walk.hpp"

#include "defects.hpp"

namespace dmarewind {
namespace {

using FirstStage = layout::FirstStageEntry;
using SecondStage = layout::SecondStageEntry;
using layout::Reason;

constexpr unsigned large_leaf_first = 2;

template <class Enum> constexpr unsigned at(Enum value) {
    return static_cast<unsigned>(value);
}

// Which reserved bits count for a leaf, or for an entry that leads on.
unsigned reserved_as(unsigned leaf) {
    return defect(Defect::large_page_mask) ? 0 : leaf;
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
        read, 0, 0, {{present, reasons.not_present_read}, {read, reasons.no_read}}, {}};
    rules.kinds[at(AccessKind::write)] = {
        write, 0, 0, {{present, reasons.not_present_write}, {write, reasons.no_write}}, {}};
    rules.kinds[at(AccessKind::execute)] = {read | execute,
                                            0,
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
            mask = layout::reserved_second_stage[level][reserved_as(leaf)] | config.beyond_host();
            if (!defect(Defect::transient_bit_allowed))
                mask |= layout::tm_mask;
            if (!leaf || !snoop_control || defect(Defect::snoop_bit_reserved))
                mask |= layout::snp_mask;
            if (leaf && rules.leaf_bit[level] != 0 &&
                (large >> (level - large_leaf_first) & 1) == 0)
                mask |= SecondStage::ps.mask();
        }
    if (accessed_dirty) {
        rules.set_always = SecondStage::a.mask();
        rules.set_by_leaf_write = SecondStage::d.mask();
    }
    rules.update_refused[at(Updates::not_snooped)] = code(Reason::sm_ss_not_snooped);
    rules.update_refused[at(Updates::failing)] = code(Reason::sm_ss_update_failed);
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

HostRules host_rules(const UnitConfig &config, bool execute_enable, bool accessed_dirty) {
    const SecondStageReasons &reasons = config.dialect.scalable_second_stage;
    SecondStageReasons table = reasons;
    table.beyond_width = code(Reason::fs_table_beyond_second_stage);
    table.no_read = code(Reason::fs_table_no_read);
    SecondStageReasons top = table;
    top.no_read = code(Reason::fs_root_no_read);
    return {second_stage_rules(config, top, execute_enable, accessed_dirty),
            second_stage_rules(config, table, execute_enable, accessed_dirty),
            second_stage_rules(config, reasons, execute_enable, accessed_dirty)};
}

WalkRules first_stage_rules(const UnitConfig &config, bool no_execute_enable,
                            bool extended_accessed, Supervisor supervisor) {
    WalkRules rules;
    const bool protect = supervisor == Supervisor::write_protect || supervisor == Supervisor::both;
    const bool prevent =
        supervisor == Supervisor::execute_prevention || supervisor == Supervisor::both;
    const bool privileged = supervisor != Supervisor::no;
    const u64 present = FirstStage::p.mask();
    const u64 user = privileged ? 0 : FirstStage::us.mask();
    const u64 write = FirstStage::rw.mask();
    const u64 bound = privileged && !protect ? 0 : write;
    const u64 execute = no_execute_enable ? FirstStage::xd.mask() : 0;
    rules.invert = execute;
    const Check present_check{present, code(Reason::fs_not_present)};
    const Check user_check{user, code(Reason::fs_user)};
    const Check write_check{bound, code(Reason::sm_no_write)};
    const Check execute_check{execute, code(Reason::sm_no_execute)};
    rules.kinds[at(AccessKind::read)] = {present, user, 0, {present_check}, {user_check}};
    rules.kinds[at(AccessKind::write)] = {
        present, user | bound, 0, {present_check}, {user_check, write_check}};
    rules.kinds[at(AccessKind::execute)] = {
        present, user | execute, 0, {present_check}, {user_check, execute_check}};
    if (config.dialect.first_stage_rights_by_level)
        for (WalkRules::Kind &kind : rules.kinds) {
            kind.level |= kind.leaf;
            std::copy(std::begin(kind.leaf_checks), std::end(kind.leaf_checks),
                      kind.level_checks + 1);
        }
    rules.rights[1] = write;
    rules.rights[2] = execute;
    rules.rights[3] = FirstStage::us.mask();
    if (prevent)
        rules.kinds[at(AccessKind::execute)].prevented = FirstStage::us.mask();

    set_leaf_bits<FirstStage>(rules);
    const bool execute_disable_reserved =
        config.dialect.execute_disable_reserved && !no_execute_enable;
    for (unsigned level = 1; level <= max_levels; ++level)
        for (unsigned leaf = 0; leaf < 2; ++leaf) {
            u64 &mask = rules.reserved[level][leaf];
            mask = layout::reserved_first_stage[level][reserved_as(leaf)] | config.beyond_host();
            if (execute_disable_reserved)
                mask |= FirstStage::xd.mask();
            if (leaf && level == layout::largest_leaf && config.cap(layout::Capability::fs1gp) == 0)
                mask |= FirstStage::ps.mask();
        }
    rules.set_always = FirstStage::a.mask() | (extended_accessed ? FirstStage::ea.mask() : 0);
    rules.set_by_leaf_write = FirstStage::d.mask();
    rules.update_refused[at(Updates::not_snooped)] = code(Reason::fs_not_snooped);
    rules.update_refused[at(Updates::failing)] = code(Reason::fs_update_failed);
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

// Both stages keep the address in the same bits; the walk relies on it.
static_assert(FirstStage::addr.mask() == SecondStage::addr.mask());

bool hits_interrupt_range(const WalkRules &rules, u64 page, u64 inside, u64 iova) {
    if (defect(rules.role == Role::first_stage ? Defect::first_stage_interrupt_range
                                               : Defect::second_stage_interrupt_range))
        return false;
    const u64 first = rules.interrupt_range_by_page ? page : page | (iova & inside);
    const u64 last = rules.interrupt_range_by_page ? page | inside : first;
    return first <= interrupt_last && last >= interrupt_first;
}

// One walk on its way; a nested one has others of the second stage inside it.
class Walker {
  public:
    Walker(const Memory::View &view, const PagingRoot &root, AccessKind kind, WalkResult &out,
           const Instead *instead)
        : view_(view), root_(root), rules_(*root.rules), kind_(kind), out_(out), instead_(instead) {
    }

    // Walk; 0, or the reason of the fault. nonleaf takes the table entries that led on.
    u8 run(u64 iova, const Resume *resume, NonLeaf *nonleaf);

    u64 granted = ~u64{0};
    u64 page = 0;
    u64 inside = 0; // size of the page less one
    Rights host = host_rights;
    u8 nonleaf_count = 0;

  private:
    u8 lower(const WalkRules &which, u64 &address, u64 &mask, AccessKind kind);
    void update(u64 address, u64 bits) { out_.updates[out_.updates_count++] = {address, bits}; }

    const Memory::View &view_;
    const PagingRoot &root_;
    const WalkRules &rules_;
    AccessKind kind_;
    WalkResult &out_;
    const Instead *instead_;
};

// Put an address of the first stage through the second.
u8 Walker::lower(const WalkRules &which, u64 &address, u64 &mask, AccessKind kind) {
    const unsigned number = out_.below_count++;
    Below &below = out_.below[number];
    below.address = address;
    below.kind = kind;
    below.rules = &which;
    below.outcome = Outcome{};
    below.first_step = out_.steps_count;
    below.nonleaf_count = 0;
    const PagingRoot root = root_.below(which);
    const bool replaced = instead_ != nullptr && instead_->number == number;
    if (replaced)
        for (unsigned i = 0; i < instead_->steps_count; ++i)
            out_.add(instead_->steps[i]);
    if (replaced && instead_->resume == nullptr) {
        below.outcome = instead_->outcome;
        below.rights = instead_->rights;
    } else {
        Walker walker(view_, root, kind, out_, nullptr);
        const u8 reason = walker.run(address, replaced ? instead_->resume : nullptr, below.nonleaf);
        below.rights = which.rights_of(walker.granted);
        below.nonleaf_count = walker.nonleaf_count;
        below.outcome.type = reason != 0 ? OutcomeType::fault : OutcomeType::translation;
        below.outcome.reason = reason;
        if (reason == 0) {
            below.outcome.address = walker.page;
            below.outcome.mask = walker.inside;
        }
    }
    below.steps_count = static_cast<u8>(out_.steps_count - below.first_step);
    if (below.outcome.type == OutcomeType::fault)
        return static_cast<u8>(below.outcome.reason);
    mask = below.outcome.mask;
    address = below.outcome.address | (address & mask);
    return 0;
}

u8 Walker::run(u64 iova, const Resume *resume, NonLeaf *nonleaf) {
    u64 table = root_.pointer;
    unsigned level = root_.levels;
    if (resume != nullptr) {
        table = resume->table;
        level = resume->level;
        granted = rules_.granted_by(resume->rights);
    } else if (const u8 reason = input_fault(rules_, root_.levels, iova); reason != 0) {
        return reason;
    }
    const WalkRules::Kind &need = rules_.kind(kind_);
    bool located = resume != nullptr; // the table's address needs no second stage
    const Step *link = nullptr;
    for (;; --level) {
        const unsigned shift = layout::page_shift[level];
        const u64 index = iova >> shift & ((1U << layout::index_bits) - 1);
        u64 address = table + layout::entry_size * index;
        const Below *under = nullptr;
        if (root_.nested() && !located) {
            const WalkRules &which = level == root_.levels ? root_.host->top : root_.host->table;
            u64 mask;
            if (const u8 reason = lower(which, address, mask, AccessKind::read); reason != 0)
                return reason;
            under = &out_.below[out_.below_count - 1];
        }
        located = false;
        if (link != nullptr)
            nonleaf[nonleaf_count++] = {*link, address & ~(page_size - 1),
                                        rules_.rights_of(granted)};
        u64 entry;
        if (!view_.load(address, entry) || (entry == ~u64{0} && rules_.all_ones_unreadable))
            [[unlikely]]
            return level == root_.levels ? rules_.root_read : rules_.entry_read;
        const unsigned leaf = static_cast<unsigned>((entry & rules_.leaf_bit[level]) != 0) |
                              static_cast<unsigned>(level == 1);
        link = &out_.steps[out_.steps_count];
        out_.add({address, entry, rules_.role, static_cast<u8>(level)});
        const u64 turned = entry ^ rules_.invert;
        // The bits a pass needs set, and those it needs clear, in one test.
        if (((~turned & need.level) | (entry & rules_.reserved[level][leaf])) != 0) [[unlikely]]
            return rules_.refused_entry(turned, kind_);
        granted = defect(Defect::rights_of_last_level) ? turned : granted & turned;
        if (leaf && !rules_.leaf_allows(granted, need)) [[unlikely]]
            return rules_.refused_leaf(granted, kind_);
        if (const u64 bits = rules_.update(entry, leaf, kind_); bits != 0) {
            if (under != nullptr && (under->rights & right_write) == 0) [[unlikely]]
                return code(Reason::fs_table_no_write);
            if (const u8 reason = rules_.update_refused[at(root_.updates)]; reason != 0)
                [[unlikely]]
                return reason;
            update(address, bits);
            if (under != nullptr && root_.host->data.set_by_leaf_write != 0 &&
                !defect(Defect::nested_write_leaves_no_dirty))
                update(out_.steps[under->first_step + under->steps_count - 1].address,
                       root_.host->data.set_by_leaf_write);
        }
        const u64 target = entry & layout::SecondStageEntry::addr.mask();
        if (!leaf) {
            table = target;
            continue;
        }
        inside = (u64{1} << shift) - 1;
        page = target & ~inside;
        if (!root_.nested())
            return hits_interrupt_range(rules_, page, inside, iova) ? rules_.interrupt_range
                                                                    : u8{0};
        u64 place = page | (iova & inside);
        u64 mask;
        if (const u8 reason = lower(root_.host->data, place, mask, kind_); reason != 0)
            return reason;
        inside &= mask;
        page = place & ~inside;
        const Rights given = out_.below[out_.below_count - 1].rights;
        host = static_cast<Rights>(given << host_shift) & host_rights;
        return 0;
    }
}

} // namespace

RuleBook::RuleBook(const UnitConfig &config)
    : legacy_(second_stage_rules(config, config.dialect.legacy_second_stage, false, false)) {
    for (const bool one : {false, true})
        for (const bool other : {false, true}) {
            second_[one][other] = host_rules(config, one, other);
            for (unsigned i = 0; i < supervisors; ++i)
                first_[one][other][i] =
                    first_stage_rules(config, one, other, static_cast<Supervisor>(i));
        }
}

u8 WalkResult::leaf_steps(Step *out) const {
    u8 count = 0;
    const u8 last = below_count == 0 ? u8{0} : below[below_count - 1].first_step;
    for (u8 i = 0; i < steps_count; ++i)
        if (below_count == 0 || i >= last || steps[i].role == Role::first_stage)
            out[count++] = steps[i];
    return count;
}

void walk(const Memory::View &view, const PagingRoot &root, u64 iova, AccessKind kind,
          const Resume *resume, WalkResult &out, const Instead *instead) {
    out.outcome = Outcome{};
    out.steps_count = out.nonleaf_count = out.updates_count = out.below_count = 0;
    Walker walker(view, root, kind, out, instead);
    const u8 reason = walker.run(iova, resume, out.nonleaf);
    out.rights = (root.rules->rights_of(walker.granted) & stage_rights) | walker.host;
    out.nonleaf_count = walker.nonleaf_count;
    if (reason == 0) {
        out.outcome.type = OutcomeType::translation;
        out.outcome.address = walker.page;
        out.outcome.mask = walker.inside;
        return;
    }
    // A walk that ended in a fault leaves no trace in the tables.
    out.outcome.type = OutcomeType::fault;
    out.outcome.reason = reason;
    out.updates_count = 0;
}

} // namespace dmarewind
