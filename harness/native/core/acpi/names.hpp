// Names in tables, as Python shows them: bytes that are not ASCII become \x and two digits.
#pragma once

#include <string>
#include <string_view>

namespace dmarewind::acpi {

// Bytes as text that a terminal may be given: all but printable ASCII is escaped.
std::string printable(std::string_view bytes);

// Whether bytes would show as text, without making that text.
bool shows_as(std::string_view bytes, std::string_view text);

std::string_view without_trailing_zeros(std::string_view bytes);

} // namespace dmarewind::acpi
