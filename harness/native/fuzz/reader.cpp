// Reads the raw content of a trace's block.
#include "reader.hpp"

#include "twin.hpp"

void twin::run(std::span<const std::byte> input) {
    dmarewind::EventReader reader(input);
    dmarewind::Event event;
    while (reader.next(event) == dmarewind::ReadResult::event) {
    }
}
