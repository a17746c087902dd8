// Drives a virtio-iommu with a trace: judges requests, accesses and fault reports.
#pragma once

#include "replay_base.hpp"
#include "virtio_unit.hpp"

namespace dmarewind::virtio {

// As harness.targets.virtio_model.VirtioModelReplay; events of other units are passed over.
class Replay : public ReplayBase {
  public:
    Replay(Config config, std::size_t findings_kept, std::size_t bytes_kept)
        : ReplayBase(findings_kept, bytes_kept), unit_(std::move(config)) {}

    // Apply the events of one block's raw content; damage ends it after the events before. stop is
    // asked now and then whether to give up, which it does by throwing.
    std::optional<Damage> feed(std::span<const std::byte> raw, const std::function<void()> &stop);
    // Apply one event; its number is the count of those before it.
    void apply(const Event &event);

    Unit &unit() { return unit_; }

  private:
    void access(const Event &event);
    void request(const Event &event);
    void register_read(const Event &event);
    void observe(const Event &event);
    void forget_expected();

    Unit unit_;
    // Of the access before: its answer is unknown or of its own.
    bool any_report_ = false;
};

} // namespace dmarewind::virtio
