// A table that has been read: its nodes with their places, and the problem that ended it, if any.
#pragma once

#include "layout.hpp"
#include "place.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace dmarewind::acpi {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

using Bytes = std::span<const std::byte>;
using layout::Field;
using layout::Structure;

// Return the little-endian number of up to 8 bytes at a place that is known to be inside.
inline u64 number(Bytes data, std::size_t at, u32 size) {
    u64 value = 0;
    for (u32 i = size; i-- > 0;)
        value = value << 8 | static_cast<std::uint8_t>(data[at + i]);
    return value;
}

// Return a field of the structure at a place.
inline u64 get(Bytes data, std::size_t at, const Field &field) {
    return number(data, at + field.offset, field.size);
}

inline std::string_view as_text(Bytes data) {
    return {reinterpret_cast<const char *>(data.data()), data.size()};
}

// What decoders.errors.DecodeError says.
struct Problem {
    std::string path;
    std::string text;
    std::size_t offset;
};

// Offsets are from the start of the outermost table. What follows the fixed part is not listed: it
// has been read once and can be walked without looking at bounds again.
struct Node {
    const Structure *form;
    u32 offset;
    u32 end;
    u32 mappings = 0; // where they begin
    u32 mapping_count = 0;
    std::optional<std::string_view> name = std::nullopt; // without its NUL

    u32 after() const { return offset + form->size; }
};

enum class Kind : std::uint8_t { viot, iort, dmar, ivrs, other };

// The innermost table: what a draft VIOT wraps stands for it. The bytes must outlive it.
struct Table {
    Bytes data;
    std::string signature; // as text
    std::string path;
    u32 start = 0;
    Kind kind = Kind::other;
    std::vector<Node> nodes;
    std::optional<Problem> problem; // the one with the lowest offset, as decoders.acpi.read

    // Return the node that begins so far behind the start of the table.
    const Node *find(u64 reference) const;

    Place place() const { return Place(path); }
    Place place(const Node &node) const { return place().then("node", &node - nodes.data()); }
    u64 get(const Node &node, const Field &field) const {
        return acpi::get(data, node.offset, field);
    }
};

// Read a table as decoders.acpi.read_tolerant does, within the same bounds and with the same
// problems. Time is linear in the size of data.
Table read_table(Bytes data);

} // namespace dmarewind::acpi
