// Domains of a virtio-iommu: what an endpoint's addresses mean while it is attached.
#pragma once

#include "memory.hpp"

#include <map>
#include <set>

namespace dmarewind::virtio {

inline constexpr u64 top = ~u64{0};

// The addresses from start to end, which is included; event is the one that made it.
struct Mapping {
    u64 start = 0;
    u64 end = 0;
    u64 physical = 0;
    u32 flags = 0;
    u64 event = 0;

    bool holds(u64 iova) const { return start <= iova && iova <= end; }
    bool operator==(const Mapping &) const = default;

    // Where an address leads.
    u64 address(u64 iova) const { return iova - start + physical; }
    // The mask of the largest aligned block around an address that maps as one.
    u64 block(u64 iova) const;
};

class Domain {
  public:
    using Mappings = std::map<u64, Mapping>;

    // Mappings in a row; none may be added or removed meanwhile.
    class Row {
      public:
        Row(Mappings::const_iterator first, Mappings::const_iterator last)
            : first_(first), last_(last) {}
        Mappings::const_iterator begin() const { return first_; }
        Mappings::const_iterator end() const { return last_; }

      private:
        Mappings::const_iterator first_, last_;
    };

    explicit Domain(bool bypassing) : bypass(bypassing) {}

    const bool bypass;
    std::set<u32> endpoints;
    std::set<u64> doubtful; // starts of mappings that a refused UNMAP may have removed

    const Mappings &mappings() const { return mappings_; }

    // The mapping of an address, or null.
    const Mapping *at(u64 address) const;
    // The mappings that share an address with a range, in order.
    Row overlapping(u64 start, u64 end) const;
    // Whether a range shares an address with a mapping. One that ends before its start does when a
    // mapping holds both.
    bool overlaps(u64 start, u64 end) const;
    bool is_doubtful(const Mapping &mapping) const { return doubtful.contains(mapping.start); }
    // Remember that the mappings inside a range may be gone.
    void doubt(u64 start, u64 end);

    // Add a mapping that overlaps none.
    void add(const Mapping &mapping) { mappings_.emplace(mapping.start, mapping); }
    void remove(u64 start) {
        mappings_.erase(start);
        doubtful.erase(start);
    }

  private:
    Mappings mappings_;
};

} // namespace dmarewind::virtio
