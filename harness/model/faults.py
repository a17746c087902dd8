"""Fault recording and the fault event (VT-d specification 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Callable

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    FaultRecord,
    Interrupt,
    Observation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FAULT_REASONS, FaultRecordRegister, Reason
from decoders.vtd.registers import (
    FaultEventControl,
    FaultStatus,
    Register,
    fault_record_count,
    fault_record_offset,
)
from harness.model.config import UnitConfig
from harness.model.registers import RegisterFile, touches
from harness.model.translate import Request

FSTS = layout(FaultStatus)
RECORD = layout(FaultRecordRegister)
CONTROL = layout(FaultEventControl)
PAGE_MASK = 0xFFF
ADDRESS_TYPES = {NO_ATTRIBUTES: 0, Attribute.TRANSLATION_REQUEST: 1, Attribute.TRANSLATED: 2}
"""What AT says of a request."""
_PENDING = FSTS.mask("pfo", "ppf", "iqe", "ice", "ite")


class EventMessage:
    """Raise one of the unit's own interrupts through its control, data and address registers."""

    def __init__(
        self,
        registers: RegisterFile,
        emit: Callable[[Observation], None],
        control: Register,
        data: Register,
        address: Register,
        upper: Register,
    ):
        self._registers = registers
        self._emit = emit
        self.control = control
        self._data = data
        self._address = address
        self._upper = upper

    def request(self) -> None:
        """Send the message, or leave it pending (IP) while it is masked (IM)."""
        self._registers.put(self.control, CONTROL["ip"], 1)
        self.send_if_unmasked()

    def send_if_unmasked(self) -> None:
        """Send a pending message once software unmasks it."""
        control = (self._registers.load(self.control),)
        if CONTROL["ip"].get(control) and not CONTROL["im"].get(control):
            address = self._registers.load(self._address)
            address |= self._registers.load(self._upper) << 32
            self._emit(Interrupt(address, self._registers.load(self._data)))
            self._registers.put(self.control, CONTROL["ip"], 0)

    def withdraw(self) -> None:
        """Clear a pending message whose cause software has cleared."""
        self._registers.put(self.control, CONTROL["ip"], 0)


class FaultRecorder:
    """Fill the fault recording registers and keep the fault status."""

    def __init__(
        self,
        config: UnitConfig,
        registers: RegisterFile,
        emit: Callable[[Observation], None],
    ):
        self._config = config
        self._registers = registers
        self._emit = emit
        self._count = fault_record_count(config.capability)
        self._next = 0
        self.event = EventMessage(registers, emit, vtd.FECTL, vtd.FEDATA, vtd.FEADDR, vtd.FEUADDR)

    def reset(self) -> None:
        """Start with the first register again."""
        self._next = 0

    def record(
        self, request: Request, reason: int, fault_disable: bool, page_request: bool = False
    ) -> None:
        """Record a fault unless FPD suppresses it, a record of the same source is pending, or
        the registers have overflowed; nor one that a device which asked for a translation finds.
        """
        if self._device_finds(request, reason):
            return
        if fault_disable and self._qualified(reason):
            return
        before = self._registers.load(vtd.FSTS)
        if FSTS["pfo"].get((before,)):
            return
        if any(self._pending_source(index) == request.sid for index in range(self._count)):
            return
        if self._pending_source(self._next) is not None:
            self._registers.put(vtd.FSTS, FSTS["pfo"], 1)
            return
        index = self._next
        self._next = (index + 1) % self._count
        words = self._compose(request, reason, page_request)
        self._emit(FaultRecord(index, *words))
        RECORD["f"].put(words, 1)
        base = fault_record_offset(self._config.capability, index)
        self._registers.poke(vtd.FRCD_LOW, words[0], base)
        self._registers.poke(vtd.FRCD_HIGH, words[1], base + vtd.FRCD_HIGH.offset)
        self._report(index, before)

    def adopt(self, seen: FaultRecord) -> None:
        """Take over a record that the recorded unit made and this one did not."""
        if seen.index >= self._count:
            return
        base = fault_record_offset(self._config.capability, seen.index)
        words = [seen.low, seen.high]
        RECORD["f"].put(words, 1)
        self._registers.poke(vtd.FRCD_LOW, words[0], base)
        self._registers.poke(vtd.FRCD_HIGH, words[1], base + vtd.FRCD_HIGH.offset)
        self._next = (seen.index + 1) % self._count
        self._report(seen.index, self._registers.load(vtd.FSTS))

    def undefined(self, offset: int, size: int) -> int:
        """Return the bits of a register read whose content the dialect leaves open."""
        ignored = self._config.dialect.fault_record_ignored
        found = 0
        for index in range(self._count):
            base = fault_record_offset(self._config.capability, index) + vtd.FRCD_HIGH.offset
            if touches(offset, size, base, vtd.FRCD_HIGH.size):
                shift = 8 * (offset - base)
                found |= ignored >> shift if shift >= 0 else ignored << -shift
        return found

    def raise_event(self, before: int) -> None:
        """Raise the fault event when nothing was pending in the status before."""
        if not before & _PENDING:
            self.event.request()

    def registers_written(self, offset: int, size: int) -> None:
        """React to a software write that reached FSTS, FECTL or a fault record."""
        for index in range(self._count):
            base = fault_record_offset(self._config.capability, index) + vtd.FRCD_HIGH.offset
            if touches(offset, size, base, vtd.FRCD_HIGH.size):
                pending = any(self._pending_source(i) is not None for i in range(self._count))
                self._registers.put(vtd.FSTS, FSTS["ppf"], int(pending))
                break
        if touches(offset, size, vtd.FSTS.offset):
            if not self._registers.load(vtd.FSTS) & _PENDING:
                self.event.withdraw()
        if touches(offset, size, vtd.FECTL.offset):
            self.event.send_if_unmasked()

    def _report(self, index: int, before: int) -> None:
        """Say in FSTS that a register was filled, and raise the event unless one was before."""
        if not FSTS["ppf"].get((before,)):
            self._registers.put(vtd.FSTS, FSTS["fri"], index)
            self._registers.put(vtd.FSTS, FSTS["ppf"], 1)
            self.raise_event(before)

    def _device_finds(self, request: Request, reason: int) -> bool:
        known = FAULT_REASONS.get(reason)
        asked = request.attributes & Attribute.TRANSLATION_REQUEST
        unchecked = self._config.dialect.device_requests_unchecked
        return bool(asked and not unchecked and known is not None and known.recoverable)

    def _qualified(self, reason: int) -> bool:
        if reason == Reason.CONTEXT_RESERVED and self._config.dialect.context_reserved_unqualified:
            return False
        known = FAULT_REASONS.get(reason)
        return known is None or known.qualified

    def _compose(self, request: Request, reason: int, page_request: bool) -> list[int]:
        words = [request.iova & ~PAGE_MASK, 0]
        RECORD["sid"].put(words, request.sid)
        RECORD["fr"].put(words, reason)
        if page_request:
            RECORD["t2"].put(words, 1)
        elif request.kind != AccessKind.WRITE:
            RECORD["t1"].put(words, 1)
        if request.kind == AccessKind.EXECUTE:
            RECORD["exe"].put(words, 1)
        if request.attributes & Attribute.PRIVILEGED:
            RECORD["priv"].put(words, 1)
        if not self._config.dialect.device_requests_unchecked:
            RECORD["at"].put(words, ADDRESS_TYPES[request.attributes & ~Attribute.PRIVILEGED])
        if request.pasid is not None:
            RECORD["pp"].put(words, 1)
            RECORD["pv"].put(words, request.pasid)
        return words

    def _pending_source(self, index: int) -> int | None:
        base = fault_record_offset(self._config.capability, index)
        high = self._registers.load(vtd.FRCD_HIGH, base + vtd.FRCD_HIGH.offset)
        words = (0, high)
        return RECORD["sid"].get(words) if RECORD["f"].get(words) else None
