// Translations that devices keep themselves (ATS), and what makes them forget (VT-d 4.2, 6.5.2).
#pragma once

#include "observation.hpp"

#include <map>
#include <optional>
#include <set>

namespace dmarewind {

// A translation that a device asked for, with what was read to answer it.
struct HeldTranslation {
    Request request;
    u32 shift;  // of its page's size
    u64 output; // number of the page it leads to
    std::vector<Step> steps;
    u64 filled_by;
};

// A translation that a device was told to forget. It answers that it has when software next waits;
// moment is the number of waits before that.
struct GoneTranslation {
    HeldTranslation held;
    u64 dropped_by;
    u64 moment;
};

// The message that a descriptor of type 3, or of type 8, makes the unit send.
Observation device_tlb_invalidation(const u64 *words);
Observation pasid_device_tlb_invalidation(const u64 *words);

// Holds what devices may use still, and judges requests that they say are translated.
class DeviceTlbs {
  public:
    DeviceTlbs(const UnitConfig &config, Translator &translator, Observations &emitted)
        : config_(config), translator_(translator), emitted_(emitted) {}

    // Forget everything: devices are reset, too.
    void reset();
    bool empty() const { return devices_.empty() && gone_.empty() && waits_ == 0; }
    // Be as new.
    void restart() {
        reset();
        looked_at_ = waits_ = 0;
    }

    // Keep the answer to a translation request; source is what it came from.
    void keep(const Request &request, const Outcome &answer, const Candidate &source, u64 event);

    // Send a device an invalidation.
    void invalidate(const Observation &message, u64 event);
    // Devices have done what they were told: software waited for it.
    void waited() { ++waits_; }
    // Drop what a message covers.
    void drop(const Observation &message, u64 event);

    // What is wrong with a translated request that was let through, nothing when nothing is. Its
    // address is where a translation has led. One that a device holds has to lead there still;
    // where it holds none, it must not have been told to forget one. The permitted set that the
    // translator gave last is gone afterwards.
    std::optional<Finding> judge(const Request &request, const Outcome &recorded, u64 event);

    // Keys that invalidations have looked at so far.
    u64 looked_at() const { return looked_at_; }

  private:
    struct PageKey {
        Number pasid; // or -1
        u32 shift;
        u64 number;
        auto operator<=>(const PageKey &) const = default;
    };
    using OutputKey = std::pair<u32, u64>; // page shift, page number
    struct Device {
        std::map<PageKey, std::vector<u64>> pages; // serial numbers, the oldest first
        std::map<OutputKey, std::set<u64>> outputs;
        std::set<u32> shifts;
    };
    struct Answer {
        Outcome outcome;
        std::vector<Step> steps;
        Number domain;
    };

    static PageKey page_of(const HeldTranslation &held);
    HeldTranslation remove(Device &device, u64 serial);
    std::vector<PageKey> covered(const Device &device, const Observation &message);
    void forget(HeldTranslation held, u64 event);
    const GoneTranslation *newest_gone(const Request &request) const;
    Answer now(const HeldTranslation &held, u64 address);

    const UnitConfig &config_;
    Translator &translator_;
    Observations &emitted_;
    std::map<u32, Device> devices_;
    std::map<u64, HeldTranslation> held_; // by serial number
    std::map<std::pair<u32, OutputKey>, std::vector<GoneTranslation>> gone_;
    u64 serial_ = 0;
    u64 waits_ = 0;
    u64 looked_at_ = 0;
};

} // namespace dmarewind
