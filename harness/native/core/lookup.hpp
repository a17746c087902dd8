// From a source id to a paging root: root, context, PASID directory and PASID table entries.
//
// VT-d specification 3.4 and 9; each check names its fault reason. Present is tested before
// reserved.
#pragma once

#include "defects.hpp"
#include "walk.hpp"

namespace dmarewind {

// RTADDR.TTM
inline constexpr u64 legacy_mode = 0;
inline constexpr u64 scalable_mode = 1;
inline constexpr u64 abort_mode = 3;

// Attributes of a request, as bits.
inline constexpr u8 is_privileged = static_cast<u8>(layout::Attribute::privileged);
inline constexpr u8 is_translation_request =
    static_cast<u8>(layout::Attribute::translation_request);
inline constexpr u8 is_translated = static_cast<u8>(layout::Attribute::translated);

// One DMA request as it arrives at the unit.
struct Request {
    u32 sid;
    u32 pasid; // or no_pasid
    u64 iova;
    AccessKind kind;
    u8 attributes = 0;
    bool any_right = false; // the kind is a guess: a cached entry answers it with either right
};

// A valid context or PASID entry, or why the lookup ended.
struct EntryResult {
    u8 reason = 0; // 0: valid
    bool fault_disable = false;
    bool kept = false; // the last entry read is the reason: in caching mode it may be cached
    u8 count = 0;
    u64 words[layout::PasidEntry::words]; // the first count mean something
};

class Lookup {
  public:
    Lookup(const UnitConfig &config, const RuleBook &rules);

    // What RTADDR said when it was last latched.
    void set_root(u64 pointer, u64 mode) {
        root_pointer_ = pointer;
        mode_ = mode_checked_ ? mode : scalable_ && (mode & 1) != 0 ? scalable_mode : legacy_mode;
    }
    u64 mode() const { return mode_; }
    u64 root_pointer() const { return root_pointer_; }
    bool legacy() const { return mode_ == legacy_mode; }
    // Whether the unit aborts every request, and reports none (RTADDR.TTM 3).
    bool aborting() const { return mode_ == abort_mode && abort_supported_; }
    u32 context_words() const {
        return legacy() ? layout::ContextEntry::words : layout::ScalableContextEntry::words;
    }

    // Why a context entry blocks requests of a device TLB; 0 when it does not.
    u8 type_fault(const u64 *context, u8 attributes) const;
    // Whether a request is a supervisor's: it says so, or RID_PRIV does for its device.
    bool privileged(const u64 *context, u32 pasid, u8 attributes) const {
        return (attributes & is_privileged) != 0 ||
               (pasid == no_pasid && rid_priv_ &&
                layout::ScalableContextEntry::rid_priv.get(context) != 0);
    }
    // Why a valid PASID entry blocks a request; 0 when it does not.
    static u8 pasid_refuses(const u64 *words, AccessKind kind, bool privileged);

    // Find the context entry of a source id. The observer sees each quadword read.
    template <class Observer>
    void context(const Memory::View &view, u32 sid, EntryResult &out, Observer &observer) const;

    // Whether the context entry alone said so, before a PASID entry was looked for.
    static bool refused_by_context(u8 reason) {
        using layout::Reason;
        return reason == code(Reason::sm_pasid_disabled) ||
               reason == code(Reason::sm_pasid_beyond_directory) ||
               reason == code(Reason::sm_rid_pasid_beyond_directory);
    }

    // Find the PASID table entry of a request through a valid scalable context entry.
    template <class Observer>
    void pasid(const Memory::View &view, const u64 *context, u32 pasid, EntryResult &out,
               Observer &observer) const;

    // The PASID a request uses: its own, or RID_PASID where the unit has it.
    u32 effective_pasid(const u64 *context, u32 pasid) const {
        if (pasid != no_pasid)
            return pasid;
        return rid_pasid_ ? static_cast<u32>(layout::ScalableContextEntry::rid_pasid.get(context))
                          : 0;
    }

    // The paging root a valid entry describes.
    PagingRoot legacy_root(const u64 *context) const;
    // FPD is in force when any of the entries that led here has it: fault_disable, for those
    // before the PASID entry.
    PagingRoot scalable_root(const u64 *entry, u32 pasid, bool fault_disable,
                             bool privileged) const;

    // What the kernels test themselves.
    u64 root_table() const { return root_pointer_ & ~beyond_; }
    u64 beyond() const { return beyond_; }
    bool root_usable() const {
        return mode_ <= scalable_mode && (legacy() || scalable_) &&
               (root_pointer_ & root_pointer_reserved_) == 0;
    }
    bool checks_pasids() const { return pasid_checked_; }
    bool uses_rid_pasid() const { return rid_pasid_; }
    u64 directory_reserved() const {
        return pasid_checked_ ? layout::PasidDirectoryEntry::reserved[0] | beyond_ : 0;
    }
    const u64 *context_reserved() const { return context_reserved_; }
    const u64 *pasid_reserved() const { return pasid_reserved_; }
    bool legacy_context_valid(const u64 *words) const;
    u8 pasid_fault(const u64 *words) const;

  private:
    template <unsigned Words, class Observer>
    bool read(const Memory::View &view, u64 address, Role role, u64 *words,
              Observer &observer) const;
    bool type_usable(const u64 *words) const;
    bool first_stage_usable(const u64 *words) const;
    bool second_stage_usable(const u64 *words) const;

    const RuleBook *rules_;
    EntryReasons legacy_reasons_;
    EntryReasons scalable_reasons_;
    u64 beyond_;
    u64 root_pointer_ = 0;
    u64 mode_ = legacy_mode;
    u32 context_types_;     // bit 4 * AW + TT: a legacy context entry may say so
    u32 pasid_types_;       // bit PGTT
    u32 second_stage_;      // bit 2 * AW + SSADE: PGTT 2 may say so
    u32 first_stage_modes_; // bit FSPM
    u64 unsupported_[layout::PasidEntry::words] = {}; // what ECAP does not offer
    u64 root_pointer_reserved_;
    u64 context_reserved_[layout::ScalableContextEntry::words];
    u64 pasid_reserved_[layout::PasidEntry::words]; // and what is not supported
    bool scalable_;                                 // ECAP.SMTS
    bool dirty_tracked_;                            // ECAP.SSADS
    bool extended_accessed_;                        // ECAP.EAFS
    bool mode_checked_;
    bool pasid_checked_;
    bool device_requests_unchecked_;
    bool rid_pasid_;
    bool type_before_present_;
    bool abort_supported_; // ECAP.ADMS
    bool rid_priv_;        // ECAP.RPRIVS
    Updates updates_;
};

namespace detail {

inline constexpr u32 directory_shift = 6; // a PASID table holds 64 entries
inline constexpr u64 directory_minimum_bits = 7;

template <class Shape, unsigned... Pointers>
inline bool reserved_clear(const u64 *words, u64 beyond) {
    u64 bad = 0;
    for (unsigned i = 0; i < Shape::words; ++i)
        bad |= words[i] & Shape::reserved[i];
    ((bad |= words[Pointers] & beyond), ...);
    return bad == 0;
}

} // namespace detail

template <unsigned Words, class Observer>
inline bool Lookup::read(const Memory::View &view, u64 address, Role role, u64 *words,
                         Observer &observer) const {
    // All or nothing: an entry that is partly outside the RAM leaves no steps.
    for (unsigned i = 0; i < Words; ++i)
        if (!view.load(address + sizeof(u64) * i, words[i])) [[unlikely]]
            return false;
    for (unsigned i = 0; i < Words; ++i)
        observer.entry(role, 0, address + sizeof(u64) * i, words[i]);
    return true;
}

template <class Observer>
inline void Lookup::context(const Memory::View &view, u32 sid, EntryResult &out,
                            Observer &observer) const {
    using namespace layout;
    const bool scalable = mode_ == scalable_mode;
    out.fault_disable = out.kept = false;
    if (!root_usable()) [[unlikely]] {
        out.reason = code(Reason::root_table_address);
        return;
    }
    const EntryReasons &reasons = scalable ? scalable_reasons_ : legacy_reasons_;
    const u32 bus = sid >> 8;
    u32 function = sid & 0xff;
    u64 root[RootEntry::words];
    if (!read<RootEntry::words>(view, root_table() + RootEntry::size * u64{bus}, Role::root, root,
                                observer)) [[unlikely]] {
        out.reason = reasons.root_read;
        return;
    }
    bool present;
    bool good;
    u64 table;
    if (scalable) {
        const bool upper = function >> 7 != 0;
        present = (upper ? ScalableRootEntry::up : ScalableRootEntry::lp).get(root) != 0;
        table = (upper ? ScalableRootEntry::uctp : ScalableRootEntry::lctp).address(root);
        good = detail::reserved_clear<ScalableRootEntry, 0, 1>(root, beyond_);
        function &= defect(Defect::upper_context_table_index) ? 0xff : 0x7f;
    } else {
        present = RootEntry::p.get(root) != 0;
        table = RootEntry::ctp.address(root);
        good = detail::reserved_clear<RootEntry, 0>(root, beyond_);
    }
    if (!present || !good) [[unlikely]] {
        out.kept = true;
        out.reason = present ? reasons.root_reserved : reasons.root_not_present;
        return;
    }
    u64 *words = out.words;
    bool read_it;
    if (scalable) {
        constexpr unsigned count = ScalableContextEntry::words;
        out.count = count;
        read_it = read<count>(view, table + u64{ScalableContextEntry::size} * function,
                              Role::scalable_context, words, observer);
    } else {
        constexpr unsigned count = ContextEntry::words;
        out.count = count;
        read_it = read<count>(view, table + u64{ContextEntry::size} * function, Role::context,
                              words, observer);
    }
    if (!read_it) [[unlikely]] {
        out.reason = reasons.context_read;
        return;
    }
    static_assert(ContextEntry::p.mask() == ScalableContextEntry::p.mask() &&
                  ContextEntry::fpd.mask() == ScalableContextEntry::fpd.mask());
    out.fault_disable = ContextEntry::fpd.get(words) != 0;
    out.reason = 0;
    if (ContextEntry::p.get(words) == 0) [[unlikely]]
        out.reason = reasons.context_not_present;
    else if (!(scalable ? detail::reserved_clear<ScalableContextEntry, 0>(words, beyond_)
                        : detail::reserved_clear<ContextEntry, 0>(words, beyond_))) [[unlikely]]
        out.reason = reasons.context_reserved;
    else if (!scalable && !legacy_context_valid(words)) [[unlikely]]
        out.reason = reasons.context_invalid;
    out.kept = true;
}

inline u8 Lookup::type_fault(const u64 *context, u8 attributes) const {
    constexpr u64 device_tlb = 1; // TT
    if ((attributes & (is_translation_request | is_translated)) == 0 || device_requests_unchecked_)
        return 0;
    if (legacy())
        return layout::ContextEntry::tt.get(context) == device_tlb
                   ? u8{0}
                   : code(layout::Reason::request_type_blocked);
    return layout::ScalableContextEntry::dte.get(context) != 0
               ? u8{0}
               : code(layout::Reason::sm_device_tlb_disabled);
}

inline u8 Lookup::pasid_refuses(const u64 *words, AccessKind kind, bool privileged) {
    using Entry = layout::PasidEntry;
    if (kind == AccessKind::execute && Entry::ere.get(words) == 0)
        return code(layout::Reason::pasid_execute_disabled);
    if (privileged && Entry::sre.get(words) == 0)
        return code(layout::Reason::pasid_supervisor_disabled);
    return 0;
}

inline bool Lookup::legacy_context_valid(const u64 *words) const {
    using Entry = layout::ContextEntry;
    const u64 aw = Entry::aw.get(words);
    return (context_types_ >> (Entry::tt.get(words) + 4 * aw) & 1) != 0;
}

inline bool Lookup::type_usable(const u64 *words) const {
    using Entry = layout::PasidEntry;
    const u64 type = Entry::pgtt.get(words);
    if ((pasid_types_ >> type & 1) == 0)
        return false;
    const bool first = type == 1 || type == 3;
    const bool second = type == 2 || type == 3;
    return (!first || first_stage_usable(words)) && (!second || second_stage_usable(words));
}

inline bool Lookup::first_stage_usable(const u64 *words) const {
    return (first_stage_modes_ >> layout::PasidEntry::fspm.get(words) & 1) != 0;
}

inline bool Lookup::second_stage_usable(const u64 *words) const {
    using Entry = layout::PasidEntry;
    return (second_stage_ >> (2 * Entry::aw.get(words) + Entry::ssade.get(words)) & 1) != 0;
}

inline u8 Lookup::pasid_fault(const u64 *words) const {
    using namespace layout;
    if (PasidEntry::p.get(words) == 0 && !defect(Defect::pasid_entry_present_unchecked))
        [[unlikely]]
        return code(type_before_present_ && !type_usable(words) ? Reason::pasid_invalid
                                                                : Reason::pasid_not_present);
    if (pasid_checked_ && !detail::reserved_clear<PasidEntry, 0, 2>(words, beyond_)) [[unlikely]]
        return code(Reason::pasid_reserved);
    // Only words 1 and 2 have fields that need a capability.
    const u64 unsupported = (words[1] & unsupported_[1]) | (words[2] & unsupported_[2]);
    if (!type_usable(words) || unsupported != 0) [[unlikely]]
        return code(Reason::pasid_invalid);
    return 0;
}

template <class Observer>
inline void Lookup::pasid(const Memory::View &view, const u64 *context, u32 pasid, EntryResult &out,
                          Observer &observer) const {
    using namespace layout;
    out.kept = false;
    out.fault_disable = ScalableContextEntry::fpd.get(context) != 0;
    if (pasid_checked_ && pasid != no_pasid && ScalableContextEntry::paside.get(context) == 0)
        [[unlikely]] {
        out.reason = code(Reason::sm_pasid_disabled);
        return;
    }
    const u32 number = effective_pasid(context, pasid);
    const u64 bits = ScalableContextEntry::pdts.get(context) + detail::directory_minimum_bits +
                     detail::directory_shift;
    if (pasid_checked_ && u64{number} >> bits != 0) [[unlikely]] {
        out.reason = code(pasid == no_pasid ? Reason::sm_rid_pasid_beyond_directory
                                            : Reason::sm_pasid_beyond_directory);
        return;
    }
    const u64 directory = ScalableContextEntry::pasiddirptr.address(context) +
                          u64{PasidDirectoryEntry::size} * (number >> detail::directory_shift);
    u64 pointer[PasidDirectoryEntry::words];
    if (!read<PasidDirectoryEntry::words>(view, directory, Role::pasid_directory, pointer,
                                          observer)) [[unlikely]] {
        out.reason = code(Reason::pasid_directory_access);
        return;
    }
    out.fault_disable |= PasidDirectoryEntry::fpd.get(pointer) != 0;
    if (PasidDirectoryEntry::p.get(pointer) == 0 &&
        !defect(Defect::pasid_directory_present_unchecked)) [[unlikely]] {
        out.kept = true;
        out.reason = code(Reason::pasid_directory_not_present);
        return;
    }
    if (pasid_checked_ && !detail::reserved_clear<PasidDirectoryEntry, 0>(pointer, beyond_))
        [[unlikely]] {
        out.kept = true;
        out.reason = code(Reason::pasid_directory_reserved);
        return;
    }
    const u32 index = number & ((1U << detail::directory_shift) - 1);
    const u64 table =
        PasidDirectoryEntry::smptblptr.address(pointer) + u64{PasidEntry::size} * index;
    out.count = PasidEntry::words;
    if (!read<PasidEntry::words>(view, table, Role::pasid_table, out.words, observer))
        [[unlikely]] {
        out.reason = code(Reason::pasid_access);
        return;
    }
    out.fault_disable |= PasidEntry::fpd.get(out.words) != 0;
    out.kept = true;
    out.reason = pasid_fault(out.words);
}

inline PagingRoot Lookup::legacy_root(const u64 *context) const {
    using Entry = layout::ContextEntry;
    constexpr u64 pass_through = 2;
    PagingRoot root;
    root.domain = static_cast<u32>(Entry::did.get(context));
    root.rules = Entry::tt.get(context) == pass_through ? nullptr : rules_->legacy_second_stage();
    root.pointer = Entry::ssptptr.address(context);
    root.levels = static_cast<u8>(Entry::aw.get(context) + 2);
    root.fault_disable = Entry::fpd.get(context) != 0;
    return root;
}

inline PagingRoot Lookup::scalable_root(const u64 *entry, u32 pasid, bool fault_disable,
                                        bool privileged) const {
    using Entry = layout::PasidEntry;
    constexpr u64 first_type = 1;
    constexpr u64 second_type = 2;
    constexpr u64 nested_type = 3;
    const u64 type = Entry::pgtt.get(entry);
    PagingRoot root;
    root.domain = static_cast<u32>(Entry::did.get(entry));
    root.fault_disable = fault_disable || Entry::fpd.get(entry) != 0;
    const bool snooped = updates_ == Updates::not_snooped && Entry::pwsnp.get(entry) != 0;
    root.updates = snooped ? Updates::done : updates_;
    const bool execute_enable = Entry::ssee.get(entry) != 0;
    const bool accessed_dirty = dirty_tracked_ && Entry::ssade.get(entry) != 0;
    const auto second_levels = static_cast<u8>(Entry::aw.get(entry) + 2);
    if (type == second_type) {
        root.rules = rules_->second_stage(execute_enable, accessed_dirty);
        root.pointer = Entry::ssptptr.address(entry);
        root.levels = second_levels;
    }
    if (type != first_type && type != nested_type)
        return root;
    auto supervisor = Supervisor::no;
    if (privileged) {
        const u64 binds = Entry::wpe.get(entry) | Entry::smep.get(entry) << 1;
        supervisor = static_cast<Supervisor>(static_cast<u64>(Supervisor::plain) + binds);
    }
    const bool extended_accessed = extended_accessed_ && Entry::eafe.get(entry) != 0;
    root.rules = rules_->first_stage(Entry::nxe.get(entry) != 0, extended_accessed, supervisor);
    root.pasid = pasid;
    root.pointer = Entry::fsptptr.address(entry);
    root.levels = static_cast<u8>(4 + Entry::fspm.get(entry));
    root.privileged = privileged;
    if (type == nested_type) {
        root.host = rules_->host(execute_enable, accessed_dirty);
        root.host_pointer = Entry::ssptptr.address(entry);
        root.host_levels = second_levels;
    }
    return root;
}

} // namespace dmarewind
