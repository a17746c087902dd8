"""Follow a VT-d unit through a trace and judge what software does to it."""

from __future__ import annotations

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Clock,
    Descriptor,
    Event,
    Fault,
    FaultRecord,
    Gap,
    Observation,
    Outcome,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Snapshot,
    Store,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTOR_SIZES
from decoders.vtd.registers import InvalidationQueueAddress
from harness.check.commands import Commands
from harness.check.coverage import NEVER, Coverage, moment
from harness.check.device_tlb import DeviceTlbs
from harness.check.queue import UNREADABLE, descriptor_faults, tail_faults
from harness.check.rules import Notebook
from harness.check.stale import Stale
from harness.check.tables import Tables
from harness.findings import Finding, FindingKind
from harness.memory import PAGE_SIZE
from harness.model.config import UnitConfig
from harness.model.queue import DESCRIPTORS_PER_EVENT, QUEUE_UNIT, DescriptorBudgetError
from harness.model.registers import touches
from harness.model.translate import ABORTED, Candidate, Fresh, Request
from harness.model.unit import Verdict, VtdUnit
from harness.targets.model import ModelReplay

IQA = layout(InvalidationQueueAddress)


class _Unit(VtdUnit):
    """Show each request to the rules before it fills the caches."""

    def __init__(self, config: UnitConfig, watch: VtdWatch) -> None:
        super().__init__(config)
        self._watch = watch

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        request = Request(sid, pasid, iova, kind, attributes=attributes)
        permitted, fresh = self.translator.permitted(request)
        if self.translator.enabled:
            self._watch.judge(request, permitted, fresh)
        self.translator.adopt(request, fresh, self.event)
        taken = permitted[0].outcome if recorded is None else recorded
        if isinstance(taken, Fault) and taken != ABORTED:
            disable = next((c.fault_disable for c in permitted if c.outcome == taken), False)
            self.faults.record(request, taken.reason, disable)
        return Verdict(tuple(permitted), taken)

    def findings(self) -> list[Finding]:
        for finding in super().findings():
            if finding.kind is FindingKind.PAGE_REUSE:
                self._watch.reused(finding)
        return []

    def adopt(self, seen: Observation) -> None:
        if isinstance(seen, Descriptor) and not self.queue.stopped:
            self._watch.taken(seen.words)
        super().adopt(seen)


class VtdWatch(ModelReplay):
    """Replay a trace on a unit; what the recorded unit did differently is taken over."""

    def __init__(self, config: UnitConfig, notes: Notebook) -> None:
        super().__init__(config)
        unit = _Unit(config, self)
        self.unit: VtdUnit = unit
        self.notes = notes
        self._commands = Commands(unit, notes)
        self._tables = Tables(unit, notes)
        self._stale = Stale(unit, notes)
        self._devices = DeviceTlbs(unit, notes)
        self._charged = 0
        self._restart()

    def _restart(self) -> None:
        self._coverage = Coverage(self.unit.config.dialect.device_selective_ignores_domain)
        self._ring = (0, 0, DESCRIPTOR_SIZES[0])  # base, size, bytes of a descriptor
        self._head = self._tail = self._taken = 0
        self._stopped_at = NEVER
        self._quiet = False

    def _report(self, finding: Finding) -> None:
        """Keep nothing: what the unit did wrong is not asked for."""

    # -- events --------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Apply one event and judge it."""
        number = self._counters.events
        self._taken = 0
        if self._lost:
            super().apply(event)
            if isinstance(event, Reset):
                self._reset()
            return
        match event:
            case Store():
                self._store(event, number)
            case RegWrite():
                self._tables.settle()
                self._write(event, number)
            case _:
                self._other(event, number)

    def _other(self, event: Event, number: int) -> None:
        match event:
            case Snapshot():
                super().apply(event)
                self._tables.snapshot(event, number)
                if any(event.data):
                    self._stale.written(event.address, number)
                return
            case Release(address):
                self._tables.release(address & -PAGE_SIZE)
            case RegRead():
                self._commands.read(event)
            case FaultRecord():
                self._commands.filled(event.index, number)
        if not isinstance(event, Observation | Release | Clock):
            self._tables.settle()
        super().apply(event)
        if isinstance(event, Reset | Gap):
            self._reset()
        elif isinstance(event, Descriptor):
            self._drain(number)  # an adopted one may have set the queue going again

    def _reset(self) -> None:
        for part in (self._commands, self._tables, self._stale, self._devices):
            part.reset()
        self._restart()

    def _store(self, event: Store, number: int) -> None:
        found = self._tables.read(event)
        super().apply(event)
        if event.value:
            self._stale.written(event.address & -PAGE_SIZE, number)
        if found is None:
            return
        change = self._tables.stored(found, number)
        if change is not None:
            self._stale.changed(change, number)

    def _write(self, event: RegWrite, number: int) -> None:
        unit, registers = self.unit, self.unit.registers
        enabled, translating = unit.queue.enabled, unit.translator.enabled
        root = unit.translator.lookup.root_pointer
        stopped = unit.queue.stopped
        self._commands.before(event, number)
        super().apply(event)
        if unit.queue.enabled and not enabled:
            self._start_queue()
        elif not unit.queue.enabled:
            self._head = self._tail = 0
            self._coverage.unconfirmed = NEVER
        if unit.queue.enabled and touches(event.offset, event.size, vtd.IQT.offset):
            self._new_tail(event, number)
        self._drain(number, stopped)
        self._commands.after(event, number, self._coverage)
        self._stale.invalidated(self._coverage)
        began = unit.translator.enabled and not translating
        if began or root != unit.translator.lookup.root_pointer:
            self._tables.examine()
        if not unit.queue.enabled:
            self._head = registers.load(vtd.IQH)

    # -- the queue -----------------------------------------------------------------------------

    def _start_queue(self) -> None:
        words = (self.unit.registers.load(vtd.IQA),)
        size = QUEUE_UNIT << IQA["qs"].get(words)
        self._ring = IQA["iqa"].address(words), size, DESCRIPTOR_SIZES[IQA["dw"].get(words)]
        self._head = 0
        self._tail = self.unit.registers.load(vtd.IQT)
        # What lies before a tail that should have been 0 are no descriptors.
        self._quiet = bool(self._tail)

    def _new_tail(self, event: RegWrite, number: int) -> None:
        _, size, step = self._ring
        tail = self.unit.registers.load(vtd.IQT)
        if event.offset == vtd.IQT.offset:
            tail |= event.value & 0xF  # reserved: no register keeps them
        for rule, detail in tail_faults(tail, self._tail, self._head, size, step):
            self.notes.note(rule, number, detail)
            self._quiet = True
        self._tail = tail

    def _drain(self, number: int, stopped: bool = False) -> None:
        """Look at the descriptors that the unit has taken since the last time."""
        unit = self.unit
        if not unit.queue.enabled:
            return
        base, size, step = self._ring
        head = unit.registers.load(vtd.IQH)
        if head >= size or head % step:
            # A fault record that CAP.FRO places over IQH can leave anything there.
            self._head = head % size & -step
            return
        while self._head != head:
            self._charge()
            words = self._slot(base + self._head, step)
            # Where the queue stopped has been judged; the recorded unit went on.
            if not self._quiet and words is not None and self._head != self._stopped_at:
                self._judge_descriptor(words, number)
            self._stopped_at = NEVER
            if words is not None:
                self.taken(words)
            self._head = (self._head + step) % size
        self._head = head
        if unit.queue.stopped and not stopped and not self._quiet:
            words = self._slot(base + head, step)
            if words is None:
                self.notes.note(UNREADABLE, number, f"The ring begins at {base:#x}.")
            elif head != self._tail:
                self._judge_descriptor(words, number)
            self._stopped_at = head
        if not unit.queue.stopped:
            self._quiet = False

    def _charge(self) -> None:
        self._charged += 1
        budget = self.unit.config.descriptor_budget
        if self._charged > budget + DESCRIPTORS_PER_EVENT * self._counters.events:
            raise DescriptorBudgetError(
                f"the trace makes the unit execute more than {budget} invalidation descriptors "
                f"and {DESCRIPTORS_PER_EVENT} for each event; raise --descriptor-budget if it is "
                "yours"
            )

    def _slot(self, address: int, step: int) -> tuple[int, ...] | None:
        words = [self.unit.memory.quadword(at) for at in range(address, address + step, 8)]
        known = tuple(word for word in words if word is not None)
        return known if len(known) == len(words) else None

    def _judge_descriptor(self, words: tuple[int, ...], number: int) -> None:
        found = next(descriptor_faults(words, self.unit.config), None)
        if found is not None:
            rule, detail = found
            slot = f" It is descriptor {self._taken} of this event."
            self.notes.note(rule, number, detail + slot, cause=(number, self._taken))

    # -- what the unit shows -------------------------------------------------------------------

    def taken(self, words: tuple[int, ...]) -> None:
        """Learn that the unit took a descriptor."""
        self._taken += 1
        when = moment(self.unit.event, self._taken)
        self._coverage.descriptor(when, words)
        self._stale.invalidated(self._coverage)
        self._devices.invalidated(words, when, self._coverage)

    def reused(self, finding: Finding) -> None:
        """Take over that a page is written again that a cache may lead to."""
        if not self.unit.queue.stopped:
            self._stale.reused(finding)

    def judge(self, request: Request, permitted: list[Candidate], fresh: Fresh) -> None:
        """Judge a request that the unit translates."""
        # A queue that has stopped is a mistake of its own; what it did not do follows from it.
        if self._lost or self.unit.queue.stopped:
            return
        found = self._stale.access(request, permitted, fresh, self._coverage)
        self._devices.access(request, permitted[0], fresh, self._coverage, found)
