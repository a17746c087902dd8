#include "lookup.hpp"

#include "defects.hpp"

#include <algorithm>
#include <utility>

namespace dmarewind {

Lookup::Lookup(const UnitConfig &config, const RuleBook &rules)
    : rules_(&rules), legacy_reasons_(config.dialect.legacy_entries),
      scalable_reasons_(config.dialect.scalable_entries), beyond_(config.beyond_host_pointer()) {
    using Cap = layout::Capability;
    using Ecap = layout::ExtendedCapability;
    const bool pass_through = config.ecap(Ecap::pt) != 0;

    // What the unit supports, asked once: bit n says that the combination n is usable.
    context_types_ = 0;
    second_stage_ = 0;
    for (u32 aw = 0; aw < 8; ++aw) {
        if (!config.width_supported(aw))
            continue;
        // TT 0 untranslated requests, 1 also with a device TLB, 2 pass-through, 3 reserved.
        context_types_ |= 1U << (4 * aw);
        if (config.ecap(Ecap::dt) != 0)
            context_types_ |= 1U << (4 * aw + 1);
        if (pass_through && (aw == config.widest() || config.dialect.pass_through_any_width))
            context_types_ |= 1U << (4 * aw + 2);
        second_stage_ |= 1U << (2 * aw);
        if (config.ecap(Ecap::ssads) != 0 || !config.dialect.dirty_tracking_checked)
            second_stage_ |= 1U << (2 * aw + 1);
    }
    // PGTT 1 first stage, 2 second, 3 nested, 4 pass-through.
    pasid_types_ = 0;
    if (config.ecap(Ecap::fsts) != 0)
        pasid_types_ |= 1U << 1;
    if (config.ecap(Ecap::ssts) != 0)
        pasid_types_ |= 1U << 2;
    if (config.ecap(Ecap::nest) != 0 && !config.dialect.nested_unsupported)
        pasid_types_ |= 1U << 3;
    if (pass_through)
        pasid_types_ |= 1U << 4;
    pasid_checked_ = config.dialect.pasid_structures_checked;
    device_requests_unchecked_ = config.dialect.device_requests_unchecked;
    mode_checked_ = config.dialect.root_mode_checked;
    dirty_tracked_ = config.ecap(Ecap::ssads) != 0;
    extended_accessed_ = config.ecap(Ecap::eafs) != 0;
    root_pointer_reserved_ = config.dialect.root_pointer_checked ? beyond_ : 0;
    if (pasid_checked_) {
        using Entry = layout::PasidEntry;
        const std::pair<layout::Field, layout::Field> needs[] = {
            {Entry::sre, Ecap::srs},  {Entry::ere, Ecap::ers}, {Entry::eafe, Ecap::eafs},
            {Entry::pgsnp, Ecap::sc}, {Entry::cd, Ecap::mts},  {Entry::emte, Ecap::mts},
            {Entry::emt, Ecap::mts},
        };
        for (const auto &[field, capability] : needs)
            if (config.ecap(capability) == 0)
                unsupported_[field.word] |= field.mask();
    }
    std::copy_n(layout::ScalableContextEntry::reserved, layout::ScalableContextEntry::words,
                context_reserved_);
    context_reserved_[0] |= beyond_;
    // Whether a supervisor asks, a kernel takes from the request alone.
    if (config.ecap(Ecap::rprivs) != 0)
        context_reserved_[1] |= layout::ScalableContextEntry::rid_priv.mask();
    for (u32 word = 0; word < layout::PasidEntry::words; ++word) {
        const u64 reserved = layout::PasidEntry::reserved[word] | (word % 2 == 0 ? beyond_ : 0);
        pasid_reserved_[word] = unsupported_[word] | (pasid_checked_ ? reserved : 0);
    }
    first_stage_modes_ = 1U | (config.cap(Cap::fs5lp) != 0 ? 2U : 0U);
    abort_supported_ = config.ecap(Ecap::adms) != 0;
    rid_priv_ = config.ecap(Ecap::rprivs) != 0;
    updates_ = config.updates;
    scalable_ = config.ecap(Ecap::smts) != 0;
    rid_pasid_ = config.ecap(Ecap::rps) != 0 || config.dialect.honours_rid_pasid ||
                 defect(Defect::rid_pasid_without_capability);
    type_before_present_ = config.dialect.pasid_type_before_present;
}

} // namespace dmarewind
