#include "place.hpp"

#include <cassert>
#include <charconv>

namespace dmarewind::acpi {

namespace {

std::string digits(std::uint64_t value, int base) {
    char text[20];
    const auto end = std::to_chars(text, text + sizeof text, value, base).ptr;
    return {text, end};
}

} // namespace

Place Place::then(std::string_view name, std::int64_t index) const {
    assert(depth_ < most_steps);
    Place further = *this;
    further.steps_[further.depth_++] = {name, index};
    return further;
}

Place Place::at(std::int64_t index) const {
    assert(depth_ > 0);
    Place element = *this;
    element.steps_[element.depth_ - 1].index = index;
    return element;
}

std::string Place::text() const {
    std::string text(table_);
    for (unsigned i = 0; i < depth_; ++i) {
        text += '.';
        text += steps_[i].name;
        if (steps_[i].index != no_index)
            text += '[' + digits(static_cast<std::uint64_t>(steps_[i].index), 10) + ']';
    }
    return text;
}

std::string decimal(std::uint64_t value) {
    return digits(value, 10);
}

std::string hex(std::uint64_t value) {
    return "0x" + digits(value, 16);
}

} // namespace dmarewind::acpi
