#include "reader.hpp"

#include "defects.hpp"
#include "layout.hpp"

#include <limits>

namespace dmarewind {

using layout::Tag;

namespace {

// msgpack's first bytes that the stored form uses.
constexpr std::uint8_t positive_fixint_last = 0x7f;
constexpr std::uint8_t fixarray = 0x90;
constexpr std::uint8_t fixarray_last = 0x9f;
constexpr std::uint8_t fixstr = 0xa0;
constexpr std::uint8_t fixstr_last = 0xbf;
constexpr std::uint8_t nil_byte = 0xc0;
constexpr std::uint8_t bin8 = 0xc4;
constexpr std::uint8_t bin32 = 0xc6;
constexpr std::uint8_t uint8 = 0xcc;
constexpr std::uint8_t uint64 = 0xcf;
constexpr std::uint8_t int8 = 0xd0;
constexpr std::uint8_t int64 = 0xd3;
constexpr std::uint8_t str8 = 0xd9;
constexpr std::uint8_t str32 = 0xdb;
constexpr std::uint8_t array16 = 0xdc;
constexpr std::uint8_t array32 = 0xdd;

constexpr std::uint64_t any = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t any32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t page = 4096;
constexpr std::uint64_t group_limit = 0x1ff;
constexpr auto last_role = static_cast<std::uint64_t>(layout::Role::interrupt_table);

// Whether data is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::span<const std::byte> data) {
    const auto at = [&](std::size_t index) { return static_cast<std::uint32_t>(data[index]); };
    for (std::size_t i = 0; i < data.size();) {
        const std::uint32_t first = at(i);
        const unsigned more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || data.size() - i <= more)
            return false;
        std::uint32_t code = more == 0 ? first : first & (0x3fU >> more);
        for (unsigned k = 1; k <= more; ++k) {
            if ((at(i + k) & 0xc0) != 0x80)
                return false;
            code = code << 6 | (at(i + k) & 0x3f);
        }
        constexpr std::uint32_t smallest[] = {0, 0x80, 0x800, 0x1'0000};
        if (code < smallest[more] || code > 0x10'ffff || (code >= 0xd800 && code < 0xe000))
            return false;
        i += 1 + more;
    }
    return true;
}

// Whether attributes are of this project, and name one address type at most.
bool known_attributes(std::uint8_t value) {
    using layout::Attribute;
    constexpr auto types = static_cast<unsigned>(Attribute::translation_request) |
                           static_cast<unsigned>(Attribute::translated);
    constexpr auto all = types | static_cast<unsigned>(Attribute::privileged);
    return (value & ~all) == 0 && (value & types) != types;
}

bool fits(std::uint64_t value, std::uint32_t size) {
    return size == 8 || value >> (8 * size) == 0;
}

} // namespace

bool EventReader::fail(const char *problem) {
    problem_ = problem;
    return false;
}

bool EventReader::head(std::uint8_t &byte) {
    if (offset_ == raw_.size())
        return fail("event runs past the block");
    byte = static_cast<std::uint8_t>(raw_[offset_]);
    return true;
}

// Read a big-endian number of 1, 2, 4 or 8 bytes behind a first byte.
bool EventReader::big_endian(unsigned bytes, std::uint64_t &value) {
    if (raw_.size() - offset_ < 1 + std::size_t{bytes})
        return fail("event runs past the block");
    value = 0;
    for (unsigned i = 1; i <= bytes; ++i)
        value = value << 8 | static_cast<std::uint8_t>(raw_[offset_ + i]);
    offset_ += 1 + bytes;
    return true;
}

bool EventReader::integer(std::uint64_t &value, std::uint64_t limit, const char *problem) {
    std::uint8_t first;
    if (!head(first))
        return false;
    if (first <= positive_fixint_last) {
        value = first;
        ++offset_;
    } else if (first >= uint8 && first <= uint64) {
        if (!big_endian(1U << (first - uint8), value))
            return false;
    } else if (first >= int8 && first <= int64) {
        // No writer of ours stores a number as signed, but it means the same when it is positive.
        const unsigned bytes = 1U << (first - int8);
        if (!big_endian(bytes, value))
            return false;
        if ((value >> (8 * bytes - 1)) != 0)
            return fail(problem);
    } else {
        return fail(problem);
    }
    return value <= limit || fail(problem);
}

template <class T> bool EventReader::field(T &value, std::uint64_t limit, const char *problem) {
    std::uint64_t wide;
    if (!integer(wide, limit, problem))
        return false;
    value = static_cast<T>(wide);
    return true;
}

bool EventReader::nil(bool &found) {
    std::uint8_t first;
    if (!head(first))
        return false;
    found = first == nil_byte;
    offset_ += found;
    return true;
}

// Whether an array is next.
bool EventReader::is_array() const {
    if (offset_ == raw_.size())
        return false;
    const auto first = static_cast<std::uint8_t>(raw_[offset_]);
    return (first >= fixarray && first <= fixarray_last) || first == array16 || first == array32;
}

bool EventReader::array(std::uint64_t &length) {
    std::uint8_t first;
    if (!head(first))
        return false;
    if (first >= fixarray && first <= fixarray_last) {
        length = first - fixarray;
        ++offset_;
        return true;
    }
    if (first == array16 || first == array32)
        return big_endian(first == array16 ? 2 : 4, length);
    return fail("not an array");
}

bool EventReader::bytes(std::span<const std::byte> &data, std::size_t limit, bool text,
                        const char *too_long) {
    std::uint8_t first;
    std::uint64_t length;
    if (!head(first))
        return false;
    const std::uint8_t short_form = text ? str8 : bin8;
    const std::uint8_t long_form = text ? str32 : bin32;
    if (text && first >= fixstr && first <= fixstr_last) {
        length = first - fixstr;
        ++offset_;
    } else if (first >= short_form && first <= long_form) {
        if (!big_endian(1U << (first - short_form), length))
            return false;
    } else {
        return fail(text ? "not a string" : "not binary data");
    }
    if (length > limit)
        return fail(too_long);
    if (length > raw_.size() - offset_ && !defect(Defect::trace_length_unchecked))
        return fail("event runs past the block");
    data = raw_.subspan(offset_, length);
    offset_ += length;
    return true;
}

bool EventReader::outcome(Outcome &out) {
    bool absent;
    if (!nil(absent))
        return false;
    out = Outcome{};
    if (absent)
        return true;
    if (!is_array()) {
        out.type = OutcomeType::fault;
        return integer(out.reason, 0xff, "fault reason is not a number below 256");
    }
    std::uint64_t length;
    if (!array(length))
        return false;
    if (length != 2)
        return fail("translation is not [address, mask]");
    out.type = OutcomeType::translation;
    return integer(out.address, any, "address is not a 64-bit number") &&
           integer(out.mask, any, "mask is not a 64-bit number");
}

bool EventReader::sized(Event &out) {
    if (!size(out))
        return false;
    return integer(out.value, any, "value is not a 64-bit number") &&
           (fits(out.value, out.size) || fail("value does not fit into its size"));
}

bool EventReader::size(Event &out) {
    constexpr const char *problem = "size is not 1, 2, 4 or 8";
    if (!field(out.size, 8, problem))
        return false;
    return (out.size != 0 && (out.size & (out.size - 1)) == 0) || fail(problem);
}

bool EventReader::page_address(Event &out) {
    return integer(out.address, any, "address is not a 64-bit number") &&
           (out.address % page == 0 || fail("address is not the start of a page"));
}

bool EventReader::register_read(Event &out) {
    if (!field(out.address, any32, "register offset is not a 32-bit number") || !size(out))
        return false;
    bool absent;
    if (!nil(absent))
        return false;
    out.has_value = !absent;
    return absent || (integer(out.value, any, "value is not a 64-bit number") &&
                      (fits(out.value, out.size) || fail("value does not fit into its size")));
}

bool EventReader::access(Event &out, bool marked) {
    bool absent;
    if (!field(out.sid, any32, "source id is not a 32-bit number") || !nil(absent))
        return false;
    out.pasid = no_pasid;
    if (!absent && !field(out.pasid, 0xf'ffff, "PASID is not a 20-bit number"))
        return false;
    if (!field(out.address, any, "address is not a 64-bit number") ||
        !field(out.kind, 3, "access kind is not known") || !outcome(out.outcome))
        return false;
    out.attributes = 0;
    return !marked || (field(out.attributes, 0xff, "attributes are not known") &&
                       (known_attributes(out.attributes) || fail("attributes are not known")));
}

bool EventReader::descriptor(Event &out) {
    std::uint64_t length;
    if (!array(length))
        return false;
    if (length != 2 && length != 4)
        return fail("descriptor does not have 2 or 4 words");
    out.words = static_cast<std::uint32_t>(length);
    for (std::uint32_t i = 0; i < out.words; ++i)
        if (!integer(out.word[i], any, "descriptor word is not a 64-bit number"))
            return false;
    return true;
}

bool EventReader::request(Event &out) {
    bool absent;
    if (!bytes(out.data, layout::request_limit, false, "request is too long") ||
        !field(out.room, any32, "room is not a 32-bit number") || !nil(absent))
        return false;
    out.has_value = !absent;
    out.answer = {};
    return absent || (bytes(out.answer, layout::answer_limit, false, "answer is too long") &&
                      (out.answer.size() <= out.room || fail("answer is longer than its room")));
}

bool EventReader::fault_report(Event &out) {
    return integer(out.value, 0xff, "reason is not an 8-bit number") &&
           field(out.flags, any32, "flags are not a 32-bit number") &&
           field(out.sid, any32, "endpoint is not a 32-bit number") &&
           integer(out.address, any, "address is not a 64-bit number");
}

bool EventReader::region(Region &out) {
    std::uint64_t length;
    if (!array(length))
        return false;
    if (length != 3)
        return fail("region is not [subtype, start, end]");
    return field(out.subtype, 0xff, "subtype is not an 8-bit number") &&
           integer(out.start, any, "start is not a 64-bit number") &&
           integer(out.end, any, "end is not a 64-bit number") &&
           (out.end >= out.start || fail("region ends before its start"));
}

bool EventReader::endpoint(Event &out) {
    std::uint64_t length;
    if (!field(out.sid, any32, "endpoint is not a 32-bit number") || !array(length))
        return false;
    if (length > layout::regions_limit)
        return fail("endpoint has too many regions");
    out.region_count = static_cast<std::uint32_t>(length);
    for (std::uint32_t i = 0; i < out.region_count; ++i)
        if (!region(out.regions[i]))
            return false;
    return true;
}

bool EventReader::interrupt_request(Event &out) {
    bool absent;
    if (!nil(absent))
        return false;
    out.sid = no_source;
    if (!absent && !field(out.sid, 0xffff, "source id is not a 16-bit number"))
        return false;
    return integer(out.address, any, "address is not a 64-bit number") &&
           integer(out.value, any32, "interrupt data is not a 32-bit number") &&
           delivery(out.outcome);
}

bool EventReader::delivery(Outcome &out) {
    bool absent;
    if (!nil(absent))
        return false;
    out = Outcome{};
    if (absent)
        return true;
    std::uint64_t length;
    if (!is_array()) {
        out.type = OutcomeType::fault;
        return integer(out.reason, 0xff, "fault reason is not a number below 256");
    }
    if (!array(length))
        return false;
    if (length == 2) {
        out.type = OutcomeType::message;
        return integer(out.address, any, "address is not a 64-bit number") &&
               integer(out.mask, any32, "interrupt data is not a 32-bit number");
    }
    if (length != 3)
        return fail("neither a message [address, data] nor a posting");
    out.type = OutcomeType::posted;
    return integer(out.address, any, "address is not a 64-bit number") &&
           (out.address % layout::PostedInterruptDescriptor::size == 0 ||
            fail("descriptor is not aligned")) &&
           integer(out.mask, 0xff, "vector is not an 8-bit number") &&
           integer(out.reason, 1, "urgent is neither 0 nor 1");
}

// A 16-bit source id and a PASID.
bool EventReader::source(Event &out) {
    bool absent;
    if (!field(out.sid, 0xffff, "source id is not a 16-bit number") || !nil(absent))
        return false;
    out.pasid = no_pasid;
    return absent || field(out.pasid, 0xf'ffff, "PASID is not a 20-bit number");
}

bool EventReader::page_request(Event &out) {
    return source(out) && page_address(out) &&
           field(out.flags, 31, "flags are not a number below 32") &&
           integer(out.value, group_limit, "group is not a number below 512");
}

bool EventReader::page_request_record(Event &out) {
    using Record = layout::PageRequest;
    std::uint64_t length;
    if (!integer(out.address, any, "address is not a 64-bit number") || !array(length))
        return false;
    if (out.address % Record::size != 0)
        return fail("address is not aligned");
    if (length != Record::words)
        return fail("page request record does not have 4 words");
    for (std::uint64_t &word : out.word)
        if (!integer(word, any, "page request word is not a 64-bit number"))
            return false;
    return true;
}

bool EventReader::page_response(Event &out) {
    return source(out) && integer(out.address, group_limit, "group is not a number below 512") &&
           integer(out.value, 15, "response code is not a number below 16");
}

bool EventReader::device_tlb_message(Event &out) {
    if (!source(out) || !integer(out.address, any, "address is not a 64-bit number") ||
        !integer(out.value, any, "mask is not a 64-bit number") ||
        !field(out.flags, 1, "every PASID is neither 0 nor 1"))
        return false;
    if ((out.value & (out.value + 1)) != 0 || out.value < page - 1)
        return fail("mask is not the size of pages less one");
    if ((out.address & out.value) != 0)
        return fail("address is not aligned");
    return out.flags == 0 || out.pasid == no_pasid || fail("a PASID is given, and every one");
}

bool EventReader::fields(Event &out, std::uint64_t count) {
    const auto takes = [&](std::uint64_t expected) {
        return count == expected || fail("wrong number of fields");
    };
    switch (static_cast<Tag>(out.tag)) {
    case Tag::reg_write:
        return takes(3) && field(out.address, any32, "register offset is not a 32-bit number") &&
               sized(out);
    case Tag::reg_read:
        return takes(3) && register_read(out);
    case Tag::store:
        return takes(3) && integer(out.address, any, "address is not a 64-bit number") &&
               sized(out) &&
               (out.address % page + out.size <= page || fail("store crosses a page"));
    case Tag::snapshot:
        return takes(4) && page_address(out) && field(out.role, last_role, "role is not known") &&
               field(out.level, 7, "level is not within 0..7") &&
               bytes(out.data, page, false, "page content is longer than a page");
    case Tag::release:
        return takes(1) && page_address(out);
    case Tag::descriptor:
        return takes(1) && descriptor(out);
    case Tag::access:
        return (count == 6 || takes(5)) && access(out, count == 6);
    case Tag::fault_record:
        return takes(3) && integer(out.address, any, "index is not a number") &&
               integer(out.word[0], any, "low quadword is not a 64-bit number") &&
               integer(out.word[1], any, "high quadword is not a 64-bit number");
    case Tag::status_write:
        return takes(2) && integer(out.address, any, "address is not a 64-bit number") &&
               (out.address % sizeof(std::uint32_t) == 0 || fail("address is not aligned")) &&
               integer(out.value, any32, "status is not a 32-bit number");
    case Tag::interrupt:
        return takes(2) && integer(out.address, any, "address is not a 64-bit number") &&
               integer(out.value, any32, "interrupt data is not a 32-bit number");
    case Tag::reset:
        return takes(0);
    case Tag::clock:
        return takes(1) && integer(out.value, any, "time is not a 64-bit number");
    case Tag::gap:
        return takes(1) && bytes(out.data, layout::reason_limit, true, "reason is too long") &&
               (is_utf8(out.data) || fail("reason is not text"));
    case Tag::request:
        return takes(3) && request(out);
    case Tag::fault_report:
        return takes(4) && fault_report(out);
    case Tag::features:
        return takes(2) && integer(out.address, any, "features are not a 64-bit number") &&
               integer(out.value, any, "features are not a 64-bit number");
    case Tag::config_space:
        return takes(1) && bytes(out.data, layout::config_limit, false, "config space is too long");
    case Tag::device_reset:
        return takes(0);
    case Tag::endpoint:
        return takes(2) && endpoint(out);
    case Tag::interrupt_request:
        return takes(4) && interrupt_request(out);
    case Tag::page_request:
        return takes(5) && page_request(out);
    case Tag::page_request_record:
        return takes(2) && page_request_record(out);
    case Tag::page_response:
        return takes(4) && page_response(out);
    case Tag::device_tlb_message:
        return takes(5) && device_tlb_message(out);
    }
    return fail("tag is not known");
}

ReadResult EventReader::next(Event &out) {
    if (offset_ == raw_.size())
        return ReadResult::end;
    std::uint64_t length;
    if (!array(length))
        return ReadResult::damaged;
    if (length == 0) {
        fail("event without a tag");
        return ReadResult::damaged;
    }
    if (!field(out.tag, 0xff, "tag is not known") || !fields(out, length - 1))
        return ReadResult::damaged;
    return ReadResult::event;
}

} // namespace dmarewind
