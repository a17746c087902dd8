// Sparse guest-physical memory in 4 KiB pages, as the unit sees it.
//
// Pages nobody ever wrote read as zero. The low part of the address space is one reserved mapping,
// so that turning an address into a pointer is one addition; everything above it, and everything
// when the reservation is refused (fuzzers, small address-space limits), lives in a hash table.
#pragma once

#include "flat_map.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

namespace dmarewind {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

inline constexpr unsigned page_shift = 12;
inline constexpr u64 page_size = u64{1} << page_shift;
inline constexpr u64 quadwords_per_page = page_size / sizeof(u64);

// The trace touches more memory than it was allowed to; the message says how to allow more.
class MemoryError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One range of the machine's RAM: [first, last].
struct Range {
    u64 first;
    u64 last;
};

class Memory {
  public:
    // Under a sanitizer a small one, so that tests reach its end.
#if defined(DMAREWIND_SANITIZED)
    static constexpr u64 default_window = u64{1} << 20;
#else
    static constexpr u64 default_window = u64{64} << 30;
#endif
    static constexpr u64 default_page_budget = u64{1} << 18;
    static constexpr u64 no_writer = 0;

    // What a walk needs, by value: in registers, where no store of the caller can alias it.
    class View {
      public:
        u64 load_quadword(u64 address) const {
            if (address < window_) [[likely]] {
                u64 value;
                std::memcpy(&value, base_ + address, sizeof value);
                return value;
            }
            return memory_->load_far(address);
        }

        // Load what a table read gets; false is a read error, outside the RAM.
        bool load(u64 address, u64 &value) const {
            if (limited_ && !memory_->readable(address, sizeof value)) [[unlikely]]
                return false;
            value = load_quadword(address);
            return true;
        }

        // Whether every read below the window may be a plain load from base.
        bool plain() const { return !limited_ && window_ != 0; }
        const std::byte *base() const { return base_; }
        u64 window() const { return window_; }

      private:
        friend class Memory;
        explicit View(const Memory &memory)
            : base_(memory.base_), window_(memory.window_), memory_(&memory),
              limited_(!memory.ram_.empty()) {}

        const std::byte *base_;
        u64 window_;
        const Memory *memory_;
        bool limited_;
    };

    // window is rounded down to a power of two.
    explicit Memory(u64 page_budget = default_page_budget, u64 window = default_window);
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    // List the RAM; without any range everything is readable.
    void set_ram(std::vector<Range> ranges);

    bool readable(u64 address, u64 size) const {
        if (ram_.empty()) [[likely]]
            return true;
        for (const Range &range : ram_)
            if (address >= range.first && address <= range.last && size - 1 <= range.last - address)
                return true;
        return false;
    }

    // The quadword at an aligned address, RAM or not; zero where nothing was stored.
    u64 load_quadword(u64 address) const {
        return view().load_quadword(address);
    }

    // A page's bytes, or nullptr when it lies outside the window and was never written.
    const std::byte *page(u64 address) const {
        const u64 start = address & ~(page_size - 1);
        return start < window_ ? base_ + start : find_far(start);
    }

    void read(u64 address, std::span<std::byte> out) const;

    // Write bytes; writer is remembered for the quadwords touched unless it is no_writer.
    // MemoryError when this would exceed the page budget.
    void write(u64 address, std::span<const std::byte> data, u64 writer = no_writer);

    // Store 1, 2, 4 or 8 little-endian bytes.
    void store(u64 address, unsigned size, u64 value, u64 writer = no_writer) {
        write(address, std::as_bytes(std::span(&value, 1)).first(size), writer);
    }

    // The number given with the last write that touched a quadword, or no_writer.
    u64 writer(u64 address) const;

    View view() const {
        return View(*this);
    }

    u64 pages() const {
        return pages_;
    }
    u64 window() const {
        return window_;
    }

    // Forget all content; the RAM ranges stay.
    void clear();

    // Remember the content as it is, for rollback.
    void checkpoint();
    // Return to the content, writers and pages that checkpoint found; cheap after few writes.
    void rollback();

  private:
    struct FarPage {
        std::byte data[page_size];
        u64 writers[quadwords_per_page];
    };
    // What a quadword was before it was written; its page is there as long as the journal.
    struct Undo {
        std::byte *place;
        u64 *writer_place;
        u64 content;
        u64 writer;
    };

    u64 load_far(u64 address) const;
    const std::byte *find_far(u64 start) const;
    std::byte *writable(u64 address);
    u64 *writers_of(u64 address);
    void charge();
    void note(u64 address, u64 size, std::byte *page, u64 *writers);
    void forget(u64 start);
    void reserve(u64 window);
    void unmap();

    std::byte *base_ = nullptr;
    u64 *writers_ = nullptr; // one number per quadword of the window
    u64 *present_ = nullptr; // one bit per page of the window
    u64 window_ = 0;
    u64 pages_ = 0;
    u64 page_budget_;
    std::vector<Range> ram_;
    std::vector<u64> near_pages_; // the pages of the window that were written, for clear()
    FlatMap<std::unique_ptr<FarPage>> far_;
    bool journalled_ = false; // from checkpoint on
    std::vector<Undo> undo_;
    std::vector<u64> added_; // pages that were not there at the checkpoint
    std::vector<std::unique_ptr<FarPage>> spare_;
};

} // namespace dmarewind
