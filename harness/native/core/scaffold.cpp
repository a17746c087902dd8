#include "scaffold.hpp"

#include <string>

namespace dmarewind {
namespace {

constexpr std::size_t findings_kept = 16;
constexpr std::size_t bytes_kept = 4096;

void never_stop() {}

// Decode the events of a scaffold.
std::vector<Event> decoded(std::span<const std::byte> raw) {
    std::vector<Event> made;
    EventReader reader(raw);
    for (Event event;;) {
        switch (reader.next(event)) {
        case ReadResult::event:
            made.push_back(event);
            break;
        case ReadResult::end:
            return made;
        case ReadResult::damaged:
            throw std::runtime_error(std::string("scaffold: ") + reader.problem());
        }
    }
}

} // namespace

ScaffoldRun::ScaffoldRun(Scaffold scaffold)
    : scaffold_(std::move(scaffold)), replay_(scaffold_.config, findings_kept, bytes_kept),
      before_(decoded(scaffold_.before)), after_(decoded(scaffold_.after)) {
    if (!scaffold_.pieces.empty())
        replay_.ignore_observations();
    for (const Event &event : decoded(scaffold_.memory))
        replay_.apply(event);
    Memory &memory = replay_.unit().memory();
    // Pages that are there need not be made anew for each input.
    for (const Piece &piece : scaffold_.pieces)
        memory.store(piece.address, 1, memory.load_quadword(piece.address) & 0xff);
    replay_.mark();
    memory.checkpoint();
    std::size_t done = 0;
    for (const Event &event : before_) {
        replay_.apply(event);
        if (!replay_.plain())
            break;
        ++done;
        replay_.mark();
        memory.checkpoint();
    }
    before_.erase(before_.begin(), before_.begin() + static_cast<std::ptrdiff_t>(done));
}

void ScaffoldRun::run(std::span<const std::byte> input) {
    static const std::function<void()> stop = never_stop;
    replay_.unit().memory().rollback();
    replay_.rewind();
    try {
        for (const Event &event : before_)
            replay_.apply(event);
        if (scaffold_.pieces.empty())
            replay_.feed(input, stop);
        else
            lay_out(input);
        for (const Event &event : after_)
            replay_.apply(event);
    } catch (const MemoryError &) {
    } catch (const DescriptorError &) {
    }
    replay_.finish();
}

// Put the input into memory, each piece as the event that gives a page's content.
void ScaffoldRun::lay_out(std::span<const std::byte> input) {
    const std::size_t first = std::min<std::size_t>(input.size(), scaffold_.pieces[0].size);
    for (const Piece &piece : scaffold_.pieces) {
        const std::size_t size = std::min<std::size_t>(input.size(), piece.size);
        replay_.learn(piece.address, input.first(size));
        input = input.subspan(size);
    }
    if (scaffold_.tail_step != 0) {
        Event event;
        event.tag = static_cast<u8>(layout::Tag::reg_write);
        event.address = scaffold_.tail_offset;
        event.size = 8;
        event.value = first - first % scaffold_.tail_step;
        replay_.apply(event);
    }
}

// -- virtio-iommu ---------------------------------------------------------------------------------

void VirtioScaffoldRun::begin() {
    replay_.emplace(scaffold_.config, findings_kept, bytes_kept);
}

void VirtioScaffoldRun::feed(std::span<const std::byte> raw) {
    static const std::function<void()> stop = never_stop;
    replay_->feed(raw, stop);
}

void VirtioScaffoldRun::run(std::span<const std::byte> input) {
    begin();
    try {
        feed(scaffold_.before);
        feed(input);
        feed(scaffold_.after);
    } catch (const virtio::BudgetError &) {
    }
    replay_->finish();
}

} // namespace dmarewind
