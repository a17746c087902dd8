"""Repeat recorded accesses as DMA of a real QEMU: how, what became of them, whether it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Fault,
    FaultRecord,
    Outcome,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.interrupt import INTERRUPT_FIRST, INTERRUPT_LAST
from decoders.vtd.registers import FaultStatus
from harness.memory import PAGE_SIZE
from harness.model.translate import Candidate, Request
from harness.model.unit import VtdUnit
from harness.qemu.vtd_copy import State, VtdCopy

_RECORD: Final = layout(FaultRecordRegister)
_STATUS: Final = layout(FaultStatus)
RECORDED: Final = _RECORD["f"].mask
"""F, in the upper half of a record."""


@dataclass(frozen=True, slots=True)
class Way:
    """Say how an access is repeated: its kind, what is permitted, free pages it may lead to."""

    kind: AccessKind
    permitted: list[Candidate]
    pages: list[int]

    def permits(self, outcome: Outcome, iova: int) -> bool:
        """Say whether an outcome is permitted, as far as pages go."""
        return any(alike(outcome, one.outcome, iova) for one in self.permitted)

    @property
    def fault(self) -> Fault | None:
        """Return a permitted fault, if possible one that FPD keeps from being recorded."""
        faults = [one for one in self.permitted if isinstance(one.outcome, Fault)]
        faults.sort(key=lambda one: not one.fault_disable)
        return next((one.outcome for one in faults if isinstance(one.outcome, Fault)), None)


@dataclass(frozen=True, slots=True)
class Shown:
    """Say what DMA showed: an outcome, the fault record it left, the unit's state behind it.

    hidden: there is no outcome, and a fault may have left no record.
    """

    outcome: Outcome | None
    record: FaultRecord | None
    state: State
    hidden: bool


def way_of(event: Access, copy: VtdCopy, guide: VtdUnit) -> Way | None:
    """Return how to repeat an access; None where it cannot be, or would do harm."""
    if event.pasid is not None or event.attributes:
        return None
    if INTERRUPT_FIRST <= event.iova <= INTERRUPT_LAST:
        return None
    kinds = [event.kind]
    if event.kind is AccessKind.UNKNOWN:
        kinds = [AccessKind.READ, AccessKind.WRITE]
    chosen: tuple[AccessKind, list[Candidate]] | None = None
    for kind in kinds:
        if not copy.can(event.sid, kind):
            return None
        permitted, _ = guide.translator.permitted(Request(event.sid, None, event.iova, kind))
        chosen = chosen or (kind, permitted)
        # What reads are refused, writes may have been allowed.
        if any(alike(event.outcome, one.outcome, event.iova) for one in permitted):
            chosen = kind, permitted
            break
    assert chosen is not None, "there is at least one kind"
    pages: dict[int, None] = {}
    for outcome in (event.outcome, *(one.outcome for one in chosen[1])):
        if isinstance(outcome, Translation):
            page = page_of(outcome, event.iova)
            # What passes through keeps the bits that no translation has.
            if event.iova >> copy.width or not copy.free(page):
                return None
            pages[page] = None
    return Way(*chosen, [*pages])


def carried_out(event: Access, way: Way, before: State, copy: VtdCopy) -> Shown:
    """Do DMA and return what it showed."""
    copy.forget(way.pages)
    now = copy.dma(event.sid, way.kind, event.iova)
    record = None
    if now.record[1] & RECORDED and not before.record[1] & RECORDED:
        record = FaultRecord(0, now.record[0], now.record[1] & ~RECORDED)
    hidden = _can_hide(before, way)
    found = copy.touched(way.pages)
    copy.forget(found)
    if record is not None:
        reason = _RECORD["fr"].get((record.low, record.high))
        return Shown(Fault(reason), record, now, False)
    if not found and not hidden:
        found = _strayed(way, copy)
    if len(found) == 1:
        return Shown(Translation(found[0], PAGE_SIZE - 1), None, now, False)
    return Shown(None, None, now, hidden and not found)


def _strayed(way: Way, copy: VtdCopy) -> list[int]:
    """Return pages where DMA may have landed that nobody expected there.

    The unit itself has read tables, which exist from then on, if only zeros were in them.
    """
    walked = {step.address & -PAGE_SIZE for one in way.permitted for step in one.steps}
    found = copy.strayed()
    copy.forget(found)
    return [page for page in found if page not in walked]


def _can_hide(before: State, way: Way) -> bool:
    """Say whether a fault may leave no record.

    It does where one is pending, behind an overflow, and where FPD is set; in
    abort mode there is none.
    """
    if before.status & _STATUS["pfo"].mask:
        return True
    if before.record[1] & RECORDED:
        return True
    faults = (one for one in way.permitted if isinstance(one.outcome, Fault))
    return any(one.fault_disable or one.outcome == Fault(0) for one in faults)


def page_of(outcome: Translation, iova: int) -> int:
    """Return the page that an address is translated to."""
    return (outcome.address | iova & outcome.mask) & -PAGE_SIZE


def alike(left: Outcome | None, right: Outcome, iova: int) -> bool:
    """Say whether two outcomes are the same for the page of an address."""
    if isinstance(left, Translation) and isinstance(right, Translation):
        return page_of(left, iova) == page_of(right, iova)
    return left == right
