#include "table.hpp"

#include "defects.hpp"
#include "names.hpp"
#include "reading.hpp"

#include <algorithm>
#include <array>

namespace dmarewind::acpi {

namespace {

constexpr std::pair<std::string_view, Kind> kinds[] = {
    {"VIOT", Kind::viot}, {"IORT", Kind::iort}, {"DMAR", Kind::dmar}, {"IVRS", Kind::ivrs}};

bool is_one_of(std::span<const std::string_view> list, std::string_view signature) {
    return std::ranges::find(list, signature) != list.end();
}

std::string_view signature_at(Bytes data, std::size_t at, std::size_t end) {
    return as_text(data.first(std::min(at + 4, end)).subspan(std::min(at, end)));
}

std::string lower(std::string text) {
    for (char &c : text)
        if (c >= 'A' && c <= 'Z')
            c = static_cast<char>(c - 'A' + 'a');
    return text;
}

bool is_alphanumeric(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    });
}

void identify(Table &table, std::size_t start, std::string_view signature) {
    table.start = static_cast<u32>(start);
    table.signature = printable(without_trailing_zeros(signature));
    table.kind = Kind::other;
    for (const auto &[name, kind] : kinds)
        if (name == signature)
            table.kind = kind;
}

// Read the header at start; return where its table ends, which is stop if it does not say.
std::optional<std::size_t> read_header(Reading &reading, std::size_t start, std::size_t stop) {
    using layout::Header;
    const Place path = reading.table().place();
    if (!reading.structure(Header::self, path, start, stop))
        return std::nullopt;
    const u64 length = get(reading.data(), start, Header::length);
    const bool whole = length <= stop - start || defect(Defect::acpi_length_unchecked);
    if (length >= layout::header_size && whole)
        return start + length;
    std::string text = decimal(length) + " bytes, less than a header";
    if (length > stop - start)
        text = "the table has " + decimal(length) + " bytes, the data ends after " +
               decimal(stop - start);
    reading.fail(path.then("length"), std::move(text), start + Header::length.offset);
    return stop;
}

void read_nodes(Reading &reading, std::size_t start, std::size_t end, bool wrapped) {
    switch (reading.table().kind) {
    case Kind::viot:
        return read_viot(reading, start, end);
    case Kind::iort:
        return read_iort(reading, start, end, wrapped);
    case Kind::dmar:
        return read_dmar(reading, start, end);
    case Kind::ivrs:
        return read_ivrs(reading, start, end);
    case Kind::other:
        return;
    }
}

// A draft VIOT is told by the signature of the table that it wraps, where nodes would begin.
constexpr std::size_t wrapped_at = layout::header_size + layout::DraftViot::self.size;
static_assert(layout::DraftViot::self.size == layout::Viot::self.size);

void read_whole(Reading &reading) {
    Table &table = reading.table();
    const std::optional<std::size_t> end = read_header(reading, 0, table.data.size());
    if (!end.has_value())
        return;
    const std::string_view inner = signature_at(table.data, wrapped_at, *end);
    if (table.kind != Kind::viot || !is_one_of(layout::wrapped_signatures, inner))
        return read_nodes(reading, 0, *end, false);
    if (!reading.structure(layout::DraftViot::self, table.place(), layout::header_size, *end))
        return;
    identify(table, wrapped_at, inner);
    table.path += '.' + lower(table.signature);
    if (const auto inner_end = read_header(reading, wrapped_at, *end); inner_end.has_value())
        read_nodes(reading, wrapped_at, *inner_end, true);
}

} // namespace

const Node *Table::find(u64 reference) const {
    const u64 wanted = start + reference;
    const auto at = std::ranges::lower_bound(nodes, wanted, {}, &Node::offset);
    return at != nodes.end() && at->offset == wanted ? &*at : nullptr;
}

Table read_table(Bytes data) {
    Table table;
    table.data = data;
    const std::string_view signature = signature_at(data, 0, data.size());
    identify(table, 0, signature);
    table.path = is_alphanumeric(table.signature) ? lower(table.signature) : "table";
    Reading reading(table);
    if (data.size() > layout::largest_table)
        reading.fail(table.place(),
                     decimal(data.size()) + " bytes, more than the " +
                         decimal(layout::largest_table) + " that are read",
                     layout::largest_table);
    else if (!is_one_of(layout::headless_signatures, signature))
        read_whole(reading);
    return table;
}

} // namespace dmarewind::acpi
