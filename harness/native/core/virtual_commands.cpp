#include "virtual_commands.hpp"

namespace dmarewind {

namespace reg = layout::reg;

namespace {

constexpr u64 allocate_pasid = 1;
constexpr u64 free_pasid = 2;
// Status of a command that is not known (QEMU's shared virtual memory series, v3.1).
constexpr u64 undefined = 1;
constexpr u32 first_pasid = 1;
constexpr u32 last_pasid = (1 << 20) - 1;

} // namespace

const VirtualCommands::Place *VirtualCommands::place_at(u32 offset) {
    using namespace layout;
    // Statuses as Linux 5.13 and 5.14 read them.
    static const Place places[] = {
        {&reg::virtual_a::vccap, &reg::virtual_a::vcmd, &reg::virtual_a::vcrsp,
         VirtualCommandA::operand, VirtualResponseA::sc, VirtualResponseA::rslt, 2, 2},
        {&reg::virtual_b::vccap, &reg::virtual_b::vcmd, &reg::virtual_b::vcrsp,
         VirtualCommandB::operand, VirtualResponseB::sc, VirtualResponseB::rslt, 16, 16},
    };
    for (const Place &place : places)
        if (place.capability->offset == offset)
            return &place;
    return nullptr;
}

VirtualCommands::VirtualCommands(const UnitConfig &config, RegisterFile &registers)
    : registers_(registers),
      place_(config.ecap(layout::ExtendedCapability::vcs) != 0 ? place_at(config.virtual_commands)
                                                               : nullptr) {
    reset();
}

void VirtualCommands::reset() {
    used_.clear();
    freed_.clear();
    next_ = first_pasid;
    guessed_ = 0;
    if (place_ != nullptr)
        registers_.put(*place_->capability, layout::VirtualCommandCapability::pas, 1);
}

void VirtualCommands::registers_written(u32 offset, u32 size) {
    if (place_ == nullptr || !touches(offset, size, place_->command->offset))
        return;
    const u64 content = registers_.load(*place_->command);
    const u32 operand = static_cast<u32>(place_->operand.of(content) & last_pasid);
    guessed_ = 0;
    // The command's place is the one thing that has not moved.
    switch (layout::VirtualCommandA::cmd.of(content)) {
    case allocate_pasid:
        guessed_ = allocate();
        answer(guessed_ != 0 ? 0 : place_->no_pasid, guessed_);
        break;
    case free_pasid:
        answer(release(operand) ? 0 : place_->not_allocated);
        break;
    default:
        answer(undefined);
    }
}

void VirtualCommands::adopt_read(u32 offset, u32 size, u64 value) {
    if (guessed_ == 0 || offset != place_->response->offset || size != place_->response->size)
        return;
    const u64 given = place_->result.of(value);
    if (given < first_pasid || given > last_pasid || used_.contains(static_cast<u32>(given)))
        return;
    release(guessed_);
    guessed_ = static_cast<u32>(given);
    used_.insert(guessed_);
    freed_.erase(guessed_);
    answer(0, given);
}

// The lowest PASID that is free, 0 when there is none.
u32 VirtualCommands::allocate() {
    u32 found = 0;
    if (!freed_.empty()) {
        found = *freed_.begin();
        freed_.erase(freed_.begin());
    } else {
        while (next_ <= last_pasid && used_.contains(next_))
            ++next_;
        if (next_ > last_pasid)
            return 0;
        found = next_++;
    }
    used_.insert(found);
    return found;
}

bool VirtualCommands::release(u32 pasid) {
    if (used_.erase(pasid) == 0)
        return false;
    if (pasid < next_)
        freed_.insert(pasid);
    return true;
}

void VirtualCommands::answer(u64 status, u64 result) {
    registers_.poke(*place_->response,
                    place_->status.in_place(status) | place_->result.in_place(result));
}

} // namespace dmarewind
