#include "acpi/resolve.hpp"
#include "check.hpp"

#include <cstring>
#include <memory>

using namespace dmarewind::acpi;
using dmarewind::tests::Test;
namespace layout = dmarewind::acpi::layout;

namespace {

// Builds a structure field by field.
class Part {
  public:
    explicit Part(const Structure &form) : bytes_(form.size) {}

    Part &set(const Field &field, u64 value) {
        for (u32 i = 0; i < field.size && i < sizeof value; ++i)
            bytes_[field.offset + i] = static_cast<char>(value >> (8 * i));
        return *this;
    }
    Part &set(const Field &field, std::string_view text) {
        text.copy(&bytes_[field.offset], field.size);
        return *this;
    }
    operator std::string() const { return {bytes_.begin(), bytes_.end()}; }

  private:
    std::vector<char> bytes_;
};

std::string table(std::string_view signature, const std::string &body) {
    using layout::Header;
    const std::string head = Part(Header::self)
                                 .set(Header::signature, signature)
                                 .set(Header::length, Header::self.size + body.size());
    return head + body;
}

std::string viot(u64 count, const std::string &nodes) {
    using layout::Viot;
    return table(
        "VIOT",
        std::string(Part(Viot::self).set(Viot::node_count, count).set(Viot::node_offset, 48)) +
            nodes);
}

std::string iort(u64 count, const std::string &nodes) {
    using layout::Iort;
    return table(
        "IORT",
        std::string(Part(Iort::self).set(Iort::node_count, count).set(Iort::node_offset, 48)) +
            nodes);
}

std::string pci_range(u64 output) {
    using layout::PciRange;
    return Part(PciRange::self)
        .set(PciRange::type, 1)
        .set(PciRange::length, PciRange::self.size)
        .set(PciRange::bdf_end, 0xffff)
        .set(PciRange::output_node, output);
}

std::string virtio_pci() {
    using layout::VirtioPciIommu;
    return Part(VirtioPciIommu::self)
        .set(VirtioPciIommu::type, 3)
        .set(VirtioPciIommu::length, VirtioPciIommu::self.size)
        .set(VirtioPciIommu::bdf, 8);
}

// A root complex of segment 0 with one mapping of all ids.
std::string root_complex(u64 reference, u64 count = 1) {
    using layout::IdMapping;
    using layout::RootComplex;
    const u32 size = RootComplex::self.size;
    const std::string body = Part(RootComplex::self)
                                 .set(RootComplex::type, 2)
                                 .set(RootComplex::length, size + IdMapping::self.size)
                                 .set(RootComplex::mapping_count, count)
                                 .set(RootComplex::mapping_offset, size);
    return body + std::string(Part(IdMapping::self)
                                  .set(IdMapping::id_count, 0xffff)
                                  .set(IdMapping::output_base, 0x100)
                                  .set(IdMapping::output_reference, reference));
}

std::string smmu_v3() {
    using layout::SmmuV3;
    return Part(SmmuV3::self)
        .set(SmmuV3::type, 4)
        .set(SmmuV3::length, SmmuV3::self.size)
        .set(SmmuV3::base_address, 0x9050000);
}

std::string dmar() {
    using layout::DeviceScope;
    using layout::Drhd;
    using layout::PathStep;
    const std::string scope =
        Part(DeviceScope::self).set(DeviceScope::entry_type, 2).set(DeviceScope::length, 8);
    const std::string step = Part(PathStep::self).set(PathStep::device, 2);
    const std::string unit =
        Part(Drhd::self).set(Drhd::length, Drhd::self.size + 8).set(Drhd::address, 0xfed90000);
    const std::string other = Part(Drhd::self)
                                  .set(Drhd::length, Drhd::self.size)
                                  .set(Drhd::flags, Drhd::flags_include_pci_all)
                                  .set(Drhd::address, 0xfed91000);
    const std::string fixed = Part(layout::Dmar::self).set(layout::Dmar::width, 38);
    return table("DMAR", fixed + unit + scope + step + other);
}

std::string ivrs() {
    using layout::HidEntry;
    using layout::Ivhd10;
    const std::string entry = Part(HidEntry::self)
                                  .set(HidEntry::type, 0xf0)
                                  .set(HidEntry::device_id, 0x20)
                                  .set(HidEntry::acpi_hid, "AMDI0020")
                                  .set(HidEntry::uid_length, 1);
    const std::string block = Part(Ivhd10::self)
                                  .set(Ivhd10::type, 0x10)
                                  .set(Ivhd10::length, Ivhd10::self.size + entry.size() + 1)
                                  .set(Ivhd10::device_id, 2);
    return table("IVRS", std::string(layout::Ivrs::self.size, '\0') + block + entry + "7");
}

std::vector<std::string> samples() {
    return {viot(2, virtio_pci() + pci_range(48)), iort(2, smmu_v3() + root_complex(48)), dmar(),
            ivrs(), table("VIOT", std::string(12, '\0') + iort(2, smmu_v3() + root_complex(48)))};
}

const std::vector<Bridge> bridges = {{{0, 0x10}, 1, BridgeKind::express},
                                     {{0, 0x100}, 2, BridgeKind::to_conventional}};
const Topology topology(bridges);

std::vector<Question> questions() {
    std::vector<Device> devices;
    for (const u16 bdf : {u16{0x10}, u16{0x20}, u16{0x108}, u16{0x218}})
        devices.push_back({.kind = DeviceKind::pci, .function = {0, bdf}, .number = {}});
    devices.push_back({.kind = DeviceKind::mmio, .address = 0xa000, .number = {}});
    devices.push_back({.kind = DeviceKind::named, .name = "AMDI0020", .uid = "7", .number = {}});
    std::vector<Question> all;
    for (const Device &device : devices)
        for (const Topology *known : {&topology, static_cast<const Topology *>(nullptr)})
            all.emplace_back(device, known);
    return all;
}

// A table with its bytes on the heap, in a block of exactly their size: ASan sees an overrun by
// one byte.
struct Read {
    explicit Read(std::string_view text) : bytes(new std::byte[text.size()]) {
        std::memcpy(bytes.get(), text.data(), text.size());
        read = read_table({bytes.get(), text.size()});
    }

    std::unique_ptr<std::byte[]> bytes;
    Table read;
};

Answer ask(const std::string &data, u16 bdf, const Topology *known = nullptr) {
    const Read read(data);
    return resolve(read.read,
                   Question({.kind = DeviceKind::pci, .function = {0, bdf}, .number = {}}, known));
}

bool is_refused(const std::string &data, std::string_view path, std::size_t offset) {
    const Read read(data);
    const std::optional<Problem> &problem = read.read.problem;
    if (problem.has_value() && problem->path == path && problem->offset == offset)
        return true;
    std::printf("  %s at %zu\n", problem ? problem->path.c_str() : "accepted",
                problem ? problem->offset : 0);
    return false;
}

void every_kind() {
    const auto tables = samples();
    const Answer viot_answer = ask(tables[0], 0x20);
    EXPECT(viot_answer.behind && viot_answer.behind->iommu.kind == IommuKind::virtio_pci);
    EXPECT(viot_answer.behind && viot_answer.behind->path == "viot.node[1]");
    EXPECT(ask(tables[0], 8).nowhere.why == Why::is_iommu);
    for (const std::size_t wrapped : {1, 4}) {
        const Answer answer = ask(tables[wrapped], 0x20);
        EXPECT(answer.behind && answer.behind->endpoint == 0x120);
        EXPECT(answer.behind && answer.behind->iommu.base == 0x9050000);
    }
    EXPECT(ask(tables[4], 0x20).behind->path == "viot.iort.node[1]");
    EXPECT(ask(tables[2], 0x10).behind->iommu.base == 0xfed90000);
    EXPECT(ask(tables[2], 0x20).behind->iommu.base == 0xfed91000);
    EXPECT(ask(tables[2], 0x108).nowhere.why == Why::topology);
    EXPECT(ask(tables[2], 0x218, &topology).behind->iommu.base == 0xfed90000);
    EXPECT(ask(tables[2], 0x218, &topology).behind->endpoint == 0x200);
    EXPECT(ask(tables[3], 0x20).behind->iommu.kind == IommuKind::amd_vi);
    EXPECT(ask(tables[3], 0x20).behind->path == "ivrs.node[0].entry[0]");
    EXPECT(ask(table("SSDT", "abc"), 0).nowhere.why == Why::no_table);
}
const Test kinds("acpi: every kind of table", every_kind);

void refuses_every_cut() {
    const auto asked = questions();
    for (const std::string &sample : samples())
        for (std::size_t size = 0; size < sample.size(); ++size) {
            const Read read(std::string_view(sample).substr(0, size));
            EXPECT(read.read.problem.has_value());
            for (const Question &question : asked)
                EXPECT(!resolve(read.read, question).behind || read.read.nodes.size() != 0);
        }
}
const Test cuts("acpi: every cut is refused", refuses_every_cut);

void survives_any_byte() {
    // Every byte of every sample replaced by every value: an answer, and no read out of bounds.
    const auto asked = questions();
    std::size_t accepted = 0, refused = 0;
    for (const std::string &sample : samples())
        for (std::size_t at = 0; at < sample.size(); ++at)
            for (int value = 0; value < 256; ++value) {
                std::string text = sample;
                text[at] = static_cast<char>(value);
                const Read read(text);
                for (const Question &question : asked) {
                    const Answer answer = resolve(read.read, question);
                    EXPECT(answer.behind || !answer.nowhere.path.empty());
                }
                ++(read.read.problem ? refused : accepted);
            }
    EXPECT(accepted > 1000 && refused > 1000);
}
const Test bytes("acpi: any byte anywhere", survives_any_byte);

void references() {
    const Answer itself = ask(viot(1, pci_range(48)), 0x20);
    EXPECT(itself.nowhere.why == Why::dangling &&
           itself.nowhere.path == "viot.node[0].output_node");
    EXPECT(ask(iort(1, root_complex(48)), 0x20).nowhere.why == Why::circle);
    EXPECT(ask(iort(1, root_complex(49)), 0x20).nowhere.text == "no node at 0x31");
    const Topology circle(std::vector<Bridge>{{{0, 0x100}, 2, BridgeKind::express},
                                              {{0, 0x200}, 1, BridgeKind::express}});
    EXPECT(circle.above({0, 0x100}).size() == 2);
}
const Test loops("acpi: references that lead nowhere", references);

void counts() {
    EXPECT(is_refused(iort(1, root_complex(48, 0xffffffff)), "iort.node[0].mapping", 84));
    EXPECT(is_refused(viot(1, pci_range(48)).substr(0, 71), "viot.length", 4));
    // As many structures as are read, and one more; what was read before it stays.
    using layout::ViotNodeHeader;
    const std::string small =
        Part(ViotNodeHeader::self).set(ViotNodeHeader::type, 9).set(ViotNodeHeader::length, 4);
    std::string many;
    for (u32 i = 0; i < layout::most_structures; ++i)
        many += small;
    constexpr u32 whole = layout::most_structures / 2 - 1; // two each, and two before them
    EXPECT(!Read(viot(whole, many.substr(0, 4 * whole))).read.problem.has_value());
    const std::string path = "viot.node[" + decimal(whole) + "]";
    EXPECT(is_refused(viot(0xffff, many), path, 48 + 4 * whole));
    EXPECT(Read(viot(0xffff, many)).read.nodes.size() == whole);
    const std::string large(layout::largest_table + 1, 'V');
    EXPECT(is_refused(large, "vvvv", layout::largest_table));
}
const Test bombs("acpi: counts and sizes are bounded", counts);

} // namespace
