// The page walk: geometry and checks are data, one step serves every level of either stage.
//
// VT-d specification 3.7 (second stage) and 3.6 (first stage). Order of checks: second stage per
// level permission, reserved, leaf; first stage per level present, reserved, and at the leaf what
// all levels together allow: user, write, execute. In a nested walk (3.8) the second stage
// translates each first-stage table address, and what the leaf says, before it is used.
#pragma once

#include "config.hpp"
#include "defects.hpp"
#include "event.hpp"

namespace dmarewind {

using layout::AccessKind;
using layout::Role;

inline constexpr unsigned max_levels = 5;
inline constexpr u64 interrupt_first = 0xfee0'0000;
inline constexpr u64 interrupt_last = 0xfeef'ffff;

// What the levels so far allow, as bits.
using Rights = u8;
inline constexpr Rights right_read = 1;
inline constexpr Rights right_write = 2;
inline constexpr Rights right_execute = 4;
inline constexpr Rights right_user = 8;
inline constexpr unsigned rights_count = 4;
inline constexpr unsigned host_shift = 4; // what the second stage under a first one allows
inline constexpr Rights stage_rights = right_read | right_write | right_execute | right_user;
inline constexpr Rights host_rights = (right_read | right_write | right_execute) << host_shift;
inline constexpr Rights all_rights = stage_rights | host_rights;
// The stage of nested translation in a tag, behind the roles of the two.
inline constexpr u8 nested_stage = 8;

// One entry (or one quadword of an entry) that was read on the way.
struct Step {
    u64 address;
    u64 value;
    Role role;
    u8 level;

    bool operator==(const Step &) const = default;
};

// Bits the unit itself may set in an entry: no change of the table by software.
constexpr u64 ignored_when_comparing(Role role) {
    if (role == Role::first_stage)
        return layout::FirstStageEntry::a.mask() | layout::FirstStageEntry::d.mask() |
               layout::FirstStageEntry::ea.mask();
    if (role == Role::second_stage)
        return layout::SecondStageEntry::a.mask() | layout::SecondStageEntry::d.mask();
    return 0;
}

// A check that fails with reason when none of the bits of mask is set.
struct Check {
    u64 mask = 0;
    u8 reason = 0;
};

// All that differs between the stages, the modes and the flags of a PASID entry. Entries are looked
// at after the bits of invert have been turned over, so that a set bit always allows.
struct WalkRules {
    struct Kind {
        u64 level = 0;         // bits every entry must have set
        u64 leaf = 0;          // bits every entry must have set, asked at the leaf
        u64 prevented = 0;     // bits not all entries may have set, asked at the leaf
        Check level_checks[4]; // in order: why an entry without the bits is refused
        Check leaf_checks[3];
    };

    Kind kinds[4]; // by AccessKind; unknown is never walked
    u64 reserved[max_levels + 1][2] = {};
    u64 leaf_bit[max_levels + 1] = {}; // an entry is a leaf when it has this bit
    u64 invert = 0;                    // XD
    u64 rights[rights_count] = {};     // the bit of each right; none: never lost
    u64 set_always = 0;                // A and EA
    u64 set_by_leaf_write = 0;         // D
    unsigned input_width = 64;         // second stage: MGAW
    bool canonical = false;            // first stage: input must be sign-extended
    bool all_ones_unreadable = false;
    bool interrupt_range_by_page = false;
    u8 input_reason = 0;
    u8 reserved_reason = 0;
    u8 root_read = 0;
    u8 entry_read = 0;
    u8 interrupt_range = 0;
    u8 update_refused[updates_count] = {}; // by Updates
    Role role = Role::second_stage;

    // What the bits all entries share allow, and the other way round.
    Rights rights_of(u64 granted) const {
        unsigned given = 0;
        for (unsigned i = 0; i < rights_count; ++i)
            given |= static_cast<unsigned>((granted & rights[i]) == rights[i]) << i;
        return static_cast<Rights>(given | host_rights);
    }
    u64 granted_by(Rights given) const {
        u64 granted = ~u64{0};
        for (unsigned i = 0; i < rights_count; ++i)
            if ((given >> i & 1) == 0)
                granted &= ~rights[i];
        return granted;
    }

    // Whether what the levels share allows an access.
    bool leaf_allows(u64 granted, const Kind &need) const {
        return (~granted & need.leaf) == 0 && (granted & need.prevented) == 0;
    }
    // Whether a kept entry answers a request: one without the right is walked again.
    bool allows(Rights given, AccessKind which) const {
        // It may come from a time when other bits decided about execution.
        if (which == AccessKind::execute && (given & right_execute) == 0)
            return false;
        const u64 granted = granted_by(given);
        const Kind &need = kind(which);
        return (~granted & need.level) == 0 && leaf_allows(granted, need);
    }

    u64 update(u64 entry, bool is_leaf, AccessKind kind) const {
        u64 bits = set_always;
        if (is_leaf && kind == AccessKind::write)
            bits |= set_by_leaf_write;
        return bits & ~entry;
    }

    const Kind &kind(AccessKind which) const { return kinds[static_cast<unsigned>(which)]; }

    // Why an entry without any right is refused: the first check there is.
    u8 not_present(AccessKind which) const { return kind(which).level_checks[0].reason; }

    // Why an entry that failed the combined test is refused.
    u8 refused_entry(u64 turned, AccessKind which) const {
        for (const Check &check : kind(which).level_checks)
            if (check.mask != 0 && (turned & check.mask) == 0)
                return check.reason;
        return reserved_reason;
    }

    // Why a leaf is refused whose levels together do not allow the access.
    u8 refused_leaf(u64 granted, AccessKind which) const {
        for (const Check &check : kind(which).leaf_checks)
            if (check.mask != 0 && (granted & check.mask) == 0)
                return check.reason;
        return code(layout::Reason::sm_no_execute); // prevented
    }
};

// The second stage under a nested first one, with the reasons of what it translates: the root
// table, the other tables, and what the leaf says.
struct HostRules {
    WalkRules top;
    WalkRules table;
    WalkRules data;
};

// Whose request it is, and what of a PASID entry binds it: WPE, SMEP.
enum class Supervisor : u8 { no, plain, write_protect, execute_prevention, both };
inline constexpr unsigned supervisors = 5;

// The rules of every variant one unit can meet.
class RuleBook {
  public:
    explicit RuleBook(const UnitConfig &config);

    const WalkRules *legacy_second_stage() const { return &legacy_; }
    const WalkRules *second_stage(bool execute_enable, bool accessed_dirty) const {
        return &host(execute_enable, accessed_dirty)->data;
    }
    const HostRules *host(bool execute_enable, bool accessed_dirty) const {
        return &second_[execute_enable][accessed_dirty];
    }
    const WalkRules *first_stage(bool no_execute_enable, bool extended_accessed,
                                 Supervisor supervisor) const {
        return &first_[no_execute_enable][extended_accessed][static_cast<unsigned>(supervisor)];
    }

  private:
    WalkRules legacy_;
    HostRules second_[2][2];
    WalkRules first_[2][2][supervisors];
};

// Where and how to walk for one request, as the context or PASID entry says.
struct PagingRoot {
    u64 pointer = 0;
    const WalkRules *rules = nullptr; // nullptr is pass-through
    u32 domain = 0;
    u32 pasid = no_pasid; // what the IOTLB tags with; no_pasid where it does not
    u8 levels = 0;
    bool fault_disable = false;
    bool privileged = false;
    Updates updates = Updates::done;
    u8 host_levels = 0;
    u64 host_pointer = 0;
    const HostRules *host = nullptr; // of a nested walk

    bool nested() const { return host != nullptr; }
    u8 stage() const {
        if (rules == nullptr)
            return 0;
        return nested() ? nested_stage : static_cast<u8>(rules->role);
    }
    // The second stage of a nested root, by one set of its rules.
    PagingRoot below(const WalkRules &which) const {
        PagingRoot root;
        root.pointer = host_pointer;
        root.rules = &which;
        root.domain = domain;
        root.levels = host_levels;
        root.fault_disable = fault_disable;
        root.updates = updates;
        return root;
    }
};

// The place a walk has come to, and the bits all entries so far share.
struct Cursor {
    u64 table;
    u64 granted;
    u8 level;
};

// Test the width of an input address; 0, or the reason it is refused for.
inline u8 input_fault(const WalkRules &rules, unsigned levels, u64 iova) {
    const unsigned width = layout::page_bits + layout::index_bits * levels;
    if (rules.canonical) {
        const unsigned sign = defect(Defect::canonical_off_by_one) ? width : width - 1;
        const auto top = static_cast<std::int64_t>(iova) >> sign;
        return top == 0 || top == -1 ? 0 : rules.input_reason;
    }
    const unsigned limit = std::min(width, rules.input_width);
    return limit < 64 && iova >> limit != 0 ? rules.input_reason : 0;
}

// An observer of a lookup that wants to know nothing.
struct Unobserved {
    void entry(Role, unsigned, u64, u64) {}
};

// One table entry that led on: what a paging-structure cache may keep. child is where the table
// lies: behind the second stage in a nested walk.
struct NonLeaf {
    Step step;
    u64 child;
    Rights rights;
};

// Entries that one walk can read: in a nested one each first-stage entry, and what leads to it.
inline constexpr unsigned max_steps = max_levels * (max_levels + 1) + max_levels;
// Those that are kept with a translation: not the second-stage ones that only led to tables.
inline constexpr unsigned max_leaf_steps = 2 * max_levels;

// One walk of the second stage for an address of the first.
struct Below {
    u64 address;
    AccessKind kind;
    const WalkRules *rules;
    Outcome outcome;
    Rights rights;
    u8 first_step; // of the whole walk
    u8 steps_count;
    u8 nonleaf_count;
    NonLeaf nonleaf[max_levels];
};

// The outcome of one walk and what it saw; updates are A/D bits still to be set.
struct WalkResult {
    struct Update {
        u64 address;
        u64 bits;
    };

    Outcome outcome;
    Rights rights = all_rights;
    u8 steps_count = 0;
    u8 nonleaf_count = 0;
    u8 updates_count = 0;
    u8 below_count = 0;
    Step steps[max_steps];
    NonLeaf nonleaf[max_levels];
    Update updates[max_steps + max_levels];
    Below below[max_levels + 1];

    void add(const Step &step) { steps[steps_count++] = step; }
    // Append the steps that are kept with a translation; returns how many.
    u8 leaf_steps(Step *out) const;
};

// Where to continue from a cached entry.
struct Resume {
    u8 level;
    u64 table;
    Rights rights;
};

// A kept entry that answers one second-stage walk of a nested one in place of the tables.
struct Instead {
    unsigned number; // of the walk
    const Resume *resume = nullptr;
    const Step *steps;
    u8 steps_count;
    // Without resume, the answer:
    Outcome outcome;
    Rights rights = all_rights;
};

// Walk the tables of root for iova; kind is read, write or execute.
void walk(const Memory::View &view, const PagingRoot &root, u64 iova, AccessKind kind,
          const Resume *resume, WalkResult &out, const Instead *instead = nullptr);

} // namespace dmarewind
