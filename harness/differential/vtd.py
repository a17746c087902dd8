"""Run made-up sequences on a real VT-d unit, and have targets judge every answer.

What the unit did becomes events, as if it had been recorded: the model follows it step by step and
says what an access that shows nothing may have been. The native core is compared with the model
after each event; then both judge the finished sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from random import Random
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    DeviceTlbMessage,
    Event,
    Fault,
    FaultRecord,
    Interrupt,
    InterruptRequest,
    Outcome,
    RegRead,
    Reset,
    StatusWrite,
    Translation,
)
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import FSTS, FaultStatus
from harness.deviations_vtd import SEVERAL, crashes_of, explanation, without_each
from harness.differential.deviation import Situation, VtdDeviation
from harness.differential.device_tlb import (
    OF_UPDATES,
    DeviceMessages,
    answered,
    overstated,
    translated,
)
from harness.differential.follow import Followers, found_by_one, judged
from harness.differential.interrupts import deliver, written
from harness.differential.machine import scene, unit_config
from harness.differential.remains import Remains, record_of
from harness.differential.situation import situation
from harness.differential.teller import Teller
from harness.errors import HarnessError
from harness.findings import Finding, FindingKind
from harness.generate.vtd import Generator
from harness.generate.vtd_steps import DmaChoice, Step
from harness.model.dialects import Dialect, switches_of
from harness.model.interrupts import INTERRUPT_PAGE, NO_SOURCE
from harness.native import available
from harness.oracle import compatible
from harness.qemu.process import LOST
from harness.qemu.vtd import MEMORY, Dma, Seen, VtdQemu
from harness.targets.model import ModelReplay
from harness.trace import Header, UnitInfo

MODEL: Final = "model"
NATIVE: Final = "native"

JUDGED: Final = (FindingKind.DIVERGENCE, FindingKind.STALE_AFTER_INVALIDATION)
"""Findings about the unit; the others are about software, which is made up."""

ADOPTED: Final = frozenset(
    ("access", "fault-record", "interrupt-request", "interrupt", "device-tlb", *OF_UPDATES)
)
"""What a judge takes over as it was, and goes on."""

_INTERRUPT_SHIFT: Final = 20
_RECORD: Final = layout(FaultRecordRegister)
_PFO: Final = layout(FaultStatus)["pfo"].mask
_BY_READ: Final = _RECORD["t1"].mask
_SORTS: Final = {
    Attribute(0): "",
    Attribute.TRANSLATION_REQUEST: "asked for: ",
    Attribute.TRANSLATED: "translated: ",
}


@dataclass(frozen=True, slots=True)
class Divergence:
    """Hold what a target, the judge, did not accept in a sequence; events end where it did not."""

    seed: int
    step: int
    judge: str
    finding: Finding
    facts: Situation
    events: list[Event]
    beside: tuple[Finding, ...] = ()
    """What else was not accepted in the same step."""


@dataclass(slots=True)
class Totals:
    """Count what was run; seen counts steps by label and accesses by outcome."""

    sequences: int = 0
    steps: int = 0
    accesses: int = 0
    requests: int = 0
    records: int = 0
    seen: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Done:
    """Hold what came of a step, and the status writes that have happened."""

    seen: Seen
    waits: list[StatusWrite]


class Differential:
    """Run sequences on one QEMU.

    dialect is the one that the unit is held to, if not its own. Crashes of these ids are avoided:
    unless given, those that are known where the unit is held to its own.
    """

    def __init__(
        self,
        qemu: VtdQemu,
        judges: Sequence[str],
        length: int,
        own: Dialect,
        dialect: Dialect,
        avoided: Collection[str] | None = None,
    ) -> None:
        self.qemu, self._length = qemu, length
        self._others = [name for name in judges if name != MODEL]
        self._own = own
        self.config = unit_config(qemu, own)
        self._remains = Remains(qemu, self.config.dialect)
        self._strict = None if dialect == own else unit_config(qemu, dialect)
        if avoided is None:
            known = crashes_of(qemu.version) if dialect == own else ()
            avoided = [crash.id for crash in known]
        self.scene = scene(qemu, self.config, avoided)
        self._sids = [device.sid for device in self.scene.devices]
        self._messages = DeviceMessages(qemu.device_tlb)
        self.totals = Totals()
        self.events: list[Event] = []
        self.began = 0
        """How many events there were before the last step."""
        info = UnitInfo(
            version=qemu.unit_version,
            capability=qemu.capability,
            extended_capability=qemu.extended_capability,
            host_address_width=qemu.width,
        )
        version = ".".join(map(str, qemu.version))
        self.header = Header(
            dialect=dialect.name, units=(info,), memory=MEMORY,
            switches=switches_of((self._strict or self.config).dialect),
            source={"qemu": version, "machine": qemu.name, "device": qemu.option},
        )  # fmt: skip

    def made(self, seed: int) -> tuple[list[Step], int]:
        """Return the sequence of a seed, and the bytes of a descriptor in it."""
        generator = Generator(self.scene, Random(seed))
        return generator.sequence(self._length), generator.slot

    def run(
        self, seed: int, steps: Sequence[Step] | None = None, slot: int | None = None
    ) -> list[Divergence]:
        """Run a sequence, that of the seed unless given, and return what was not accepted.

        slot is the bytes of a descriptor in it, if it does not come from the seed.

        It ends where the judge does not know any more which state the unit is in. `events` is what
        happened so far. Errors: EndedError when the unit did not survive, HungError when it does
        not answer.
        """
        self.totals.sequences += 1
        if steps is None or slot is None:
            made, slot = self.made(seed)
            steps = made if steps is None else steps
        guide = ModelReplay(self.config)
        judge = guide if self._strict is None else ModelReplay(self._strict)
        models = [guide] if judge is guide else [guide, judge]
        teller = Teller(models, self._sids, slot, self._messages)
        events = self.events = teller.events
        pair = Followers(self._strict or self.config) if NATIVE in self._others else None
        self.qemu.reset()
        teller.tell(Reset())
        found: list[Divergence] = []
        looked = 0
        for number, (step, seen) in enumerate(self._seen(steps)):
            first = self.began = len(events)
            teller.ways.clear()
            self._step(step, seen, guide, teller)
            self._count(step, events[first:])
            apart = None if pair is None else pair.apart(events)
            if apart is not None:
                return [*found, Divergence(seed, number, NATIVE, *apart, events[:])]
            for model in teller.models:
                model.finish()
            findings = judge.findings()
            fresh = [one for one in findings[looked:] if one.kind in JUDGED]
            fresh = [*teller.noticed, *fresh]
            teller.noticed.clear()
            looked = len(findings)
            if fresh:
                for one in fresh:
                    teller.use.led(one.observed)
                # What follows in the same step follows from it.
                facts = situation(fresh[0], events, judge, teller.history, teller.ways)
                beside = tuple(fresh[1:])
                found.append(Divergence(seed, number, MODEL, fresh[0], facts, events[:], beside))
                if any(one.subject not in ADOPTED for one in fresh):
                    return found
        number = len(steps) - 1
        for differing in self._remains.tables(guide, teller.use):
            facts = situation(differing, events, judge, teller.history, {}, teller.use)
            found.append(Divergence(seed, number, MODEL, differing, facts, events))
        apart = None if pair is None else pair.apart(events, ended=True)
        if apart is not None:
            found.append(Divergence(seed, number, NATIVE, *apart, events))
        for name in self._others:
            for finding in found_by_one(name, events, self._strict or self.config):
                facts = Situation("disagreement", name, frozenset(), frozenset())
                found.append(Divergence(seed, number, name, finding, facts, events))
        return found

    def deviation(self, found: Divergence) -> VtdDeviation | None:
        """Return the known deviation that a divergence goes back to."""
        if found.judge != MODEL:
            return None
        known = explanation(found.facts, self.qemu.version)
        if self._strict is None:
            return known
        # What the whole dialect has right is for one of its members to explain.
        right = not self._finds(self._own, found)
        member = self._member(found) if right else None
        return member or known or (SEVERAL if right else None)

    def _member(self, found: Divergence) -> VtdDeviation | None:
        """Return the first member of the dialect without which a unit would not have done this."""
        rows = without_each(self._own)
        return next((row for row, dialect in rows if self._finds(dialect, found)), None)

    def _finds(self, dialect: Dialect, found: Divergence) -> bool:
        """Say whether a unit that follows a dialect would not have done this."""
        name = "native" if available() else MODEL
        same = found.finding.event, found.finding.subject
        return any(
            finding.kind in JUDGED and (finding.event, finding.subject) == same
            for finding in judged(name, found.events, unit_config(self.qemu, dialect))
        )

    def _count(self, step: Step, done: list[Event]) -> None:
        totals = self.totals
        totals.steps += 1
        totals.seen[step.label] += 1
        for event in done:
            if isinstance(event, Access):
                totals.accesses += 1
                outcome = type(event.outcome).__name__.lower()
                kind = f"{event.kind.name.lower()} {outcome}"
                totals.seen[f"{_SORTS[event.attributes]}{kind}"] += 1
            elif isinstance(event, DeviceTlbMessage):
                totals.seen["message to a device"] += 1
            elif isinstance(event, InterruptRequest):
                totals.requests += 1
                totals.seen[f"message {type(event.outcome).__name__.lower()}"] += 1
            elif isinstance(event, FaultRecord):
                totals.records += 1
            elif isinstance(event, Interrupt):
                totals.seen["interrupt of the unit"] += 1

    # -- one step ----------------------------------------------------------------------------

    def _seen(self, steps: Sequence[Step]) -> Iterator[tuple[Step, _Done]]:
        """Do steps; yield each with what came of it while QEMU does the next one."""
        if steps:
            self._begin(steps[0])
        for step, following in zip_longest(steps, steps[1:]):
            try:
                seen = self.qemu.end()
            except LOST:
                self.events += self._asked(step)
                raise
            waits = [
                StatusWrite(address, value)
                for address, value in step.waits
                if self.qemu.memory(address, 4) == value.to_bytes(4, "little")
            ]
            lost = self._lost(following)
            yield step, _Done(seen, waits)
            if following is not None and lost is not None:
                self.events += self._asked(following)
                raise lost

    def _lost(self, following: Step | None) -> HarnessError | None:
        """Begin a step, if there is one; return why that cannot be."""
        try:
            if following is not None:
                self._begin(following)
        except LOST as error:
            return error
        return None

    def _asked(self, step: Step) -> list[Event]:
        """Return what was asked of a unit that did not survive it."""
        dma, msi = self._dma(step), step.msi
        asked: list[Event] = [*step.stores, *step.writes]
        if dma is not None:
            asked.append(Access(self.qemu.sid(dma.device), None, dma.iova, dma.kind, None))
        if msi is not None:
            sid = self.scene.senders[msi.sender]
            asked.append(InterruptRequest(sid, msi.address, msi.data, None))
        return asked

    def _begin(self, step: Step) -> None:
        self.qemu.begin(step.stores, step.writes, step.reads, self._dma(step), step.msi)

    def _dma(self, step: Step) -> Dma | None:
        choice = step.dma
        if choice is None:
            return None
        return Dma(choice.device, choice.kind, self._aligned(choice))

    def _step(self, step: Step, done: _Done, guide: ModelReplay, teller: Teller) -> None:
        """Tell what happened in a step."""
        dma, seen = self._dma(step), done.seen
        teller.pending = [*done.waits]
        teller.pending += [event for event in seen.said if isinstance(event, Interrupt)]
        teller.tell(*step.stores)
        teller.stores(step.stores)
        self._messages.told = seen.told
        for write in step.writes:
            teller.write(write)
        teller.tell(*self._messages.rest())
        teller.rest(StatusWrite)
        for (offset, size), value in zip(step.reads, seen.reads, strict=True):
            teller.tell(RegRead(offset, size, value))
        teller.tell(RegRead(FSTS.offset, FSTS.size, seen.before))
        if dma is not None:
            self._accesses(dma, seen, guide, teller)
        if step.msi is not None:
            sid = self.scene.senders[step.msi.sender]
            record, hidden = record_of(seen, sid)
            deliver(step.msi, sid, seen.said, record, hidden, guide, teller)
        teller.rest(Interrupt)
        if dma is not None or step.msi is not None:
            teller.tell(RegRead(FSTS.offset, FSTS.size, seen.status))

    def _accesses(self, dma: Dma, seen: Seen, guide: ModelReplay, teller: Teller) -> None:
        """Tell of the accesses of a DMA operation, from what it left behind."""
        sid, asked = self.qemu.sid(dma.device), seen.asked
        if asked is not None and asked.used is not None:
            teller.tell(translated(sid, dma, asked.used))
            return
        if dma.iova >> _INTERRUPT_SHIFT == INTERRUPT_PAGE:
            # QEMU knows no source of what DMA writes there.
            named = None if self._strict is None else sid
            recorded = record_of(seen, NO_SOURCE)
            written(dma.iova, sid, named, seen.said, recorded, guide, teller)
            return
        record, hidden = record_of(seen, sid)
        # An overflow says that one did fault.
        overflowed = bool(seen.status & _PFO and not seen.before & _PFO)
        both = self.qemu.devices[dma.device].model == "i82559er"
        for kind in (AccessKind.READ, AccessKind.WRITE) if both else (dma.kind,):
            access = Access(sid, None, dma.iova, kind, None)
            if asked is not None:
                access = replace(access, attributes=Attribute.TRANSLATION_REQUEST)
            teller.access(access)
            outcome: Outcome
            if asked is not None and asked.answer is not None:
                given = answered(dma.iova, asked.answer)
                ways = teller.ways[len(teller.events)]
                followed = any(compatible(given, way.outcome, dma.iova) for way in ways)
                if followed:
                    teller.noticed += overstated(guide, access, asked.answer, len(teller.events))
                teller.tell(replace(access, outcome=given))
                # What no model follows would be called stale when it is used.
                if not followed or not guide.unit.translator.enabled:
                    self._messages.drop(asked.answer)
                continue
            if kind is AccessKind.WRITE and seen.landed:
                outcome = Translation(seen.landed[0][0], 0)
                teller.tell(replace(access, outcome=outcome))
                continue
            by = AccessKind.READ if record and record.high & _BY_READ else AccessKind.WRITE
            if record is not None and by is kind:
                outcome = Fault(_RECORD["fr"].get((record.low, record.high)))
                teller.tell(replace(access, outcome=outcome), record)
                record, hidden = None, True
                continue
            ways = teller.ways[len(teller.events)]
            outcome = self._remains.unseen(guide, access, ways, hidden, overflowed)
            overflowed = overflowed and not isinstance(outcome, Fault)
            if asked is not None and isinstance(outcome, Translation):
                # The device got nothing that it could use.
                outcome = Translation(outcome.address | dma.iova & outcome.mask, 0)
            teller.guess(replace(access, outcome=outcome))
        if record is not None:
            teller.tell(record)

    def _aligned(self, choice: DmaChoice) -> int:
        size = self.scene.devices[choice.device].write_alignment
        return choice.iova - choice.iova % size
