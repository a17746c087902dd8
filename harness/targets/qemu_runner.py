"""Many traces on one QEMU, for those who ask again and again: minimisers, fuzzers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from decoders.events import Access, Event
from harness.errors import HarnessError
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.qemu.pc import PROGRAM
from harness.qemu.vtd_copy import VtdCopy, Wanted, possible
from harness.targets.base import Counters
from harness.targets.qemu_vtd import VtdReplay
from harness.targets.qemu_vtd_machine import last_address, wanted_for


class QemuRunner:
    """Keep a QEMU with an intel-iommu and run traces on it, each from a reset of the machine.

    run() returns what `dmarewind replay --target qemu` would find; counters are those of the last
    run. Another QEMU is started only where a trace needs what this one does not have: other
    capabilities, a source of DMA, RAM further up. Stores to where no machine can have RAM are lost.

    Errors: EndedError where QEMU did not survive a trace, HarnessError where it does not answer or
    cannot be what was recorded; the next run starts a new one. Use as a context manager, or close.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program
        self._copy: VtdCopy | None = None
        self._wanted: Wanted | None = None
        self._failed = False
        self.counters = Counters()
        self.starts = 0
        """How often a QEMU was started."""

    def run(self, config: UnitConfig, events: Sequence[Event]) -> list[Finding]:
        """Run events on a unit like the one that was recorded, and return the findings.

        config is what `harness.replay.unit_config` makes of a header.
        """
        copy = self._machine(config, events)
        self._failed = True
        replay = VtdReplay(config, copy, owned=False)
        self.counters = replay.counters()
        replay.apply(events)
        replay.finish()
        self._failed = False
        return replay.findings()

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of the QEMU that ran last.

        Errors: HarnessError when none has.
        """
        if self._copy is None:
            raise HarnessError("no QEMU has run yet")
        return self._copy.version

    @property
    def missing(self) -> frozenset[int]:
        """Return the sources at which the machine has no device: their accesses are unjudged."""
        return frozenset() if self._copy is None else self._copy.missing

    def _machine(self, config: UnitConfig, events: Sequence[Event]) -> VtdCopy:
        sources = {event.sid for event in events if isinstance(event, Access)}
        needed = (address for address in map(last_address, events) if possible(address))
        wanted = wanted_for(config, sources, max((0, *needed)))
        had = self._wanted
        if self._copy is not None and had is not None and had.includes(wanted):
            if self._failed:
                self.starts += 1
                self._copy.restart()
            return self._copy
        if had is not None and had.same_unit(wanted):
            wanted = replace(wanted, sources=had.sources | wanted.sources)
        self.close()
        self.starts += 1
        self._copy = VtdCopy(wanted, self._program)
        self._wanted = wanted
        return self._copy

    def close(self) -> None:
        """End QEMU."""
        if self._copy is not None:
            with contextlib.suppress(HarnessError):
                self._copy.close()
        self._copy = self._wanted = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
