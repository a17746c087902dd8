#include "scaffold.hpp"

#include "../core/scaffold.hpp"
#include "buffer.hpp"
#if defined(DMAREWIND_INSTRUMENTED)
#include "novelty.hpp"
#endif
#include "planted.hpp"
#include "replay_binding.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace dmarewind::bind {
namespace {

std::vector<std::byte> copy_of(nb::bytes data) {
    const auto *first = static_cast<const std::byte *>(data.data());
    return {first, first + data.size()};
}

template <class Runs, class One> void bind_runs(nb::module_ &m, const char *name) {
    nb::class_<Runs>(m, name)
        .def(nb::init<std::vector<One>>(), nb::arg("scaffolds"))
        .def("run",
             [](Runs &runs, Buffer<const u8> input) { runs.run(std::as_bytes(input.span())); })
        .def("counters", [](const Runs &runs) { return from_counters(runs.replay().counters()); })
        .def("findings", [](const Runs &runs) {
            nb::list found;
            for (const Finding &finding : runs.replay().findings())
                found.append(from_finding(finding));
            return nb::tuple(found);
        });
}

} // namespace

void bind_scaffold(nb::module_ &m) {
    nb::class_<Scaffold>(m, "Scaffold")
        .def(
            "__init__",
            [](Scaffold *self, const UnitConfig &config, nb::bytes memory, nb::bytes before,
               const std::vector<std::pair<u64, u32>> &pieces, u32 tail_offset, u32 tail_step,
               nb::bytes after) {
                Scaffold made{config,      copy_of(memory), copy_of(before), {},
                              tail_offset, tail_step,       copy_of(after)};
                for (const auto &[address, size] : pieces) {
                    if (address % page_size != 0 || size > page_size)
                        throw nb::value_error("a piece is the beginning of a page");
                    made.pieces.push_back({address, size});
                }
                new (self) Scaffold(std::move(made));
            },
            nb::kw_only(), nb::arg("config"), nb::arg("memory"), nb::arg("before"),
            nb::arg("pieces"), nb::arg("tail_offset"), nb::arg("tail_step"), nb::arg("after"));
    bind_runs<ScaffoldRuns, Scaffold>(m, "ScaffoldRuns");
    using VirtioScaffold = VirtioScaffoldRun::Scaffold;
    nb::class_<VirtioScaffold>(m, "VirtioScaffold")
        .def(
            "__init__",
            [](VirtioScaffold *self, const virtio::Config &config, nb::bytes before,
               nb::bytes after) {
                new (self) VirtioScaffold{config, copy_of(before), copy_of(after)};
            },
            nb::kw_only(), nb::arg("config"), nb::arg("before"), nb::arg("after"));
    bind_runs<VirtioScaffoldRuns, VirtioScaffold>(m, "VirtioScaffoldRuns");
#if defined(DMAREWIND_INSTRUMENTED)
    m.def("planted", [](Buffer<const u8> input) { planted(input.span()); });
    m.def("settle", &novelty::settle);
#endif
}

} // namespace dmarewind::bind
