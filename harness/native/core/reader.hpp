// Reader of a block's raw content: concatenated msgpack arrays [tag, *fields].
//
// It accepts exactly the stored form of the events (docs/design.md, section 3), allocates nothing
// and never reads past the bytes it was given.
#pragma once

#include "event.hpp"

namespace dmarewind {

enum class ReadResult { event, end, damaged };

class EventReader {
  public:
    explicit EventReader(std::span<const std::byte> raw) : raw_(raw) {}

    // Decode the next event into out; what is wrong, and where, is in problem() and offset().
    ReadResult next(Event &out);

    const char *problem() const { return problem_; }
    std::size_t offset() const { return offset_; }

  private:
    bool fail(const char *problem);
    bool head(std::uint8_t &byte);
    bool big_endian(unsigned bytes, std::uint64_t &value);
    bool integer(std::uint64_t &value, std::uint64_t limit, const char *problem);
    template <class T> bool field(T &value, std::uint64_t limit, const char *problem);
    bool nil(bool &found);
    bool is_array() const;
    bool array(std::uint64_t &length);
    bool bytes(std::span<const std::byte> &data, std::size_t limit, bool text,
               const char *too_long);
    bool fields(Event &out, std::uint64_t count);
    bool outcome(Outcome &out);
    bool size(Event &out);
    bool sized(Event &out);
    bool page_address(Event &out);
    bool register_read(Event &out);
    bool access(Event &out, bool marked);
    bool descriptor(Event &out);
    bool request(Event &out);
    bool fault_report(Event &out);
    bool endpoint(Event &out);
    bool interrupt_request(Event &out);
    bool source(Event &out);
    bool page_request(Event &out);
    bool page_request_record(Event &out);
    bool page_response(Event &out);
    bool device_tlb_message(Event &out);
    bool delivery(Outcome &out);
    bool region(Region &out);

    std::span<const std::byte> raw_;
    std::size_t offset_ = 0;
    const char *problem_ = "";
};

} // namespace dmarewind
