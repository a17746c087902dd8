// Read structures within bounds; the first that cannot be read becomes the problem of the table.
#pragma once

#include "table.hpp"

namespace dmarewind::acpi {

class Reading {
  public:
    explicit Reading(Table &table) : table_(table), data_(table.data) {}

    Bytes data() const { return data_; }
    Table &table() { return table_; }

    // Report a problem; of several the one with the lowest offset is kept. Always false.
    bool fail(const Place &place, std::string text, std::size_t offset);

    // Whether the structure at a place ends before end. within says what ends there.
    bool structure(const Structure &form, const Place &place, std::size_t at, std::size_t end,
                   std::string_view within = "table");

    // Whether count structures of one kind end before end.
    bool array(const Structure &form, const Place &place, std::size_t at, u64 count,
               std::size_t end);

    // Whether a node of the length that it gives can be read.
    bool fits(const Structure &form, const Field &length_field, const Place &place, std::size_t at,
              u64 length, std::size_t end);

    // Read the nodes of a table whose fixed part counts them and says where the first one is.
    template <class Head, class Read>
    void counted(std::size_t start, std::size_t end, Read read_node);

    // Read the nodes that follow the fixed part of a table without a gap.
    template <class Head, class Read>
    void sequence(std::size_t start, std::size_t end, Read read_node);

    // Keep a node that has been read.
    void add(const Node &node) { table_.nodes.push_back(node); }
    void add(const Structure &form, std::size_t at, u64 length) {
        add({&form, static_cast<u32>(at), static_cast<u32>(at + length)});
    }

  private:
    bool take(u64 count);

    Table &table_;
    Bytes data_;
    u64 left_ = layout::most_structures;
};

// The form of a type of node: the longest of those that take no more than room, or nullptr.
const Structure *form_of(std::span<const layout::Form> forms, u64 type, u64 room = ~u64{0});

// The shortest form of a type of node, or nullptr.
const Structure *least_form_of(std::span<const layout::Form> forms, u64 type);

// What follows the header of a table of each kind, from start to end.
void read_viot(Reading &reading, std::size_t start, std::size_t end);
void read_iort(Reading &reading, std::size_t start, std::size_t end, bool draft);
void read_dmar(Reading &reading, std::size_t start, std::size_t end);
void read_ivrs(Reading &reading, std::size_t start, std::size_t end);

template <class Head, class Read>
void Reading::counted(std::size_t start, std::size_t end, Read read_node) {
    const std::size_t head = start + layout::header_size;
    const Place path = table_.place();
    if (!structure(Head::self, path, head, end))
        return;
    const std::size_t first = start + get(data_, head, Head::node_offset);
    const u64 count = get(data_, head, Head::node_count);
    if (first < head + Head::self.size || first > end) {
        const std::string where = "nodes begin at " + hex(first - start);
        fail(path.then("node_offset"),
             where + (first > end ? ", beyond the table" : ", which is not behind the header"),
             head + Head::node_offset.offset);
        return;
    }
    std::vector<Node> &nodes = table_.nodes;
    for (std::size_t at = first; at < end && nodes.size() < count; at = nodes.back().end)
        if (!read_node(path.then("node", static_cast<std::int64_t>(nodes.size())), at))
            return;
}

template <class Head, class Read>
void Reading::sequence(std::size_t start, std::size_t end, Read read_node) {
    const std::size_t head = start + layout::header_size;
    const Place path = table_.place();
    if (!structure(Head::self, path, head, end))
        return;
    std::vector<Node> &nodes = table_.nodes;
    for (std::size_t at = head + Head::self.size; at < end; at = nodes.back().end)
        if (!read_node(path.then("node", static_cast<std::int64_t>(nodes.size())), at))
            return;
}

} // namespace dmarewind::acpi
