// The register page: bytes with write masks, as the register table describes them.
#pragma once

#include "config.hpp"

#include <span>
#include <vector>

namespace dmarewind {

using layout::Register;

class RegisterFile {
  public:
    // CAP.FRO and ECAP.IRO reach 16 KiB, 256 fault records need 4 KiB more.
    static constexpr u32 page_bytes = 0x6000;

    explicit RegisterFile(const UnitConfig &config);

    // Give every register its value after reset.
    void reset();

    // Remember the values as they are, for rewind.
    void mark() { marked_ = bytes_; }
    void rewind() { std::memcpy(bytes_.data(), marked_.data(), extent_); }

    // Apply a software write; whether it was one the page takes (4 or 8 bytes, aligned).
    bool write(u32 offset, u32 size, u64 value);

    // What software reads; all ones where there is nothing to read.
    u64 read(u32 offset, u32 size) const;

    // A whole register as the unit sees it; at is for those that CAP or ECAP place.
    u64 load(const Register &reg, u32 at) const;
    u64 load(const Register &reg) const { return load(reg, reg.offset); }
    void poke(const Register &reg, u64 value, u32 at);
    void poke(const Register &reg, u64 value) { poke(reg, value, reg.offset); }

    u64 field(const Register &reg, layout::Field field) const { return field.of(load(reg)); }
    void put(const Register &reg, layout::Field field, u64 value) {
        poke(reg, (load(reg) & ~field.mask()) | field.in_place(value));
    }

    // Where CAP and ECAP place the others.
    u32 iva() const { return iro_; }
    u32 iotlb() const { return iro_ + layout::reg::iotlb.offset; }
    u32 fault_record(u64 index) const { return fro_ + static_cast<u32>(16 * index); }
    u32 fault_records() const { return fault_records_; }

  private:
    template <class Function> void each(Function function) const;
    static bool takes(u32 offset, u32 size) {
        return (size == 4 || size == 8) && offset % 4 == 0 && offset <= page_bytes - size;
    }
    static void put(std::vector<u8> &bytes, u32 offset, u32 size, u64 value) {
        std::memcpy(bytes.data() + offset, &value, size);
    }
    static u64 get(const std::vector<u8> &bytes, u32 offset, u32 size) {
        u64 value = 0;
        std::memcpy(&value, bytes.data() + offset, size);
        return value;
    }

    std::span<const Register *const> virtual_; // of virtual commands
    u64 version_;
    u64 capability_;
    u64 extended_capability_;
    u32 iro_;
    u32 fro_;
    u32 fault_records_;
    // A register's value after reset.
    struct Start {
        u32 offset;
        u32 size;
        u64 value;
    };

    std::vector<u8> bytes_;
    std::vector<u8> marked_;
    u32 extent_; // where the last register ends
    std::vector<u8> writable_;
    std::vector<u8> clear_;
    std::vector<u8> hidden_;
    std::vector<Start> start_; // in the order in which they are put
};

// Whether a write of size bytes at offset reaches [at, at + length).
constexpr bool touches(u32 offset, u32 size, u32 at, u32 length = 4) {
    return offset < at + length && at < offset + size;
}

} // namespace dmarewind
