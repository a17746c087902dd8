// Runs a unit again and again from the same point, each time with other bytes in between: what a
// fuzzer does. It costs as much as what the bytes lead to.
#pragma once

#include "replay.hpp"
#include "virtio_replay.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

namespace dmarewind {

// A part of the input that becomes the first bytes of a page, whose others are zero.
struct Piece {
    u64 address;
    u32 size;
};

// What stands around an input: events before and after, as a block's raw content. Those before that
// change registers and memory alone are run once; runs go back to where they have led. Without
// pieces the input is events itself. Where tail_step is not 0 the length of the first piece,
// rounded down to that, is written to the register at tail_offset.
struct Scaffold {
    UnitConfig config;
    std::vector<std::byte> memory; // of before, what survives a reset: done once
    std::vector<std::byte> before;
    std::vector<Piece> pieces;
    u32 tail_offset = 0;
    u32 tail_step = 0;
    std::vector<std::byte> after;
};

class ScaffoldRun {
  public:
    // The error of memory and before, which nothing can be run behind, is a std::runtime_error.
    explicit ScaffoldRun(Scaffold scaffold);
    ScaffoldRun(const ScaffoldRun &) = delete;
    ScaffoldRun &operator=(const ScaffoldRun &) = delete;

    // Run an input; what is wrong with events that are damaged, or else with those after them. What
    // uses up a budget ends the run early.
    void run(std::span<const std::byte> input);
    const Replay &replay() const { return replay_; }

  private:
    void lay_out(std::span<const std::byte> input);

    Scaffold scaffold_;
    Replay replay_;
    // Behind the mark; their data lies in the scaffold.
    std::vector<Event> before_;
    std::vector<Event> after_;
};

// A virtio-iommu between events: the input is events itself.
class VirtioScaffoldRun {
  public:
    struct Scaffold {
        virtio::Config config;
        std::vector<std::byte> before;
        std::vector<std::byte> after;
    };

    explicit VirtioScaffoldRun(Scaffold scaffold) : scaffold_(std::move(scaffold)) { begin(); }

    void run(std::span<const std::byte> input);
    const virtio::Replay &replay() const { return *replay_; }

  private:
    void begin();
    void feed(std::span<const std::byte> raw);

    Scaffold scaffold_;
    std::optional<virtio::Replay> replay_;
};

// Several runs, of which the first byte of an input chooses one.
template <class Run, class Scaffold> class Choice {
  public:
    // At least one; errors as of a run.
    explicit Choice(std::vector<Scaffold> scaffolds) {
        for (Scaffold &one : scaffolds)
            runs_.push_back(std::make_unique<Run>(std::move(one)));
        if (runs_.empty())
            throw std::runtime_error("there is no scaffold");
    }
    Choice(const Choice &) = delete;
    Choice &operator=(const Choice &) = delete;

    void run(std::span<const std::byte> input) {
        chosen_ = input.empty() ? 0 : std::to_integer<std::size_t>(input[0]) % runs_.size();
        runs_[chosen_]->run(input.empty() ? input : input.subspan(1));
    }
    // The replay of the run that the last input chose.
    const auto &replay() const { return runs_[chosen_]->replay(); }

  private:
    std::vector<std::unique_ptr<Run>> runs_;
    std::size_t chosen_ = 0;
};

using ScaffoldRuns = Choice<ScaffoldRun, Scaffold>;
using VirtioScaffoldRuns = Choice<VirtioScaffoldRun, VirtioScaffoldRun::Scaffold>;

} // namespace dmarewind
