// What each twin defines; entry.cpp calls it.
#pragma once

#include <cstddef>
#include <span>

namespace twin {

void run(std::span<const std::byte> input);

} // namespace twin
