// The generated places of virtio-iommu's fields read and write numbers of whole bytes.
#include "check.hpp"
#include "layout.hpp"

#include <array>

namespace viommu = dmarewind::layout::virtio_iommu;
using dmarewind::tests::Test;

namespace {

void fields_are_read_and_written() {
    std::array<std::uint8_t, viommu::Map::size> request{};
    viommu::Map::type.put(request.data(), std::uint64_t(viommu::RequestType::map));
    viommu::Map::virt_end.put(request.data(), 0xFFEE'DDCC'BBAA'9988);
    viommu::Map::flags.put(request.data(), viommu::MapFlag::all);
    EXPECT(request[0] == 3);
    EXPECT(request[16] == 0x88 && request[23] == 0xFF);
    EXPECT(request[32] == 7 && request[33] == 0);
    EXPECT(viommu::Map::virt_end.get(request.data()) == 0xFFEE'DDCC'BBAA'9988);
    EXPECT(viommu::Map::virt_start.get(request.data()) == 0);
    EXPECT(viommu::Map::phys_start.get(request.data()) == 0);
}
const Test fields("virtio_layout: fields are read and written", fields_are_read_and_written);

void reserved_bytes_are_zero_or_not() {
    std::array<std::uint8_t, viommu::Probe::size> request{};
    viommu::Probe::endpoint.put(request.data(), 0xFFFF'FFFF);
    EXPECT(viommu::Probe::reserved.is_zero(request.data()));
    request.back() = 1;
    EXPECT(!viommu::Probe::reserved.is_zero(request.data()));
    EXPECT(viommu::Probe::reserved_head.is_zero(request.data()));
}
const Test reserved("virtio_layout: reserved bytes are zero or not",
                    reserved_bytes_are_zero_or_not);

} // namespace
