// Binds the replays of both kinds of units.
#pragma once

#include "buffer.hpp"
#include "convert.hpp"
#include "replay_base.hpp"

#include <atomic>

namespace dmarewind::bind {

// A replay that says no when a second thread enters it while the first runs without the GIL.
template <class Replay, class Config> class GuardedReplay {
  public:
    GuardedReplay(Config config, std::size_t findings_kept, std::size_t bytes_kept)
        : replay_(std::move(config), findings_kept, bytes_kept) {}

    nb::object feed(Buffer<const u8> raw) {
        if (busy_.exchange(true))
            throw nb::value_error("this replay is being fed by another thread");
        std::optional<Damage> damage;
        try {
            const nb::gil_scoped_release released;
            damage = replay_.feed(std::as_bytes(raw.span()), [] {
                const nb::gil_scoped_acquire acquired;
                if (PyErr_CheckSignals() != 0)
                    throw nb::python_error();
            });
        } catch (...) {
            busy_ = false;
            throw;
        }
        busy_ = false;
        if (!damage.has_value())
            return nb::none();
        return tuple(damage->event, damage->offset, damage->problem);
    }

    Replay &get() {
        if (busy_)
            throw nb::value_error("this replay is being fed by another thread");
        return replay_;
    }

  private:
    Replay replay_;
    std::atomic<bool> busy_ = false;
};

inline nb::dict from_counters(const Counters &counts) {
    nb::dict out;
    out["events"] = counts.events;
    out["translations"] = counts.translations;
    out["faults"] = counts.faults;
    out["requests"] = counts.requests;
    out["interrupt_requests"] = counts.interrupt_requests;
    out["descriptors"] = counts.descriptors;
    out["fault_records"] = counts.fault_records;
    out["status_writes"] = counts.status_writes;
    out["interrupts"] = counts.interrupts;
    out["page_requests"] = counts.page_requests;
    out["device_messages"] = counts.device_messages;
    out["register_reads"] = counts.register_reads;
    out["unjudged"] = counts.unjudged;
    out["agreed"] = counts.agreed;
    out["divergences"] = counts.divergences;
    return out;
}

template <class Replay, class Config> void bind_replay(nb::module_ &m, const char *name) {
    using Guarded = GuardedReplay<Replay, Config>;
    nb::class_<Guarded>(m, name)
        .def(nb::init<Config, std::size_t, std::size_t>(), nb::arg("config"),
             nb::arg("findings_kept"), nb::arg("bytes_kept"))
        .def("feed", &Guarded::feed, nb::arg("raw"))
        .def("finish", [](Guarded &replay) { replay.get().finish(); })
        .def("counters", [](Guarded &replay) { return from_counters(replay.get().counters()); })
        .def(
            "findings",
            [](Guarded &replay, std::size_t start) {
                const std::vector<Finding> &findings = replay.get().findings();
                nb::list found;
                for (std::size_t i = start; i < findings.size(); ++i)
                    found.append(from_finding(findings[i]));
                return nb::tuple(found);
            },
            nb::arg("start") = 0);
}

} // namespace dmarewind::bind
