// A batch of requests for tests.
#pragma once

#include "machine.hpp"

namespace dmarewind::tests {

// Requests of one length in memory of their own, so that ASan sees an overrun by one.
struct Batch {
    explicit Batch(std::size_t count)
        : sids(count, u16{device}), pasids(count, no_pasid), iovas(count), kinds(count, 1),
          attributes(count, 0), addresses(count, 1), statuses(count, 0xff) {}

    BatchRequests requests() {
        return {iovas.size(), sids.data(),      pasids.data(),   iovas.data(),
                kinds.data(), addresses.data(), statuses.data(), attributes.data()};
    }

    std::vector<u16> sids;
    std::vector<u32> pasids;
    std::vector<u64> iovas;
    std::vector<u8> kinds;
    std::vector<u8> attributes;
    // Whether request i was answered as a single access is.
    bool agrees(std::size_t i, Unit &unit) const {
        const Request request{sids[i], pasids[i], iovas[i], AccessKind(kinds[i]), attributes[i]};
        const Outcome right = unit.access(request, {}).fresh_candidate().outcome;
        if (right.type == OutcomeType::fault)
            return statuses[i] == right.reason && addresses[i] == 0;
        // What is not translated keeps its address.
        const bool kept = right.mask > (u64{1} << 40);
        const u64 address = kept ? iovas[i] : right.address | (iovas[i] & right.mask);
        return statuses[i] == 0 && addresses[i] == address;
    }

    std::vector<u64> addresses;
    std::vector<u8> statuses;
};

} // namespace dmarewind::tests
