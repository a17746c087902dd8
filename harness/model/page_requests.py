"""Page requests: what a device asks for goes into a queue, or is refused (VT-d 7.4 to 7.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Observation,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
)
from decoders.layout import layout
from decoders.vtd import pagerequest
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import PageGroupResponse
from decoders.vtd.faults import Reason
from decoders.vtd.register_fields import Pqa, Pqh, Pqt, Prs
from harness.memory import PAGE_SIZE, TOP, Memory
from harness.model.config import UnitConfig
from harness.model.faults import EventMessage, FaultRecorder
from harness.model.lookup import SCALABLE_CONTEXT, TTM_LEGACY, Blocked
from harness.model.registers import RegisterFile, touches
from harness.model.translate import Request, Translator

PQA, PQH, PQT, PRS = layout(Pqa), layout(Pqh), layout(Pqt), layout(Prs)
RECORD = layout(pagerequest.PageRequest)
RESPONSE = layout(PageGroupResponse)
PENDING = PRS.mask("ppr", "pro")
FLAG_FIELDS = {
    PageRequestFlag.READ: "rd",
    PageRequestFlag.WRITE: "wr",
    PageRequestFlag.EXECUTE: "exr",
    PageRequestFlag.PRIVILEGED: "pmr",
    PageRequestFlag.LAST: "lpig",
}
"""Where a record says what was asked."""
ASKING = PageRequestFlag.READ | PageRequestFlag.WRITE
"""A last request without these is a stop marker, and nobody answers it (Linux prq_event_thread)."""


class Code(IntEnum):
    """Say what became of a group of page requests (PCIe 10.4.2.2)."""

    SUCCESS = 0
    INVALID = 1
    FAILURE = 15


class PageRequestQueue:
    """Store page requests at the queue's tail, and tell devices what became of them."""

    def __init__(
        self,
        config: UnitConfig,
        memory: Memory,
        registers: RegisterFile,
        translator: Translator,
        faults: FaultRecorder,
        emit: Callable[[Observation], None],
    ):
        self._config = config
        self._memory = memory
        self._registers = registers
        self._translator = translator
        self._faults = faults
        self._emit = emit
        self._event = EventMessage(registers, emit, vtd.PECTL, vtd.PEDATA, vtd.PEADDR, vtd.PEUADDR)

    def request(self, asked: PageRequest, event: int) -> None:
        """Queue a page request, or refuse it; one that ends its group is then answered here."""
        if not (self._config.ecap("prs") and self._translator.enabled):
            return
        code = self._admit(asked)
        if code is None:
            code = self._enqueue(asked, event)
        ends_group = asked.flags & PageRequestFlag.LAST and asked.flags & ASKING
        if code is not None and ends_group:
            self._answer(PageResponse(asked.sid, asked.pasid, asked.group, int(code)))

    def respond(self, content: Sequence[int]) -> None:
        """Execute a page group response descriptor."""
        pasid = RESPONSE["pasid"].get(content) if RESPONSE["pp"].get(content) else None
        source, group = RESPONSE["rid"].get(content), RESPONSE["prgi"].get(content)
        self._answer(PageResponse(source, pasid, group, RESPONSE["rc"].get(content)))

    def adopt(self, seen: PageRequestRecord, event: int) -> None:
        """Take over a record that the recorded unit stored and this one did not."""
        self._store(seen, event)
        base, size = self._ring()
        if seen.address == base + self._tail(size) & TOP:
            self._registers.poke(vtd.PQT, (self._tail(size) + RECORD.size) % size)
        self._registers.put(vtd.PRS, PRS["ppr"], 1)

    def registers_written(self, offset: int, size: int) -> None:
        """React to a software write that reached PRS or PECTL."""
        if touches(offset, size, vtd.PRS.offset):
            if not self._registers.load(vtd.PRS) & PENDING:
                self._event.withdraw()
        if touches(offset, size, vtd.PECTL.offset):
            self._event.send_if_unmasked()

    # -- inside ------------------------------------------------------------------------------

    def _admit(self, asked: PageRequest) -> Code | None:
        """Check the context entry; record the fault of a request that it does not let in."""
        lookup = self._translator.lookup
        if lookup.aborting:
            return Code.INVALID
        if lookup.mode == TTM_LEGACY:
            return self._refuse(asked, Reason.LEGACY_MODE_PAGE_REQUEST, False)
        context = lookup.context(asked.sid)
        if isinstance(context, Blocked):
            return self._refuse(asked, context.reason, context.fault_disable)
        if not SCALABLE_CONTEXT["pre"].get(context.words):
            disable = bool(SCALABLE_CONTEXT["fpd"].get(context.words))
            return self._refuse(asked, Reason.SM_PAGE_REQUEST_DISABLED, disable)
        return None

    def _refuse(self, asked: PageRequest, reason: int, disable: bool) -> Code:
        kind = AccessKind.EXECUTE if asked.flags & PageRequestFlag.EXECUTE else AccessKind.READ
        privileged = asked.flags & PageRequestFlag.PRIVILEGED
        attributes = Attribute.PRIVILEGED if privileged else NO_ATTRIBUTES
        request = Request(asked.sid, asked.pasid, asked.address, kind, attributes=attributes)
        self._faults.record(request, int(reason), disable, page_request=True)
        return Code.INVALID

    def _enqueue(self, asked: PageRequest, event: int) -> Code | None:
        """Store a request at the tail; return the answer to one that is dropped."""
        before = self._registers.load(vtd.PRS)
        if PRS["pro"].get((before,)):
            return Code.SUCCESS
        base, size = self._ring()
        tail = self._tail(size)
        following = (tail + RECORD.size) % size
        # What lies beyond the ring in PQH and PQT, which software may write, does not count.
        if following == PQH["pqh"].address((self._registers.load(vtd.PQH),)) % size:
            self._raise(before, "pro")
            return Code.SUCCESS
        address = base + tail & TOP
        if self._memory.quadword(address) is None:
            return Code.FAILURE
        record = PageRequestRecord(address, _record(asked))
        self._store(record, event)
        self._emit(record)
        self._registers.poke(vtd.PQT, following)
        self._raise(before, "ppr")
        return None

    def _ring(self) -> tuple[int, int]:
        place = (self._registers.load(vtd.PQA),)
        return PQA["pqa"].address(place), PAGE_SIZE << PQA["pqs"].get(place)

    def _tail(self, size: int) -> int:
        return PQT["pqt"].address((self._registers.load(vtd.PQT),)) % size

    def _store(self, record: PageRequestRecord, event: int) -> None:
        content = b"".join(word.to_bytes(8, "little") for word in record.words)
        self._memory.write(record.address, content, event)

    def _raise(self, before: int, status: str) -> None:
        """Set a status bit; raise the event when there was none before."""
        self._registers.put(vtd.PRS, PRS[status], 1)
        if not before & PENDING:
            self._event.request()

    def _answer(self, response: PageResponse) -> None:
        if self._config.dialect.device_messages_traced:
            self._emit(response)


def _record(asked: PageRequest) -> tuple[int, ...]:
    content = [0] * RECORD.words
    RECORD["type"].put(content, pagerequest.PAGE_REQUEST_TYPE)
    RECORD["rid"].put(content, asked.sid)
    RECORD["prgi"].put(content, asked.group)
    RECORD["addr"].put(content, asked.address >> 12)
    if asked.pasid is not None:
        RECORD["pp"].put(content, 1)
        RECORD["pasid"].put(content, asked.pasid)
    for flag, name in FLAG_FIELDS.items():
        if asked.flags & flag:
            RECORD[name].put(content, 1)
    return tuple(content)
