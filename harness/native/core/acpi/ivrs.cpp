// IVRS (decoders/acpi/ivrs.py, harness/acpi/resolve_ivrs.py).
#include "defects.hpp"
#include "names.hpp"
#include "reading.hpp"
#include "resolve.hpp"

#include <utility>

namespace dmarewind::acpi {

using namespace layout;

namespace {

bool is_block(const Node &node) {
    return node.form == &Ivhd10::self || node.form == &Ivhd11::self;
}

// The form of an entry; of types that are not defined the top bits give a size up to 8 bytes.
const Structure *entry_form(u64 type) {
    if (const Structure *form = form_of(ivrs_entries, type); form != nullptr)
        return form;
    if (type >= 0x80)
        return nullptr;
    return type >= 0x40 ? &UnknownEntry8::self : &DeviceEntry::self;
}

// An entry of a block that has been read, or is about to be.
struct Entry {
    Bytes data;
    std::size_t at;
    const Structure *form;

    u64 value(const Field &field) const { return get(data, at, field); }
    u16 id(const Field &field) const { return static_cast<u16>(value(field)); }
    std::size_t uid_at() const { return at + form->size; }
    u64 uid_size() const { return form == &HidEntry::self ? value(HidEntry::uid_length) : 0; }
    std::size_t next() const { return uid_at() + uid_size(); }
};

Entry entry_at(Bytes data, std::size_t at) {
    return {data, at, entry_form(get(data, at, DeviceEntry::type))};
}

bool read_entry(Reading &reading, const Place &place, std::size_t at, std::size_t end) {
    const Entry entry = entry_at(reading.data(), at);
    if (entry.form == nullptr)
        return reading.fail(place.then("type"),
                            "type " + hex(entry.value(DeviceEntry::type)) +
                                " is not defined, and neither is its length",
                            at);
    if (!reading.structure(*entry.form, place, at, end, "node"))
        return false;
    if (entry.next() > end && !defect(Defect::acpi_uid_overruns))
        return reading.fail(place.then("uid_length"),
                            "UID of " + decimal(entry.uid_size()) + " bytes runs past the node",
                            at + HidEntry::uid_length.offset);
    return true;
}

bool read_entries(Reading &reading, const Place &place, std::size_t start, std::size_t end) {
    std::int64_t index = 0;
    for (std::size_t at = start; at < end; at = entry_at(reading.data(), at).next())
        if (!read_entry(reading, place.then("entry", index++), at, end))
            return false;
    return true;
}

} // namespace

void read_ivrs(Reading &reading, std::size_t start, std::size_t end) {
    const Bytes data = reading.data();
    reading.sequence<Ivrs>(start, end, [&](const Place &place, std::size_t at) {
        if (!reading.structure(IvrsNodeHeader::self, place, at, end))
            return false;
        const u64 length = get(data, at, IvrsNodeHeader::length);
        const Structure *form = form_of(ivrs_nodes, get(data, at, IvrsNodeHeader::type));
        if (form == nullptr)
            form = &IvrsNodeHeader::self;
        if (!reading.fits(*form, IvrsNodeHeader::length, place, at, length, end) ||
            !reading.structure(*form, place, at, end))
            return false;
        const Node node{form, static_cast<u32>(at), static_cast<u32>(at + length)};
        if (is_block(node) && !read_entries(reading, place, node.after(), node.end))
            return false;
        reading.add(node);
        return true;
    });
}

namespace {

// The blocks of the newest form; older ones describe the same IOMMUs again.
class Blocks {
  public:
    explicit Blocks(const Table &table) : table_(table) {
        std::optional<u64> own;
        for (const Node &node : table.nodes) {
            if (!is_block(node))
                continue;
            const u64 device = table.get(node, Ivhd10::device_id);
            if (!own.has_value())
                own = device;
            if (device == *own)
                newest_ = table.get(node, Ivhd10::type);
        }
    }

    bool has(const Node &node) const {
        return is_block(node) && table_.get(node, Ivhd10::type) == newest_;
    }

  private:
    const Table &table_;
    u64 newest_ = 0;
};

Iommu unit_of(const Table &table, const Node &node) {
    return {IommuKind::amd_vi, node.offset, table.get(node, Ivhd10::base_address),
            static_cast<u32>(table.get(node, Ivhd10::pci_segment_group)),
            static_cast<u16>(table.get(node, Ivhd10::device_id))};
}

// What an entry says of the devices that it, or the range that it begins, names.
struct Settings {
    u16 first = 0;
    std::optional<u16> used; // the id that they use, if it is not their own
    bool ats_disabled = false;
    std::int64_t index = 0; // of the entry
};

// Walk the entries of a block and keep what they say of one device: the last one counts.
class Search {
  public:
    explicit Search(u16 device) : device_(device) {}

    void block(const Table &table, const Node &node) {
        range_ = std::nullopt;
        std::int64_t index = 0;
        for (std::size_t at = node.after(); at < node.end;) {
            const Entry one = entry_at(table.data, at);
            entry(one, index++);
            at = one.next();
        }
    }

    // Return the entry that claimed the device since the last call.
    std::optional<Settings> take() { return std::exchange(claim_, std::nullopt); }

    // Return the id the device was given, or its own: one stays, whatever names the device later.
    u16 alias_or(u16 own) const { return has_alias_ ? alias_ : own; }

  private:
    void claim(u16 first, u16 last, const Settings &settings) {
        if (device_ < first || device_ > last)
            return;
        claim_ = settings;
        if (settings.used.has_value()) {
            has_alias_ = true;
            alias_ = *settings.used;
        }
    }

    // An id that others use is claimed as well, and uses itself.
    void claim_used(const Settings &settings) {
        if (settings.used.has_value())
            claim(*settings.used, *settings.used,
                  {*settings.used, std::nullopt, false, settings.index});
    }

    void entry(const Entry &one, std::int64_t index) {
        const u16 device = one.id(DeviceEntry::device_id);
        Settings settings{device, std::nullopt, false, index};
        if (one.form == &AliasEntry::self)
            settings.used = one.id(AliasEntry::used_id);
        if (one.form == &ExtendedEntry::self)
            settings.ats_disabled = (one.value(ExtendedEntry::extended_data) &
                                     ExtendedEntry::extended_data_ats_disabled) != 0;
        switch (static_cast<EntryType>(one.value(DeviceEntry::type))) {
        case EntryType::all:
            return claim(0, 0xffff, {0, std::nullopt, false, index});
        case EntryType::select:
        case EntryType::alias_select:
        case EntryType::extended_select:
        case EntryType::acpi_hid:
            claim_used(settings);
            return claim(device, device, settings);
        case EntryType::special: {
            const u16 used = one.id(SpecialEntry::used_id);
            return claim(used, used, {used, std::nullopt, false, index});
        }
        case EntryType::range_start:
        case EntryType::alias_start:
        case EntryType::extended_start:
            range_ = settings;
            return;
        case EntryType::range_end:
            if (range_.has_value()) {
                claim_used(*range_);
                claim(range_->first, device, *range_);
                range_ = std::nullopt;
            }
            return;
        case EntryType::pad:
        case EntryType::pad8:
            return;
        }
    }

    u16 device_;
    std::optional<Settings> range_;
    std::optional<Settings> claim_;
    bool has_alias_ = false;
    u16 alias_ = 0;
};

Answer resolve_pci(const Table &table, const Question &question) {
    const Function device = question.device().function;
    const Blocks blocks(table);
    Search search(device.bdf);
    std::optional<Answer> found;
    for (const Node &node : table.nodes) {
        if (!blocks.has(node) || table.get(node, Ivhd10::pci_segment_group) != device.segment)
            continue;
        if (table.get(node, Ivhd10::device_id) == device.bdf)
            return {Why::is_iommu, table.place(node)};
        search.block(table, node);
        const std::optional<Settings> claim = search.take();
        if (!claim.has_value())
            continue;
        const bool iotlb = (table.get(node, Ivhd10::flags) & Ivhd10::flags_iotlb_support) != 0;
        found =
            Answer(unit_of(table, node), search.alias_or(question.shown().bdf),
                   table.place(node).then("entry", claim->index), iotlb && !claim->ats_disabled);
    }
    return found.has_value() ? *found : Answer(Why::not_described, table.place());
}

bool has_uid(const Entry &entry, const Device &device) {
    if (device.uid.empty())
        return true;
    const std::string_view uid = as_text(entry.data.subspan(entry.uid_at(), entry.uid_size()));
    if (entry.value(HidEntry::uid_type) == 1)
        return device.number.has_value() && without_trailing_zeros(uid) == *device.number;
    return shows_as(uid, device.uid);
}

Answer resolve_named(const Table &table, const Question &question) {
    const Device &device = question.device();
    const Blocks blocks(table);
    for (const Node &node : table.nodes) {
        if (!blocks.has(node))
            continue;
        std::int64_t index = 0;
        for (std::size_t at = node.after(); at < node.end; ++index) {
            const Entry entry = entry_at(table.data, at);
            at = entry.next();
            if (entry.form != &HidEntry::self)
                continue;
            const Field &hid = HidEntry::acpi_hid;
            const std::string_view name =
                as_text(table.data.subspan(entry.at + hid.offset, hid.size));
            if (shows_as(without_trailing_zeros(name), device.name) && has_uid(entry, device))
                return {unit_of(table, node), entry.id(HidEntry::device_id),
                        table.place(node).then("entry", index)};
        }
    }
    return {Why::not_described, table.place(), "no entry has that hardware id"};
}

} // namespace

Answer resolve_ivrs(const Table &table, const Question &question) {
    switch (question.device().kind) {
    case DeviceKind::pci:
        return resolve_pci(table, question);
    case DeviceKind::named:
        return resolve_named(table, question);
    case DeviceKind::mmio:
        break;
    }
    return {Why::no_such_name, table.place(), "an IVRS gives PCI functions and names"};
}

} // namespace dmarewind::acpi
