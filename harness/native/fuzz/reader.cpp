// Reads the raw content of a trace's block.
#include "reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    dmarewind::EventReader reader(std::as_bytes(std::span(data, size)));
    dmarewind::Event event;
    while (reader.next(event) == dmarewind::ReadResult::event) {
    }
    return 0;
}
