#include "check.hpp"
#include "reader.hpp"

#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

using namespace dmarewind;
using dmarewind::tests::Test;

namespace {

// A copy of exactly the right size on the heap, so that ASan sees an overrun by one byte.
class Block {
  public:
    explicit Block(std::string_view text) : size_(text.size()), data_(new std::byte[size_]) {
        std::memcpy(data_.get(), text.data(), size_);
    }
    std::span<const std::byte> span() const { return {data_.get(), size_}; }

  private:
    std::size_t size_;
    std::unique_ptr<std::byte[]> data_;
};

using namespace std::string_view_literals;

// One event of each kind, as msgpack writes it.
const std::vector<std::string_view> samples = {
    "\x94\x01\x20\x08\xce\x01\x23\x44\x00"sv,
    "\x94\x02\x1c\x04\xc0"sv,
    "\x94\x03\xce\x7f\x00\x10\x08\x08\xcd\x30\x03"sv,
    "\x95\x04\xcd\x10\x00\x05\x01\xc4\x02\xab\xcd"sv,
    "\x92\x05\xcd\x10\x00"sv,
    "\x92\x06\x92\x12\x00"sv,
    "\x96\x07\x18\x12\xcd\xf0\x00\x01\x92\xcd\x20\x00\xcd\x0f\xff"sv,
    "\x96\x07\x18\xc0\xcd\xf0\x00\x02\x06"sv,
    "\x96\x07\x18\xc0\xcd\xf0\x00\x00\xc0"sv,
    "\x94\x08\x00\x01\xcf\xc0\x00\x00\x06\x00\x00\x00\x18"sv,
    "\x93\x09\x10\x02"sv,
    "\x93\x0a\xce\xfe\xe0\x10\x04\x21"sv,
    "\x91\x0b"sv,
    "\x92\x0c\x05"sv,
    "\x92\x0d\xa3why"sv,
    "\x97\x07\x18\x12\xcd\xf0\x00\x02\xc0\x05"sv,
    "\x96\x15\x18\x12\xcd\x10\x00\x13\x05"sv,
    "\x93\x16\x20\x94\x01\x02\x03\x04"sv,
    "\x95\x17\x18\xc0\x05\x0f"sv,
    "\x96\x18\x18\xc0\x00\xcd\xff\xff\x01"sv,
};

void reads_every_kind() {
    std::size_t number = 0;
    for (const std::string_view sample : samples) {
        const Block block(sample);
        EventReader reader(block.span());
        Event event;
        EXPECT(reader.next(event) == ReadResult::event);
        EXPECT(reader.next(event) == ReadResult::end);
        ++number;
    }
    Event event;
    const Block access(samples[6]);
    EventReader reader(access.span());
    EXPECT(reader.next(event) == ReadResult::event);
    EXPECT(event.sid == 0x18 && event.pasid == 0x12 && event.address == 0xf000);
    EXPECT(event.kind == 1 && event.outcome.type == OutcomeType::translation);
    EXPECT(event.outcome.address == 0x2000 && event.outcome.mask == 0xfff);
}
const Test kinds("reader: every kind of event", reads_every_kind);

void refuses_every_cut() {
    for (const std::string_view sample : samples)
        for (std::size_t size = 1; size < sample.size(); ++size) {
            const Block block(sample.substr(0, size));
            EventReader reader(block.span());
            Event event;
            EXPECT(reader.next(event) == ReadResult::damaged);
            EXPECT(reader.problem()[0] != '\0');
        }
}
const Test cuts("reader: every cut is damage", refuses_every_cut);

void survives_any_byte() {
    // Every byte of every sample replaced by every value: an answer, and no read out of bounds.
    std::size_t accepted = 0;
    for (const std::string_view sample : samples)
        for (std::size_t at = 0; at < sample.size(); ++at)
            for (int value = 0; value < 256; ++value) {
                std::string text(sample);
                text[at] = static_cast<char>(value);
                const Block block(text);
                EventReader reader(block.span());
                Event event;
                while (reader.next(event) == ReadResult::event)
                    ++accepted;
            }
    EXPECT(accepted > samples.size());
}
const Test bytes("reader: any byte anywhere", survives_any_byte);

} // namespace
