"""Tell of an interrupt request: what QEMU says it made of it, and the fault record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Event,
    Fault,
    FaultRecord,
    InterruptRequest,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import INTERRUPT_REASONS, FaultRecordRegister, Reason
from decoders.vtd.interrupt import SUBHANDLE_MASK, message_index
from harness.differential.teller import Teller
from harness.message import Msi
from harness.model.interrupts import INDEX_MASK, InterruptMessage
from harness.targets.model import ModelReplay

_REASON = layout(FaultRecordRegister)["fr"]

_INDEX_SHIFT: Final = 48
WRITTEN: Final = (0xFFFF_FFFF, 0)
"""What the self test of an i82559er writes."""


def deliver(
    msi: Msi,
    sid: int | None,
    said: Sequence[Event],
    record: FaultRecord | None,
    hidden: bool,
    guide: ModelReplay,
    teller: Teller,
) -> None:
    """Tell of a message and what became of it.

    said are QEMU's lines; hidden says that a fault would leave no record now.
    """
    lines = [event for event in said if isinstance(event, InterruptRequest)]
    arrived = [line for line in lines if (line.address, line.data) == (msi.address, msi.data)]
    request = InterruptRequest(sid, msi.address, msi.data, None)
    outcome = next((line.outcome for line in arrived if line.outcome is not None), None)
    if outcome is None and record is not None:
        reason = _REASON.get((record.low, record.high))
        if reason in INTERRUPT_REASONS:
            outcome = Fault(reason)
    if outcome is None:
        outcome = _refusal(guide, request, hidden) if arrived else Fault(0)
    teller.tell(InterruptRequest(sid, msi.address, msi.data, outcome))
    if record is not None:
        teller.tell(record)


def written(
    iova: int,
    sid: int,
    named: int | None,
    said: Sequence[Event],
    recorded: tuple[FaultRecord | None, bool],
    guide: ModelReplay,
    teller: Teller,
) -> None:
    """Tell of DMA of an i82559er to the interrupt range: it reads, then writes what QEMU takes.

    QEMU cuts the 8 bytes that it writes into two messages; by VT-d 5.1.4 they are none, which is
    not judged here (docs/findings/vtd-source-of-dma.md).
    named is the source that these are taken to come from, None where none is taken to be known.
    """
    record, hidden = recorded
    teller.tell(Access(sid, None, iova, AccessKind.READ, Translation(iova, 0)))
    for number, data in enumerate(WRITTEN):
        msi = Msi(0, iova + 4 * number, data)
        own = record if record is not None and _is_about(record, msi) else None
        if named is not None:
            teller.history.written_by_dma.add(len(teller.events))
        deliver(msi, named, said, own, hidden, guide, teller)
        if own is not None:
            record, hidden = None, True
    if record is not None:
        teller.tell(record)


def _is_about(record: FaultRecord, msi: Msi) -> bool:
    """Say whether a record names what a message named; bits of data that are reserved name 0."""
    words = (record.low, record.high)
    index = message_index(msi.address, msi.data)
    if index is None:
        return False
    if _REASON.get(words) == Reason.REMAP_REQUEST_RESERVED:
        return bool(msi.data & ~SUBHANDLE_MASK)
    return record.low >> _INDEX_SHIFT == index & INDEX_MASK


def _refusal(guide: ModelReplay, request: InterruptRequest, hidden: bool) -> Fault:
    """Return what a refusal without a record may have been: one that leaves none, if there is.

    Where none would leave one, it is one that FPD does not suppress: that may have set PFO.
    """
    message = InterruptMessage(request.sid, request.address, request.data)
    permitted, _, _ = guide.unit.remapper.permitted(message)
    faults = [one for one in permitted if isinstance(one.outcome, Fault)]
    for one in sorted(faults, key=lambda one: one.fault_disable is hidden):
        assert isinstance(one.outcome, Fault)
        if hidden or one.fault_disable:
            return one.outcome
    # The record that the model makes of it will be missing; without a fault any is one too many.
    return next((one.outcome for one in faults if isinstance(one.outcome, Fault)), Fault(0))
