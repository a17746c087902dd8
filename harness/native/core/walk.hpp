// The page walk: geometry and checks are data, one step serves every level of either stage.
//
// VT-d specification 3.7 (second stage) and 3.6 (first stage). Order of checks: second stage per
// level permission, reserved, leaf; first stage per level present, reserved, and at the leaf what
// all levels together allow: user, write, execute.
#pragma once

#include "config.hpp"
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
inline constexpr Rights all_rights = right_read | right_write | right_execute | right_user;

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
    Role role = Role::second_stage;

    // What the bits all entries share allow, and the other way round.
    Rights rights_of(u64 granted) const {
        unsigned given = 0;
        for (unsigned i = 0; i < rights_count; ++i)
            given |= static_cast<unsigned>((granted & rights[i]) == rights[i]) << i;
        return static_cast<Rights>(given);
    }
    u64 granted_by(Rights given) const {
        u64 granted = ~u64{0};
        for (unsigned i = 0; i < rights_count; ++i)
            if ((given >> i & 1) == 0)
                granted &= ~rights[i];
        return granted;
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
        return reserved_reason;
    }
};

// The rules of every variant one unit can meet.
class RuleBook {
  public:
    explicit RuleBook(const UnitConfig &config);

    const WalkRules *legacy_second_stage() const { return &legacy_; }
    const WalkRules *second_stage(bool execute_enable, bool accessed_dirty) const {
        return &second_[execute_enable][accessed_dirty];
    }
    const WalkRules *first_stage(bool no_execute_enable, bool extended_accessed) const {
        return &first_[no_execute_enable][extended_accessed];
    }

  private:
    WalkRules legacy_;
    WalkRules second_[2][2];
    WalkRules first_[2][2];
};

// Where and how to walk for one request, as the context or PASID entry says.
struct PagingRoot {
    u64 pointer = 0;
    const WalkRules *rules = nullptr; // nullptr is pass-through
    u32 domain = 0;
    u32 pasid = no_pasid; // what the IOTLB tags with; no_pasid where it does not
    u8 levels = 0;
    bool fault_disable = false;

    u8 stage() const { return rules == nullptr ? 0 : static_cast<u8>(rules->role); }
};

// The place a walk has come to, and the bits all entries so far share.
struct Cursor {
    u64 table;
    u64 granted;
    u8 level;
};

enum class StepResult : u8 { advanced, leaf, fault };

// Read one entry and go one level down. On a fault reason is set, on a leaf page is its base.
template <class Observer>
inline StepResult step(const Memory::View &view, const WalkRules &rules, unsigned levels,
                       Cursor &cursor, u64 iova, AccessKind kind, Observer &observer, u64 &page,
                       u8 &reason) {
    const unsigned level = cursor.level;
    const unsigned shift = layout::page_shift[level];
    const u64 index = iova >> shift & ((1U << layout::index_bits) - 1);
    const u64 address = cursor.table + layout::entry_size * index;
    u64 entry;
    if (!view.load(address, entry) || (entry == ~u64{0} && rules.all_ones_unreadable))
        [[unlikely]] {
        reason = level == levels ? rules.root_read : rules.entry_read;
        return StepResult::fault;
    }
    const unsigned leaf = static_cast<unsigned>((entry & rules.leaf_bit[level]) != 0) |
                          static_cast<unsigned>(level == 1);
    observer.entry(rules.role, level, address, entry);
    const WalkRules::Kind &need = rules.kind(kind);
    const u64 turned = entry ^ rules.invert;
    // The bits a pass needs set, and those it needs clear, in one test.
    if (((~turned & need.level) | (entry & rules.reserved[level][leaf])) != 0) [[unlikely]] {
        reason = rules.refused_entry(turned, kind);
        return StepResult::fault;
    }
    cursor.granted &= turned;
    const u64 target = entry & layout::SecondStageEntry::addr.mask();
    if (!leaf) {
        observer.table(rules, cursor.granted, level, address, entry, target);
        cursor.table = target;
        --cursor.level;
        return StepResult::advanced;
    }
    if ((~cursor.granted & need.leaf) != 0) [[unlikely]] {
        reason = rules.refused_leaf(cursor.granted, kind);
        return StepResult::fault;
    }
    observer.leaf(rules, address, entry, kind);
    const u64 size = u64{1} << shift;
    page = target & ~(size - 1);
    const u64 first = rules.interrupt_range_by_page ? page : page | (iova & (size - 1));
    const u64 last = rules.interrupt_range_by_page ? page + size - 1 : first;
    if (first <= interrupt_last && last >= interrupt_first) [[unlikely]] {
        reason = rules.interrupt_range;
        return StepResult::fault;
    }
    return StepResult::leaf;
}

// Test the width of an input address; 0, or the reason it is refused for.
inline u8 input_fault(const WalkRules &rules, unsigned levels, u64 iova) {
    const unsigned width = layout::page_bits + layout::index_bits * levels;
    if (rules.canonical) {
        const auto top = static_cast<std::int64_t>(iova) >> (width - 1);
        return top == 0 || top == -1 ? 0 : rules.input_reason;
    }
    const unsigned limit = std::min(width, rules.input_width);
    return limit < 64 && iova >> limit != 0 ? rules.input_reason : 0;
}

// An observer that wants to know nothing.
struct Unobserved {
    void entry(Role, unsigned, u64, u64) {}
    void table(const WalkRules &, u64, unsigned, u64, u64, u64) {}
    void leaf(const WalkRules &, u64, u64, AccessKind) {}
};

// One table entry that led on: what a paging-structure cache may keep.
struct NonLeaf {
    Step step;
    u64 child;
    Rights rights;
};

// The outcome of one walk and what it saw; updates are A/D stores still to be made.
struct WalkResult {
    struct Update {
        u64 address;
        u64 value;
    };

    Outcome outcome;
    Rights rights = all_rights;
    u8 steps_count = 0;
    u8 nonleaf_count = 0;
    u8 updates_count = 0;
    Step steps[max_levels];
    NonLeaf nonleaf[max_levels];
    Update updates[max_levels];
};

// Where to continue from a cached entry.
struct Resume {
    u8 level;
    u64 table;
    Rights rights;
};

// Walk the tables of root for iova; kind is read, write or execute.
void walk(const Memory::View &view, const PagingRoot &root, u64 iova, AccessKind kind,
          const Resume *resume, WalkResult &out);

} // namespace dmarewind
