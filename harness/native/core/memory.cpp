#include "memory.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include <sys/mman.h>

namespace dmarewind {
namespace {

// Above this many pages giving the mapping back is cheaper than zeroing page by page.
constexpr std::size_t zero_by_hand = 4096;

template <class T> T *reserve_mapping(u64 bytes) {
    void *mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return nullptr;
    // Tables are scattered single pages: huge pages would multiply what they cost by 512.
    madvise(mapping, bytes, MADV_NOHUGEPAGE);
    return static_cast<T *>(mapping);
}

constexpr u64 writers_bytes(u64 window) {
    return window / sizeof(u64) * sizeof(u64);
}

constexpr u64 present_bytes(u64 window) {
    return window / page_size / 8 + sizeof(u64);
}

// What is mapped of the window: a page more, which nothing may touch.
constexpr u64 guarded_bytes(u64 window) {
    return window + page_size;
}

constexpr u64 page_of(u64 address) {
    return address & ~(page_size - 1);
}

constexpr u64 offset_of(u64 address) {
    return address & (page_size - 1);
}

} // namespace

Memory::Memory(u64 page_budget, u64 window) : page_budget_(page_budget) {
    // When fuzzing, every access outside a page we own must be visible: no window.
#if !defined(DMAREWIND_NO_WINDOW)
    reserve(page_of(std::bit_floor(window)));
#else
    static_cast<void>(window);
#endif
}

void Memory::reserve(u64 window) {
    if (window == 0)
        return;
    window_ = window;
    base_ = reserve_mapping<std::byte>(guarded_bytes(window));
    writers_ = reserve_mapping<u64>(writers_bytes(window));
    present_ = reserve_mapping<u64>(present_bytes(window));
    if (base_ == nullptr || writers_ == nullptr || present_ == nullptr ||
        mprotect(base_ + window, page_size, PROT_NONE) != 0)
        unmap();
}

void Memory::unmap() {
    if (base_ != nullptr)
        munmap(base_, guarded_bytes(window_));
    if (writers_ != nullptr)
        munmap(writers_, writers_bytes(window_));
    if (present_ != nullptr)
        munmap(present_, present_bytes(window_));
    base_ = nullptr;
    writers_ = nullptr;
    present_ = nullptr;
    window_ = 0;
}

Memory::~Memory() {
    unmap();
}

void Memory::set_ram(std::vector<Range> ranges) {
    ram_ = std::move(ranges);
}

void Memory::charge() {
    if (pages_ == page_budget_)
        throw MemoryError("the trace touches more than " + std::to_string(page_budget_) +
                          " pages of guest memory; raise --page-budget if it is yours");
    ++pages_;
}

const std::byte *Memory::find_far(u64 start) const {
    const std::unique_ptr<FarPage> *found = far_.find(start);
    return found == nullptr ? nullptr : (*found)->data;
}

u64 Memory::load_far(u64 address) const {
    const std::byte *data = find_far(page_of(address));
    if (data == nullptr)
        return 0;
    u64 value;
    std::memcpy(&value, data + offset_of(address), sizeof value);
    return value;
}

std::byte *Memory::writable(u64 address) {
    const u64 start = page_of(address);
    if (start < window_) {
        const u64 page = start >> page_shift;
        u64 &word = present_[page / 64];
        const u64 bit = u64{1} << (page % 64);
        if ((word & bit) == 0) {
            charge();
            if (journalled_)
                added_.push_back(start);
            near_pages_.push_back(start);
            word |= bit;
        }
        return base_ + start;
    }
    if (const std::unique_ptr<FarPage> *found = far_.find(start))
        return (*found)->data;
    charge();
    std::unique_ptr<FarPage> fresh;
    if (journalled_)
        added_.push_back(start);
    if (spare_.empty()) {
        fresh = std::make_unique<FarPage>();
    } else {
        fresh = std::move(spare_.back());
        spare_.pop_back();
        *fresh = FarPage{};
    }
    std::unique_ptr<FarPage> &place = far_[start];
    place = std::move(fresh);
    return place->data;
}

u64 *Memory::writers_of(u64 address) {
    const u64 start = page_of(address);
    if (start < window_)
        return writers_ + start / sizeof(u64);
    return (*far_.find(start))->writers;
}

u64 Memory::writer(u64 address) const {
    if (address < window_)
        return writers_[address / sizeof(u64)];
    const std::unique_ptr<FarPage> *found = far_.find(page_of(address));
    if (found == nullptr)
        return no_writer;
    return (*found)->writers[offset_of(address) / sizeof(u64)];
}

void Memory::read(u64 address, std::span<std::byte> out) const {
    while (!out.empty()) {
        const u64 offset = offset_of(address);
        const std::size_t chunk = std::min<std::size_t>(out.size(), page_size - offset);
        const std::byte *data = page(address);
        if (data == nullptr)
            std::memset(out.data(), 0, chunk);
        else
            std::memcpy(out.data(), data + offset, chunk);
        out = out.subspan(chunk);
        address += chunk;
    }
}

void Memory::write(u64 address, std::span<const std::byte> data, u64 writer) {
    while (!data.empty()) {
        const u64 offset = offset_of(address);
        const std::size_t chunk = std::min<std::size_t>(data.size(), page_size - offset);
        std::byte *page = writable(address);
        u64 *writers = journalled_ || writer != no_writer ? writers_of(address) : nullptr;
        if (journalled_) [[unlikely]]
            note(address, chunk, page, writers);
        std::memcpy(page + offset, data.data(), chunk);
        if (writer != no_writer) {
            std::fill(writers + offset / sizeof(u64),
                      writers + (offset + chunk - 1) / sizeof(u64) + 1, writer);
        }
        data = data.subspan(chunk);
        address += chunk;
    }
}

void Memory::clear() {
    if (near_pages_.size() > zero_by_hand) {
        madvise(base_, window_, MADV_DONTNEED);
        madvise(writers_, writers_bytes(window_), MADV_DONTNEED);
        madvise(present_, present_bytes(window_), MADV_DONTNEED);
    } else {
        for (const u64 start : near_pages_) {
            std::memset(base_ + start, 0, page_size);
            std::fill_n(writers_ + start / sizeof(u64), quadwords_per_page, no_writer);
            present_[(start >> page_shift) / 64] = 0;
        }
    }
    near_pages_.clear();
    far_.for_each([](u64, std::unique_ptr<FarPage> &page) { page.reset(); });
    far_.clear();
    pages_ = 0;
    undo_.clear();
    added_.clear();
}

void Memory::checkpoint() {
    journalled_ = true;
    undo_.clear();
    added_.clear();
}

// Remember the quadwords that a write reaches, which does not cross a page.
void Memory::note(u64 address, u64 size, std::byte *page, u64 *writers) {
    // A page that came after the checkpoint goes as a whole; of many only the last are looked at.
    const auto looked_at = static_cast<std::ptrdiff_t>(std::min<std::size_t>(added_.size(), 16));
    if (std::find(added_.end() - looked_at, added_.end(), page_of(address)) != added_.end())
        return;
    const u64 first = offset_of(address) / sizeof(u64);
    const u64 last = (offset_of(address) + size - 1) / sizeof(u64);
    const std::size_t noted = undo_.size();
    undo_.resize(noted + last - first + 1);
    Undo *next = undo_.data() + noted;
    for (u64 at = first; at <= last; ++at) {
        Undo &entry = *next++;
        entry.place = page + at * sizeof(u64);
        entry.writer_place = writers + at;
        std::memcpy(&entry.content, entry.place, sizeof entry.content);
        entry.writer = writers[at];
    }
}

void Memory::rollback() {
    for (auto entry = undo_.rbegin(); entry != undo_.rend(); ++entry) {
        std::memcpy(entry->place, &entry->content, sizeof entry->content);
        *entry->writer_place = entry->writer;
    }
    undo_.clear();
    for (const u64 start : added_)
        forget(start);
    added_.clear();
}

// Make a page one that was never written.
void Memory::forget(u64 start) {
    --pages_;
    if (start < window_) {
        std::memset(base_ + start, 0, page_size);
        std::fill_n(writers_ + start / sizeof(u64), quadwords_per_page, no_writer);
        present_[(start >> page_shift) / 64] &= ~(u64{1} << (start >> page_shift) % 64);
        std::erase(near_pages_, start);
        return;
    }
    spare_.push_back(std::move(*far_.find(start)));
    far_.erase(start);
}

} // namespace dmarewind
