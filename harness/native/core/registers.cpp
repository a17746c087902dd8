#include "registers.hpp"

#include "defects.hpp"

namespace dmarewind {

namespace reg = layout::reg;

namespace {

constexpr const Register *virtual_registers_a[] = {&reg::virtual_a::vccap, &reg::virtual_a::vcmd,
                                                   &reg::virtual_a::vcrsp};
constexpr const Register *virtual_registers_b[] = {&reg::virtual_b::vcmd,
                                                   &reg::virtual_b::vcmd_operand,
                                                   &reg::virtual_b::vcrsp, &reg::virtual_b::vccap};

// The virtual command registers of a unit, which are where VCCAP is.
std::span<const Register *const> virtual_registers(const UnitConfig &config) {
    if (config.ecap(layout::ExtendedCapability::vcs) == 0)
        return {};
    if (config.virtual_commands == reg::virtual_a::vccap.offset)
        return virtual_registers_a;
    if (config.virtual_commands == reg::virtual_b::vccap.offset)
        return virtual_registers_b;
    return {};
}

} // namespace

RegisterFile::RegisterFile(const UnitConfig &config)
    : virtual_(virtual_registers(config)), version_(config.version), capability_(config.capability),
      extended_capability_(config.extended_capability),
      iro_(static_cast<u32>(config.ecap(layout::ExtendedCapability::iro) * 16)),
      fro_(static_cast<u32>(config.cap(layout::Capability::fro) * 16)),
      fault_records_(static_cast<u32>(config.cap(layout::Capability::nfr)) + 1), bytes_(page_bytes),
      writable_(page_bytes), clear_(page_bytes), hidden_(page_bytes) {
    const bool upper = config.dialect.upper_event_addresses;
    each([&](const Register &which, u32 at) {
        if (!upper && (at == reg::feuaddr.offset || at == reg::ieuaddr.offset))
            return;
        put(writable_, at, which.size, which.writable);
        put(clear_, at, which.size, which.w1c);
        put(hidden_, at, which.size, which.write_only);
        u64 value = which.reset;
        if (at == reg::ver.offset)
            value = version_;
        else if (at == reg::cap.offset)
            value = capability_;
        else if (at == reg::ecap.offset)
            value = extended_capability_;
        start_.push_back({at, which.size, value});
    });
    extent_ = std::max(fro_ + 16 * fault_records_, iro_ + 16);
    for (const Start &one : start_)
        extent_ = std::max(extent_, one.offset + one.size);
    reset();
}

// Call function with every register and its offset; where two collide the fixed one wins.
template <class Function> void RegisterFile::each(Function function) const {
    const auto placed = [&](const Register &which, u32 at) {
        for (const Register &fixed : layout::registers)
            if (fixed.offset == at && fixed.present(capability_, extended_capability_))
                return;
        for (const Register *fixed : virtual_)
            if (fixed->offset == at)
                return;
        function(which, at);
    };
    placed(reg::iva, iva());
    placed(reg::iotlb, iotlb());
    for (u32 index = 0; index < fault_records_; ++index) {
        placed(reg::frcd_low, fault_record(index));
        placed(reg::frcd_high, fault_record(index) + reg::frcd_high.offset);
    }
    for (const Register *which : virtual_)
        function(*which, which->offset);
    for (const Register &which : layout::registers)
        if (which.present(capability_, extended_capability_))
            function(which, which.offset);
}

void RegisterFile::reset() {
    // Elsewhere only registers are ever written; those that CAP and ECAP place may lie across
    // others.
    std::fill_n(bytes_.begin() + fro_, 16 * fault_records_, u8{0});
    std::fill_n(bytes_.begin() + iro_, 16, u8{0});
    for (const Start &one : start_)
        put(bytes_, one.offset, one.size, one.value);
}

bool RegisterFile::write(u32 offset, u32 size, u64 value) {
    if (!takes(offset, size))
        return false;
    const u64 writable = get(writable_, offset, size);
    const u64 cleared = value & get(clear_, offset, size);
    const u64 kept = get(bytes_, offset, size) & ~writable & ~cleared;
    put(bytes_, offset, size, kept | (value & writable));
    return true;
}

u64 RegisterFile::read(u32 offset, u32 size) const {
    if (!takes(offset, size))
        return size >= 8 ? ~u64{0} : (u64{1} << (8 * size)) - 1;
    u64 hidden = get(hidden_, offset, size);
    if (defect(Defect::queue_width_reads_zero) && offset == reg::iqa.offset)
        hidden |= layout::InvalidationQueueAddress::dw.mask();
    if (defect(Defect::root_mode_reads_zero) && offset == reg::rtaddr.offset)
        hidden |= layout::RootTableAddress::ttm.mask();
    return get(bytes_, offset, size) & ~hidden;
}

u64 RegisterFile::load(const Register &which, u32 at) const {
    return get(bytes_, at, which.size);
}

void RegisterFile::poke(const Register &which, u64 value, u32 at) {
    put(bytes_, at, which.size, value);
}

} // namespace dmarewind
