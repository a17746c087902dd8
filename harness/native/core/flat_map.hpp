// A hash table from 64-bit keys to small values: open addressing, linear probing, no tombstones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace dmarewind {

template <class Value> class FlatMap {
  public:
    static constexpr std::uint64_t no_key = ~std::uint64_t{0}; // not usable as a key

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    Value *find(std::uint64_t key) {
        if (size_ == 0)
            return nullptr;
        for (std::size_t at = home(key);; at = (at + 1) & mask_) {
            Slot &slot = slots_[at];
            if (slot.key == key)
                return &slot.value;
            if (slot.key == no_key)
                return nullptr;
        }
    }
    const Value *find(std::uint64_t key) const { return const_cast<FlatMap *>(this)->find(key); }

    // The value of a key, made when there is none. Pointers to other values become invalid.
    Value &operator[](std::uint64_t key) {
        if (Value *found = find(key))
            return *found;
        if (slots_ == nullptr)
            resize(smallest);
        else if ((size_ + 1) * 4 > (mask_ + 1) * 3)
            resize((mask_ + 1) * 2);
        ++size_;
        Slot &slot = slots_[free_slot(key)];
        slot.key = key;
        slot.value = Value{};
        return slot.value;
    }

    // Pointers to values become invalid.
    bool erase(std::uint64_t key) {
        if (size_ == 0)
            return false;
        std::size_t hole = home(key);
        while (slots_[hole].key != key) {
            if (slots_[hole].key == no_key)
                return false;
            hole = (hole + 1) & mask_;
        }
        // Close the gap: move back whatever probing would no longer find.
        for (std::size_t at = (hole + 1) & mask_; slots_[at].key != no_key; at = (at + 1) & mask_) {
            const std::size_t wants = home(slots_[at].key);
            if (((at - wants) & mask_) >= ((at - hole) & mask_)) {
                slots_[hole] = std::move(slots_[at]);
                hole = at;
            }
        }
        slots_[hole].key = no_key;
        --size_;
        // A table that was large once should not make every later look at all of it slow.
        if (mask_ + 1 > large && size_ * 16 < mask_ + 1)
            resize((mask_ + 1) / 4);
        return true;
    }

    void clear() {
        // A table that was large once should not make every later clear slow.
        if (mask_ + 1 > large) {
            slots_.reset();
            mask_ = 0;
        } else if (size_ != 0) {
            for (std::size_t at = 0; at <= mask_; ++at)
                slots_[at].key = no_key;
        }
        size_ = 0;
    }

    template <class Function> void for_each(Function function) {
        if (size_ != 0)
            for (std::size_t at = 0; at <= mask_; ++at)
                if (slots_[at].key != no_key)
                    function(slots_[at].key, slots_[at].value);
    }

  private:
    struct Slot {
        std::uint64_t key;
        Value value;
    };

    static constexpr std::size_t smallest = 8;
    static constexpr std::size_t large = 1024;

    std::size_t home(std::uint64_t key) const {
        // Fibonacci hashing: the product's upper bits depend on every bit of the key.
        return static_cast<std::size_t>((key * 0x9e37'79b9'7f4a'7c15) >> 32) & mask_;
    }

    std::size_t free_slot(std::uint64_t key) const {
        std::size_t at = home(key);
        while (slots_[at].key != no_key)
            at = (at + 1) & mask_;
        return at;
    }

    void resize(std::size_t count) {
        const std::size_t old_count = slots_ == nullptr ? 0 : mask_ + 1;
        std::unique_ptr<Slot[]> old = std::move(slots_);
        slots_.reset(new Slot[count]);
        mask_ = count - 1;
        for (std::size_t at = 0; at < count; ++at)
            slots_[at].key = no_key;
        for (std::size_t at = 0; at < old_count; ++at)
            if (old[at].key != no_key)
                slots_[free_slot(old[at].key)] = std::move(old[at]);
    }

    std::unique_ptr<Slot[]> slots_;
    std::size_t mask_ = 0;
    std::size_t size_ = 0;
};

// Objects named by number, at places that never move, reused after release.
template <class T> class Pool {
  public:
    T &operator[](std::uint32_t number) { return chunks_[number / per_chunk][number % per_chunk]; }
    const T &operator[](std::uint32_t number) const {
        return chunks_[number / per_chunk][number % per_chunk];
    }

    std::uint32_t take() {
        if (!free_.empty()) {
            const std::uint32_t number = free_.back();
            free_.pop_back();
            return number;
        }
        if (used_ == chunks_.size() * per_chunk)
            chunks_.push_back(std::make_unique<T[]>(per_chunk));
        return used_++;
    }

    void release(std::uint32_t number) { free_.push_back(number); }

    // Take everything back; what the first objects hold stays until they are taken again.
    void clear() {
        if (chunks_.size() > 1)
            chunks_.resize(1);
        free_.clear();
        used_ = 0;
    }

  private:
    static constexpr std::uint32_t per_chunk = 256;

    std::vector<std::unique_ptr<T[]>> chunks_;
    std::vector<std::uint32_t> free_;
    std::uint32_t used_ = 0;
};

} // namespace dmarewind
