"""The intel-iommu of a real QEMU as a target: what was stored and written is done again, accesses
are real DMA.

A model follows what QEMU does, and says what was permitted. QEMU agrees with a recording where it
does the same, or something else while both are permitted: a stale entry that was used need not be
used again. A finding that no recorded answer is behind has as recorded what the model expects.

What is not done, or does not show, is not judged: docs/limits.md lists it.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from decoders.events import (
    Access,
    Descriptor,
    DeviceTlbMessage,
    Event,
    Fault,
    FaultRecord,
    Gap,
    Interrupt,
    InterruptRequest,
    PageRequest,
    PageRequestRecord,
    PageResponse,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTORS
from decoders.vtd.faults import FaultRecordRegister
from harness.findings import Finding, StepTuple
from harness.memory import PAGE_SIZE
from harness.model.config import UnitConfig
from harness.model.dialects import dialect_named
from harness.model.latitude import fetch, keep
from harness.model.registers import touches
from harness.model.unit import VtdUnit
from harness.qemu.vtd_copy import VtdCopy
from harness.targets.base import Counters
from harness.targets.qemu_tally import Tally
from harness.targets.qemu_vtd_access import (
    RECORDED,
    Shown,
    Way,
    alike,
    carried_out,
    way_of,
)
from harness.targets.qemu_vtd_faults import OtherFaults
from harness.targets.qemu_vtd_queue import QueueJudge
from harness.trace import Block
from harness.trace.codec import decode

_UNTRACED: Final = frozenset(DESCRIPTORS)
"""The model is not asked for descriptors: QEMU does not show when it takes one."""

_PV: Final = layout(FaultRecordRegister)["pv"].mask
"""What it says where there was no PASID is undefined, and there never is one."""

_FIXED: Final = {vtd.CAP.offset: "capability", vtd.ECAP.offset: "extended_capability"}
"""Registers in which the recorded unit may differ, and their names in its configuration."""


_LOOKING: Final = (vtd.CCMD.offset, vtd.GCMD.offset)
"""Registers whose writes make QEMU look at context and PASID entries."""


class VtdReplay:
    """Drive a copy of a recorded unit with a trace; config is that of the recorded unit.

    The copy is reset first; if it is owned it is closed by finish(), or when this is dropped.
    """

    name = "qemu"

    def __init__(self, config: UnitConfig, copy: VtdCopy, owned: bool = True) -> None:
        self._recorded, self._copy = config, copy
        self._end = weakref.finalize(self, copy.close) if owned else None
        own = dialect_named("qemu-{}.{}".format(*copy.version))
        ignored = own.fault_record_ignored | config.dialect.fault_record_ignored | _PV
        self._ignored = ignored | RECORDED
        self.config = replace(
            config,
            capability=copy.capability,
            extended_capability=copy.extended_capability,
            version=copy.unit_version,
            host_address_width=copy.width,
            memory=copy.memory,
            dialect=replace(own, untraced_descriptors=_UNTRACED, fault_record_ignored=ignored),
        )
        self._guide = VtdUnit(self.config)
        self._tally = Tally()
        self._queue = QueueJudge(
            copy, self._guide, self._tally, config.dialect.untraced_descriptors
        )
        self._others = OtherFaults(vtd.fault_record_offset(copy.capability, 0))
        self._shown: FaultRecord | None = None
        self._steps: Sequence[StepTuple] = ()
        """The walk of the last access, as the tables are."""
        self._raised: list[Interrupt] = []
        self._due = False
        """The last access left its fault record, or none, for all to see."""
        copy.clear()
        copy.reset()
        self._state = copy.state()
        self._changed = False
        """Something was done since the last reset."""

    def feed(self, block: Block) -> None:
        """Apply the events of one block."""
        self.apply(decode(block.raw, block.path, block.first_event, block.offset))

    def apply(self, events: Iterable[Event]) -> None:
        """Apply events. Errors: EndedError when QEMU did not survive one."""
        for event in events:
            self._guide.event = self._tally.counters.events
            self._apply(event)
            # What the model has to say of the recording others are asked for.
            self._guide.findings()
            self._guide.emitted()
            self._tally.counters.events += 1

    def finish(self) -> None:
        """Say that the trace has ended; end QEMU if it was started for it alone."""
        self._settle()
        if self._end is not None:
            self._end()

    @property
    def missing(self) -> Collection[int]:
        """Return the sources at which the machine has no device."""
        return self._copy.missing

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of the QEMU that runs."""
        return self._copy.version

    def counters(self) -> Counters:
        """Return the counts so far."""
        return self._tally.counters

    def findings(self) -> list[Finding]:
        """Return the findings so far."""
        return self._tally.kept.findings

    # -- events ------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        tally, counters = self._tally, self._tally.counters
        match event:
            case Store(address, size, value):
                self._store(address, value.to_bytes(size, "little"))
            case Snapshot(address, _, _, data):
                self._store(address, data.ljust(PAGE_SIZE, b"\0"))
            case Release(address):
                self._copy.release(address)
            case RegWrite():
                self._register_write(event)
            case RegRead(value=int()):
                self._register_read(event)
            case Access():
                self._access(event)
            case FaultRecord():
                counters.fault_records += 1
                self._fault_record(event)
            case Descriptor():
                counters.descriptors += 1
                self._queue.descriptor(event)
            case StatusWrite():
                counters.status_writes += 1
                self._queue.status_write(event)
            case Interrupt():
                counters.interrupts += 1
                self._interrupt(event)
            case InterruptRequest(outcome=outcome) if outcome is not None:
                counters.interrupt_requests += 1
                tally.unjudged()
                self._not_done(isinstance(outcome, Fault))
            case PageRequestRecord() | PageResponse() | DeviceTlbMessage():
                counters.device_messages += 1
                tally.unjudged()
            case PageRequest():
                counters.page_requests += 1
                self._not_done(True)
            case Reset():
                self._reset()
            case Gap():
                self._queue.clear()
                self._raised = []
                tally.lost = True
            case _:
                pass

    def _settle(self) -> None:
        """Report what QEMU did and the recording lacks."""
        self._queue.settle()
        for raised in self._raised if not self._others.interrupts else ():
            self._tally.found("interrupt", None, raised)
        self._raised = []

    def _interrupt(self, event: Interrupt) -> None:
        """Compare an interrupt of the unit itself."""
        if self._tally.lost or (self._others.interrupts and event not in self._raised):
            self._tally.unjudged()
        elif event in self._raised:
            self._raised.remove(event)
            self._tally.agreed()
        else:
            self._tally.found("interrupt", event, *self._raised[:1])
            del self._raised[:1]

    def _reset(self) -> None:
        self._settle()
        if self._changed:
            self._copy.reset()
        self._changed = False
        self._guide.reset()
        self._state = self._copy.state()
        self._others.reset()
        self._tally.lost = self._due = False

    def _not_done(self, faulted: bool) -> None:
        """Take note of something that may have faulted when it was recorded."""
        self._due = False
        if faulted:
            self._others.came(self._control)

    def _store(self, address: int, data: bytes) -> None:
        if not self._copy.is_ram(address):
            return  # is lost; the model cannot read it, either
        self._queue.stored(address)
        self._copy.store(address, data)
        self._guide.memory.write(address, data, self._tally.counters.events)

    def _register_write(self, event: RegWrite) -> None:
        guide = self._guide
        self._settle()
        self._due = False
        guide.write_register(event.offset, event.size, event.value)
        expected = [seen for seen in guide.emitted() if isinstance(seen, StatusWrite)]
        self._queue.before(expected)
        head = self._state.head
        self._changed = True
        self._state = self._copy.write_register(event.offset, event.size, event.value)
        self._others.written(event, self._state.status, self._control)
        if self._tally.lost:
            self._queue.clear()
            return
        self._raised.extend(self._state.interrupts)
        self._queue.after(head, self._state.head)
        if event.offset in _LOOKING or self._queue.looks_again():
            for source in self._copy.sources:
                fetch(guide, source)
            # Tables that were looked at may be pages that nothing was stored to.
            self._copy.forget(self._copy.strayed())
        for subject, register, now in (
            ("queue-head", vtd.IQH, self._state.head),
            ("fault-status", vtd.FSTS, self._state.status),
        ):
            expected_now = guide.registers.load(register)
            if expected_now != now:
                self._tally.found(subject, expected_now, now)
                guide.registers.poke(register, now)

    def _register_read(self, event: RegRead) -> None:
        assert event.value is not None
        self._tally.counters.register_reads += 1
        offset, size = event.offset, event.size
        now = self._copy.read_register(offset, size)
        if now is not None:
            self._others.read(event, now)
        if self._tally.lost or now is None or self._others.reaches(event):
            self._tally.unjudged()
            return
        ignored = self._guide.faults.undefined(offset, size)
        for at, name in _FIXED.items():
            if touches(offset, size, at, vtd.CAP.size):
                accepted = getattr(self._recorded, name) ^ getattr(self.config, name)
                shift = 8 * (offset - at)
                ignored |= accepted >> shift if shift >= 0 else accepted << -shift
        if (now ^ event.value) & ~ignored:
            self._tally.found("register", event.value, now)
        else:
            self._tally.agreed()

    @property
    def _control(self) -> int:
        """Return FECTL."""
        return self._guide.registers.load(vtd.FECTL)

    # -- accesses ----------------------------------------------------------------------------

    def _access(self, event: Access) -> None:
        tally, recorded = self._tally, event.outcome
        tally.counters.translations += isinstance(recorded, Translation)
        tally.counters.faults += isinstance(recorded, Fault)
        way = None if tally.lost else way_of(event, self._copy, self._guide)
        if way is None:
            tally.counters.unjudged += recorded is not None
            self._not_done(isinstance(recorded, Fault))
            return
        self._changed = True
        self._steps = way.permitted[0].steps
        shown = carried_out(event, way, self._state, self._copy)
        self._state = shown.state
        self._raised.extend(shown.state.interrupts)
        may_be = self._judge(event, shown, way)
        taken = shown.outcome
        if taken is None:
            taken = (way.fault if shown.hidden else None) or way.permitted[0].outcome
        self._guide.access(event.sid, None, event.iova, way.kind, taken)
        for one in way.permitted:
            # What a stale entry gave may be cached now.
            fits = one.cache and one.domain >= 0 and one.steps
            if fits and alike(taken, one.outcome, event.iova):
                keep(self._guide, event.sid, event.iova, one)
        faults = isinstance(taken, Fault), isinstance(recorded, Fault)
        if faults[0] != faults[1] or (faults[0] and self._others.pending):
            self._others.came(self._control)
        self._shown = shown.record
        # Where another thing was permitted, and happened, it has another record.
        self._due = not shown.hidden and alike(recorded, taken, event.iova)
        self._compare_record(may_be)

    def _compare_record(self, report: bool) -> None:
        """Compare the record that a fault has left with what the model expects."""
        shown = self._shown
        expected = [one for one in self._guide.emitted() if isinstance(one, FaultRecord)]
        for one in expected:
            if report and (shown is None or not self._same_record(one, shown)):
                now = () if shown is None else (shown,)
                self._tally.found("fault-record", one, *now, steps=self._steps)
        if shown is not None and not expected:
            if report:
                self._tally.found("fault-record", None, shown, steps=self._steps)
            self._guide.adopt(shown)
        if report and self._guide.registers.load(vtd.FSTS) != self._state.status:
            expected_now = self._guide.registers.load(vtd.FSTS)
            self._tally.found("fault-status", expected_now, self._state.status)
        self._guide.registers.poke(vtd.FSTS, self._state.status)

    def _judge(self, event: Access, shown: Shown, way: Way) -> bool:
        """Compare what became of an access; say whether that was as it may be."""
        recorded, iova, seen = event.outcome, event.iova, shown.outcome
        fits = recorded is not None and way.permits(recorded, iova)
        if seen is None and shown.hidden:
            # Nothing has landed, and the reason does not show.
            if not isinstance(recorded, Translation) or (fits and way.fault is not None):
                self._tally.counters.unjudged += recorded is not None
                return True
        elif seen is not None and recorded is not None:
            if alike(seen, recorded, iova) or (fits and way.permits(seen, iova)):
                self._tally.agreed()
                return True
        elif seen is not None and way.permits(seen, iova):
            return True
        expected = way.permitted[0].outcome if recorded is None else recorded
        now = () if seen is None else (seen,)
        self._tally.found("access", expected, *now, steps=self._steps)
        return False

    def _fault_record(self, event: FaultRecord) -> None:
        shown = self._shown
        if self._tally.lost or not self._due:
            self._tally.unjudged()
            self._others.recorded(self._state.status, self._control)
        elif shown is not None and self._same_record(event, shown):
            self._tally.agreed()
            self._others.same_record()
        else:
            now = () if shown is None else (shown,)
            self._tally.found("fault-record", event, *now, steps=self._steps)
        self._due = False

    def _same_record(self, left: FaultRecord, right: FaultRecord) -> bool:
        page = -PAGE_SIZE
        same = (left.index, left.low & page) == (right.index, right.low & page)
        return same and not (left.high ^ right.high) & ~self._ignored
