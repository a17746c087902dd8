"""Put together what QEMU's log says of an interrupt request: the request, then what became of it.

`vtd_ir_remap_msi_req` tells the request and `vtd_ir_remap_msi` the message that goes on. One that
is refused has no second line: its reason and source are in a fault record, if it left one. Sources
are told by fault records only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    Delivery,
    Event,
    Fault,
    FaultRecord,
    Gap,
    InterruptRequest,
    Release,
    Snapshot,
    Store,
)
from decoders.layout import layout
from decoders.vtd.faults import INTERRUPT_REASONS, FaultRecordRegister

HELD_LIMIT: Final = 64
"""Events of other threads that wait behind a request at most."""

_REASON: Final = layout(FaultRecordRegister)["fr"]
_SID: Final = layout(FaultRecordRegister)["sid"]
_NO_SOURCE: Final = 0xFFFF  # QEMU: X86_IOMMU_SID_INVALID


class InterruptLog:
    """Hold a request until it is known what became of it."""

    def __init__(self) -> None:
        self._waiting: InterruptRequest | None = None
        self._behind: list[Event] = []
        self._doubtful = False

    @property
    def busy(self) -> bool:
        """Say whether a request waits, so that other events have to take this way, too."""
        return self._waiting is not None

    def take(self, event: Event) -> list[Event]:
        """Take an event, a request without its outcome among them; return what can go on."""
        waiting = self._waiting
        if isinstance(event, InterruptRequest):
            if event.outcome is None:
                done = self._refuse()
                self._waiting, self._doubtful = event, False
                return done
            if waiting is not None and (waiting.address, waiting.data) == (
                event.address,
                event.data,
            ):
                return self._close(event.outcome)
        elif waiting is not None and isinstance(event, FaultRecord):
            words = (event.low, event.high)
            if _REASON.get(words) in INTERRUPT_REASONS:
                sid = _SID.get(words)
                self._waiting = replace(waiting, sid=None if sid == _NO_SOURCE else sid)
                request, *behind = self._close(Fault(_REASON.get(words)))
                return [request, event, *behind]
        elif isinstance(event, Store | Snapshot | Release | Access):
            # These may come from threads that do not wait for the unit.
            if waiting is not None and len(self._behind) < HELD_LIMIT:
                self._behind.append(event)
                return []
        elif isinstance(event, Gap):
            self.doubt()
            return [event]
        return [*self._refuse(), event]

    def doubt(self) -> None:
        """Remember that a line was lost, which may have told what became of the request."""
        self._doubtful = True

    def finish(self) -> list[Event]:
        """Return what waits: what became of it is not known."""
        return self._close(None)

    def _refuse(self) -> list[Event]:
        return self._close(None if self._doubtful else Fault(0))

    def _close(self, outcome: Delivery | None) -> list[Event]:
        if self._waiting is None:
            return []
        done = [replace(self._waiting, outcome=outcome), *self._behind]
        self._waiting = None
        self._behind = []
        self._doubtful = False
        return done
