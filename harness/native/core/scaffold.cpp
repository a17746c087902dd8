#include "scaffold.hpp"

#include <string>

namespace dmarewind {
namespace {

constexpr std::size_t findings_kept = 16;
constexpr std::size_t bytes_kept = 4096;

void never_stop() {}

} // namespace

ScaffoldRun::ScaffoldRun(Scaffold scaffold)
    : scaffold_(std::move(scaffold)), replay_(scaffold_.config, findings_kept, bytes_kept) {
    const auto sound = [&](std::span<const std::byte> raw) {
        if (const auto damage = replay_.feed(raw, never_stop))
            throw std::runtime_error(std::string("scaffold: ") + damage->problem);
    };
    if (!scaffold_.pieces.empty())
        replay_.ignore_observations();
    sound(scaffold_.memory);
    first_ = replay_.counters().events;
    replay_.unit().memory().checkpoint();
    sound(scaffold_.before);
}

void ScaffoldRun::feed(std::span<const std::byte> raw) {
    static const std::function<void()> stop = never_stop;
    replay_.feed(raw, stop);
}

void ScaffoldRun::run(std::span<const std::byte> input) {
    replay_.unit().memory().rollback();
    replay_.restart(first_);
    feed(scaffold_.before);
    try {
        if (scaffold_.pieces.empty())
            feed(input);
        else
            lay_out(input);
        feed(scaffold_.after);
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
