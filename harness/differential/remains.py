"""What DMA of a real VT-d unit leaves behind, and what it may have been that left nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    Fault,
    FaultRecord,
    Outcome,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FAULT_REASONS, FaultRecordRegister, Reason
from decoders.vtd.registers import FaultStatus
from harness.differential.device_tlb import answerable
from harness.differential.situation import LOST, allows, cached
from harness.differential.table_use import ACCESSED, DIRTY, TableUse
from harness.findings import Finding, FindingKind
from harness.generate.vtd_tables import TABLES_END, TABLES_START
from harness.model.dialects import Dialect
from harness.model.translate import Candidate
from harness.qemu.vtd import POOL_START, Seen, VtdQemu
from harness.targets.model import ModelReplay

_RECORD: Final = layout(FaultRecordRegister)
_STATUS: Final = layout(FaultStatus)
_F: Final = _RECORD["f"].mask
_PPF, _PFO = _STATUS["ppf"].mask, _STATUS["pfo"].mask


class Remains:
    """Look at what is left in the memory of a QEMU whose unit follows a dialect."""

    def __init__(self, qemu: VtdQemu, dialect: Dialect) -> None:
        self._qemu, self._dialect = qemu, dialect

    def unseen(
        self,
        guide: ModelReplay,
        access: Access,
        ways: Sequence[Candidate],
        hidden: bool,
        faulted: bool,
    ) -> Outcome:
        """Return what an access may have been that left neither data nor a fault record."""
        for candidate in ways:
            if faulted and not self._overflows(candidate):
                continue
            if self._leaves_nothing(candidate, access, hidden):
                return candidate.outcome
        # QEMU finds what it has cached by source, under whatever domain that was.
        for way in cached(guide, access):
            left = Candidate(way.outcome, ())
            usable = isinstance(way.outcome, Translation) and allows(way.rights, access)
            if usable and self._leaves_nothing(left, access, hidden):
                return way.outcome
        return Translation(LOST, 0)

    def _overflows(self, candidate: Candidate) -> bool:
        """Say whether a candidate would be recorded, if there were room."""
        is_fault = isinstance(candidate.outcome, Fault)
        return is_fault and not _suppressed(candidate, self._dialect)

    def _leaves_nothing(self, candidate: Candidate, access: Access, hidden: bool) -> bool:
        outcome = candidate.outcome
        if isinstance(outcome, Fault):
            return hidden or _suppressed(candidate, self._dialect)
        if access.attributes & Attribute.TRANSLATION_REQUEST:
            return not answerable(outcome, access.iova)
        if access.kind is AccessKind.READ:
            return True
        place = outcome.address | access.iova & outcome.mask
        return not POOL_START <= place < self._qemu.pool.end

    def tables(self, guide: ModelReplay, use: TableUse) -> list[Finding]:
        """Return where tables hold something else than the model says.

        A walk that ends in a fault may have set A bits. An entry that software has stored to after
        it was used may be cached with other A and D bits than it has now; those of doubtful ones
        are not known.
        """
        size = TABLES_END - TABLES_START
        ours = guide.unit.load(TABLES_START, size)
        theirs = self._qemu.memory(TABLES_START, size)
        if ours == theirs:
            return []
        number = guide.counters().events - 1
        found = []
        for at in range(0, size, 8):
            if ours[at : at + 8] == theirs[at : at + 8]:
                continue
            place = TABLES_START + at
            model = int.from_bytes(ours[at : at + 8], "little")
            real = int.from_bytes(theirs[at : at + 8], "little")
            differ = model ^ real
            if place in use.faulted:
                differ &= ~(real & ACCESSED)
            if use.unknown or place in use.rewritten or place in use.doubtful:
                differ &= ~(ACCESSED | DIRTY)
            if differ:
                observed, permitted = (
                    place.to_bytes(8, "big") + value.to_bytes(8, "big") for value in (real, model)
                )
                found.append(
                    Finding(number, FindingKind.DIVERGENCE, "table", observed, (permitted,))
                )
        return found


def record_of(seen: Seen, sid: int) -> tuple[FaultRecord | None, bool]:
    """Return the record that a step made, if any, and whether a fault of a source shows none.

    It does not beside an earlier one of the same source, nor after an overflow.
    """
    low, high = seen.record
    hidden = bool(seen.before & _PFO or seen.status & _PFO)
    if seen.before & _PPF:
        return None, hidden or _RECORD["sid"].get(seen.record) == sid
    return FaultRecord(0, low, high & ~_F) if high & _F else None, hidden


def _suppressed(candidate: Candidate, dialect: Dialect) -> bool:
    """Say whether a fault leaves no record: FPD is in force, and it is one that FPD is for."""
    assert isinstance(candidate.outcome, Fault)
    known = FAULT_REASONS.get(candidate.outcome.reason)
    unqualified = candidate.outcome.reason == Reason.CONTEXT_RESERVED
    if unqualified and dialect.context_reserved_unqualified:
        return False
    return candidate.fault_disable and (known is None or known.qualified)
