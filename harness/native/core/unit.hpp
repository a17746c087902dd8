// One VT-d remapping unit: registers, queue, caches, faults and the requests it answers.
#pragma once

#include "batch.hpp"
#include "oracle.hpp"
#include "queue.hpp"
#include "virtual_commands.hpp"

#include <unordered_set>

namespace dmarewind {

class Unit {
  public:
    explicit Unit(UnitConfig config);
    Unit(const Unit &) = delete;
    Unit &operator=(const Unit &) = delete;

    // The number the next findings are reported under.
    u64 event = 0;

    // Return to power-on state; guest memory survives.
    void reset();

    // Whether registers and memory are all that what was done has changed.
    bool plain() const;
    // Remember the registers of a unit that is plain, for rewind; guest memory is its own affair.
    void mark();
    void rewind();

    // Guest memory as the unit sees it.
    void load(u64 address, std::span<std::byte> out) const { memory_.read(address, out); }
    // Store 1, 2, 4 or 8 little-endian bytes, as software does.
    void store(u64 address, unsigned size, u64 value);
    // Learn the content of a page; what data lacks of it is zero.
    void snapshot(u64 address, std::span<const std::byte> data);

    u64 read_register(u32 offset, u32 size) const { return registers_.read(offset, size); }
    // The bits of a register read whose content the dialect leaves open.
    u64 undefined(u32 offset, u32 size) const { return faults_.undefined(offset, size); }
    // Apply a software write to the register page and what it sets off.
    void write_register(u32 offset, u32 size, u64 value);

    // Answer a DMA request; with a recorded outcome, judge it and take it over. The result stays
    // valid until the next access. Findings are what this access and stores before it gave.
    const Permitted &access(const Request &request, const Outcome &recorded);

    // Answer an interrupt request; with a recorded outcome, judge it and take it over.
    RemappingResult interrupt(const InterruptMessage &request, const Outcome &recorded);

    // Queue what a device asks for, or refuse it.
    void page_request(const PageRequest &request) { page_requests_.request(request, event); }

    // Take over what a recorded register read shows of a choice that the unit was free in.
    void adopt_read(u32 offset, u32 size, u64 value) {
        virtual_commands_.adopt_read(offset, size, value);
    }

    // Translate many requests at once, walking from the root (cold) or with the finite cache.
    void translate(const BatchRequests &requests, bool cold);

    // Take over something the recorded unit did and this one did not.
    void adopt(const Observation &seen);

    // What the unit did and found since the caller last cleared these.
    Observations emitted;
    std::vector<Finding> findings;

    const UnitConfig &config() const { return config_; }
    const Memory &memory() const { return memory_; }
    Memory &memory() { return memory_; }
    const InvalidationQueue &queue() const { return queue_; }
    BatchTranslator &batch() { return batch_; }
    const FastTlb &fast_tlb() { return translator_.caches().fast; }

  private:
    void command();
    void context_command();
    void iotlb_command();
    u64 page_command(u32 domain);
    void check_reuse(u64 page, u64 address);
    bool linked(const CachedStructure &way) const;

    UnitConfig config_;
    Memory memory_;
    RegisterFile registers_;
    Translator translator_;
    Remapper remapper_;
    FaultRecorder faults_;
    DeviceTlbs device_tlbs_;
    PageRequestQueue page_requests_;
    InvalidationQueue queue_;
    VirtualCommands virtual_commands_;
    BatchTranslator batch_;
    // Packed tags, newest first, to tell a unit that still uses one its source has left; 0 is none.
    static constexpr std::size_t tags_kept = 4;
    static constexpr std::size_t sources_limit = std::size_t{1} << 16;
    using SourceTags = std::array<u64, tags_kept>;
    SourceTags tags_of(const Request &request, const PagingRoot *root);
    void collect_forgotten(const SourceTags &tags, const PagingRoot *root, u64 iova);

    FlatMap<SourceTags> tags_; // by source id and PASID
    Permitted kept_;           // what a translated request was answered from
    std::unordered_set<u64> reused_;
    std::vector<Dropped> dropped_;                                        // scratch
    std::vector<std::pair<CacheTag, const CachedStructure *>> tables_at_; // scratch
};

} // namespace dmarewind
