// Where something in a table is: a path that becomes text only when somebody wants to read it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dmarewind::acpi {

class Place {
  public:
    explicit Place(std::string_view table) : table_(table) {}

    // The same place with one more step: ".name", or ".name[index]".
    Place then(std::string_view name, std::int64_t index = no_index) const;

    // The same place with an index on its last step.
    Place at(std::int64_t index) const;

    std::string text() const;

  private:
    static constexpr std::int64_t no_index = -1;
    static constexpr unsigned most_steps = 4; // node, scope, step of its path, field

    struct Step {
        std::string_view name;
        std::int64_t index;
    };

    std::string_view table_;
    Step steps_[most_steps];
    unsigned depth_ = 0;
};

// Numbers as messages show them.
std::string decimal(std::uint64_t value);
std::string hex(std::uint64_t value); // with 0x

} // namespace dmarewind::acpi
