"""One VT-d remapping unit: registers, queue, caches, faults and the requests it answers."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Delivery,
    Descriptor,
    DeviceTlbMessage,
    Fault,
    FaultRecord,
    Interrupt,
    Observation,
    Outcome,
    PageRequest,
    PageRequestRecord,
    Posted,
    StatusWrite,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.registers import (
    LEVEL_COMMANDS,
    ContextCommand,
    GlobalCommand,
    IotlbRegister,
    Iva,
    RootTableAddress,
    iotlb_offset,
    iva_offset,
)
from harness.findings import Finding, FindingKind
from harness.memory import PAGE_SIZE, Memory
from harness.model.caches import CachedStructure, Dropped, Tag
from harness.model.config import UnitConfig
from harness.model.device_tlb import DeviceTlbs, is_translation_request
from harness.model.faults import FaultRecorder
from harness.model.interrupts import (
    INDEX_MASK,
    NO_SOURCE,
    InterruptMessage,
    Remapper,
    Remapping,
)
from harness.model.page_requests import PageRequestQueue
from harness.model.queue import ICS, InvalidationQueue
from harness.model.registers import RegisterFile, touches
from harness.model.stages import ADDRESS_MASK, PRESENT, PagingRoot
from harness.model.translate import ABORTED, Candidate, Request, Translator
from harness.model.virtual_commands import VirtualCommands
from harness.oracle import compatible, judge, judge_interrupt

GCMD = layout(GlobalCommand)
RTADDR = layout(RootTableAddress)
CCMD = layout(ContextCommand)
IOTLB = layout(IotlbRegister)
IVA = layout(Iva)
PAGE_SELECTIVE = 3
"""Granularity code of IOTLB and its answer."""


TAGS_KEPT = 4
"""Tags remembered per source id and PASID, to tell a unit that still uses one it left."""
SOURCES_LIMIT = 1 << 16
"""Sources whose tags are remembered; one more and all are forgotten."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The permitted outcomes of an access, fresh first, and the one that was taken."""

    permitted: tuple[Candidate, ...]
    taken: Outcome


@dataclass(frozen=True, slots=True)
class InterruptVerdict:
    """The permitted outcomes of an interrupt request, fresh first, and the one that was taken."""

    permitted: tuple[Remapping, ...]
    taken: Delivery


class VtdUnit:
    """Answer as a VT-d unit would; `event` is the number the next findings are reported under."""

    name = "model"

    def __init__(self, config: UnitConfig):
        self.config = config
        self.event = 0
        self.memory = Memory(config.memory, config.page_budget)
        self.registers = RegisterFile(
            config.version,
            config.capability,
            config.extended_capability,
            config.virtual_commands,
            () if config.dialect.upper_event_addresses else (vtd.FEUADDR, vtd.IEUADDR),
        )
        self.virtual_commands = VirtualCommands(config, self.registers)
        self.translator = Translator(config, self.memory)
        self.caches = self.translator.caches
        self.remapper = Remapper(config, self.memory)
        self._emitted: list[Observation] = []
        self._findings: list[Finding] = []
        self._reused: set[int] = set()
        self._tags: dict[tuple[int, int], list[Tag]] = {}
        self.faults = FaultRecorder(config, self.registers, self._emitted.append)
        self.device_tlbs = DeviceTlbs(config, self.translator, self._emitted.append)
        self.page_requests = PageRequestQueue(
            config, self.memory, self.registers, self.translator, self.faults, self._emitted.append
        )
        self.queue = InvalidationQueue(
            config,
            self.memory,
            self.registers,
            self.caches,
            self.remapper.cache,
            self.device_tlbs,
            self.page_requests,
            self.faults,
            self._emitted.append,
            lambda: self.event,
        )

    # -- what replay and tests call ----------------------------------------------------------

    def emitted(self) -> list[Observation]:
        """Return and forget what the unit was seen doing since the last call."""
        seen = self._emitted[:]
        self._emitted.clear()
        return seen

    def findings(self) -> list[Finding]:
        """Return and forget the findings since the last call."""
        found = self._findings[:]
        self._findings.clear()
        return found

    def reset(self) -> None:
        """Return to power-on state; guest memory survives."""
        self.registers.reset()
        self.queue.reset()
        self.faults.reset()
        self.caches.drop_all(self.event)
        self.remapper.reset(self.event)
        self.device_tlbs.reset()
        self.virtual_commands.reset()
        self.translator.enabled = False
        self.translator.lookup.root_pointer = 0
        self.translator.lookup.mode = 0
        self._tags.clear()

    def load(self, address: int, length: int) -> bytes:
        """Return guest memory as the unit sees it."""
        return self.memory.read(address, length)

    def store(self, address: int, size: int, value: int) -> None:
        """Store size little-endian bytes, as software does."""
        data = value.to_bytes(size, "little")
        if value:
            self._check_reuse(address & -PAGE_SIZE, address, data)
        self.memory.write(address, data, self.event)

    def snapshot(self, address: int, data: bytes) -> None:
        """Learn the content of a page."""
        page = data.ljust(PAGE_SIZE, b"\0")
        if page != self.memory.read(address, PAGE_SIZE) and any(page):
            self._check_reuse(address, address, page)
        self.memory.write(address, page, self.event)

    def read_register(self, offset: int, size: int) -> int:
        """Return what software reads from the register page."""
        return self.registers.read(offset, size)

    def adopt_read(self, offset: int, size: int, value: int) -> None:
        """Take over what a recorded register read shows of a choice that the unit was free in."""
        self.virtual_commands.adopt_read(offset, size, value)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """Apply a software write to the register page and what it sets off."""
        was_stopped = self.queue.stopped
        if not self.registers.write(offset, size, value):
            return
        upper_ccmd = vtd.CCMD.offset + 4
        upper_iotlb = iotlb_offset(self.config.extended_capability) + 4
        if touches(offset, size, vtd.GCMD.offset):
            self._command(self.registers.load(vtd.GCMD))
        if touches(offset, size, upper_ccmd):
            self._context_command()
        if touches(offset, size, upper_iotlb):
            self._iotlb_command()
        resumed = was_stopped and not self.queue.stopped
        if touches(offset, size, vtd.IQT.offset):
            self.queue.run()
        self.faults.registers_written(offset, size)
        if resumed and self.config.dialect.resumes_after_queue_error:
            self.queue.run()
        if touches(offset, size, vtd.ICS.offset):
            if not self.registers.field(vtd.ICS, ICS["iwc"]):
                self.queue.completion.withdraw()
        if touches(offset, size, vtd.IECTL.offset):
            self.queue.completion.send_if_unmasked()
        self.page_requests.registers_written(offset, size)
        self.virtual_commands.registers_written(offset, size)

    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        """Answer a DMA request; with a recorded outcome, judge it and take it over."""
        request = Request(sid, pasid, iova, kind, attributes=attributes)
        permitted, fresh = self.translator.permitted(request)
        tags = self._tags_of(sid, pasid, fresh.root)
        taken = permitted[0].outcome
        finding = None
        if recorded is not None:
            dropped = self._forgotten(tags, fresh.root, iova)
            finding = judge(self.event, iova, recorded, permitted, dropped)
            if finding is not None:
                self._findings.append(finding)
            taken = recorded
        if finding is None or finding.kind == FindingKind.UNFLUSHED:
            self.translator.adopt(request, fresh, self.event)
        if isinstance(taken, Fault) and taken != ABORTED:
            # FPD is the one of the entries that gave this fault; one that none gives was recorded.
            disable = next((c.fault_disable for c in permitted if c.outcome == taken), False)
            self.faults.record(request, taken.reason, disable)
        elif isinstance(taken, Translation) and self.translator.enabled:
            agreed = recorded is not None and finding is None
            self._device_tlb(request, taken, permitted, agreed)
        return Verdict(tuple(permitted), taken)

    def page_request(self, request: PageRequest) -> None:
        """Queue what a device asks for, or refuse it."""
        self.page_requests.request(request, self.event)

    def interrupt(
        self, sid: int | None, address: int, data: int, recorded: Delivery | None = None
    ) -> InterruptVerdict:
        """Answer an interrupt request; with a recorded outcome, judge it and take it over."""
        request = InterruptMessage(sid, address, data)
        permitted, fresh, dropped = self.remapper.permitted(request)
        taken = permitted[0].outcome
        finding = None
        if recorded is not None:
            finding = judge_interrupt(self.event, recorded, permitted, dropped)
            if finding is not None:
                self._findings.append(finding)
            taken = recorded
        if finding is None or finding.kind == FindingKind.UNFLUSHED:
            self.remapper.adopt(fresh, self.event)
        if isinstance(taken, Posted):
            notification = self.remapper.post(taken)
            if notification is not None:
                self._emitted.append(notification)
        # What has no recorded reason left no fault record.
        if isinstance(taken, Fault) and taken.reason:
            source = next((one for one in permitted if one.outcome == taken), permitted[0])
            disable = source.fault_disable and source.outcome == taken
            place = (source.index & INDEX_MASK) << 48
            named = NO_SOURCE if sid is None else sid
            record = Request(named, None, place, AccessKind.WRITE)
            self.faults.record(record, taken.reason, disable)
        return InterruptVerdict(tuple(permitted), taken)

    def tags(self, sid: int) -> tuple[Tag, ...]:
        """Return the last tags that requests without PASID were walked under, newest first."""
        return tuple(self._tags.get((sid, -1), ()))

    def remember(self, sid: int, tag: Tag) -> None:
        """Take note that a request without PASID was walked under a tag."""
        self._remembered((sid, -1), tag)

    def adopt(self, seen: Observation) -> None:
        """Take over something the recorded unit did and this one did not."""
        match seen:
            case Descriptor(words):
                self.queue.adopt(words)
            case StatusWrite(address, value):
                self.memory.write(address, value.to_bytes(4, "little"), self.event)
            case FaultRecord():
                self.faults.adopt(seen)
            case PageRequestRecord():
                self.page_requests.adopt(seen, self.event)
            case DeviceTlbMessage():
                self.device_tlbs.drop(seen, self.event)
            case Interrupt():
                pass

    # -- inside ------------------------------------------------------------------------------

    def _device_tlb(
        self, request: Request, taken: Translation, permitted: list[Candidate], agreed: bool
    ) -> None:
        """Follow what a device keeps: it gets a translation, or uses one as was recorded."""
        if is_translation_request(request):
            sources = (one for one in permitted if compatible(taken, one.outcome, request.iova))
            source = next(sources, None)
            if source is not None:
                self.device_tlbs.keep(request, taken, source, self.event)
        elif request.attributes & Attribute.TRANSLATED and agreed:
            found = self.device_tlbs.judge(request, taken, self.event)
            if found is not None:
                self._findings.append(found)

    def _tags_of(self, sid: int, pasid: int | None, root: PagingRoot | None) -> list[Tag]:
        """Return the last tags the requests of a source were walked under, newest first."""
        key = (sid, -1 if pasid is None else pasid)
        if root is None or root.stage is None:
            return self._tags.get(key, [])
        return self._remembered(key, root.tag)

    def _remembered(self, key: tuple[int, int], tag: Tag) -> list[Tag]:
        if key not in self._tags and len(self._tags) >= SOURCES_LIMIT:
            self._tags.clear()
        tags = self._tags.setdefault(key, [])
        if tag in tags:
            tags.remove(tag)
        tags.insert(0, tag)
        del tags[TAGS_KEPT:]
        return tags

    def _forgotten(self, tags: list[Tag], root: PagingRoot | None, iova: int) -> list[Dropped]:
        """Return what covered iova once and may not be used any more.

        That is what invalidations dropped, and what is kept under a tag that the source has left:
        its context or PASID entry is not cached any more, or it would be a candidate.
        """
        found: list[Dropped] = []
        for tag in tags:
            found += self.caches.dropped_at(tag, iova)
            if root is None or tag != root.tag:
                found += [
                    Dropped(way.outcome, way.filled_by, -1)
                    for way in self.caches.translations(tag, iova)
                ]
        return found

    def _command(self, value: int) -> None:
        words = (value,)
        before = self.registers.load(vtd.GSTS)
        changed = before ^ value
        te, qie = GCMD["te"], GCMD["qie"]
        self.remapper.enabled = bool(GCMD["ire"].get(words) and self.config.ecap("ir"))
        self.remapper.compatibility = bool(GCMD["cfi"].get(words))
        if changed & te.mask:
            self.translator.enabled = bool(te.get(words))
            if not self.translator.enabled:
                self.faults.reset()
        status = before & ~LEVEL_COMMANDS | value & LEVEL_COMMANDS
        # The status of a one-shot command stays set once it has been done.
        status |= value & GCMD.mask("srtp", "sirtp", "sfl")
        self.registers.poke(vtd.GSTS, status)
        if GCMD["srtp"].get(words):
            root = (self.registers.load(vtd.RTADDR),)
            self.translator.lookup.latch(RTADDR["rta"].address(root), RTADDR["ttm"].get(root))
            if self.config.cap("esrtps"):
                self.caches.drop_all(self.event)
        if GCMD["sirtp"].get(words):
            self.remapper.latch(self.registers.load(vtd.IRTA), self.event)
        if changed & qie.mask:
            self.queue.enable(bool(qie.get(words)))

    def _context_command(self) -> None:
        words = [self.registers.load(vtd.CCMD)]
        if not CCMD["icc"].get(words) or self.queue.enabled:
            return
        granularity = CCMD["cirg"].get(words)
        match granularity:
            case 1:
                self.caches.drop_contexts()
            case 2:
                self.caches.drop_contexts_of_domain(CCMD["did"].get(words))
            case 3:
                ignored = self.config.dialect.device_selective_ignores_domain
                self.caches.drop_contexts_of_device(
                    CCMD["sid"].get(words),
                    CCMD["fm"].get(words),
                    None if ignored else CCMD["did"].get(words),
                )
            case _:
                pass
        CCMD["icc"].put(words, 0)
        CCMD["caig"].put(words, granularity)
        self.registers.poke(vtd.CCMD, words[0])

    def _iotlb_command(self) -> None:
        offset = iotlb_offset(self.config.extended_capability)
        words = [self.registers.load(vtd.IOTLB, offset)]
        if not IOTLB["ivt"].get(words) or self.queue.enabled:
            return
        granularity, domain = IOTLB["iirg"].get(words), IOTLB["did"].get(words)
        match granularity:
            case 1:
                self.caches.drop_iotlb(self.event)
            case 2:
                self.caches.drop_iotlb(self.event, domain)
            case 3:
                granularity = self._page_command(domain)
            case _:
                pass
        IOTLB["ivt"].put(words, 0)
        IOTLB["iaig"].put(words, granularity)
        self.registers.poke(vtd.IOTLB, words[0], offset)

    def _page_command(self, domain: int) -> int:
        """Do a page-selective IOTLB command; return the granularity done, 0 when refused."""
        iva = (self.registers.load(vtd.IVA, iva_offset(self.config.extended_capability)),)
        mask = IVA["am"].get(iva)
        if mask > self.config.cap("mamv"):
            return 0
        self.caches.drop_second_stage(
            self.event,
            domain,
            IVA["addr"].address(iva),
            mask,
            bool(IVA["ih"].get(iva)),
        )
        return PAGE_SELECTIVE

    def _check_reuse(self, page: int, address: int, data: bytes) -> None:
        """Report a page that no table links any more but a structure cache may still lead to."""
        held = self.caches.tables_at(page)
        if not held:
            self._reused.discard(page)
            return
        if page in self._reused or any(self._linked(way) for _, way in held):
            return
        self._reused.add(page)
        tag, way = held[0]
        step = way.nonleaf.step
        writer = self.memory.last_writer(step.address)
        self._findings.append(
            Finding(
                self.event,
                FindingKind.PAGE_REUSE,
                "table-page",
                address,
                (),
                ((int(step.role), step.level, step.address, step.value),),
                "paging-structure",
                tag[0],
                way.filled_by,
                -1 if writer is None else writer,
            )
        )

    def _linked(self, way: CachedStructure) -> bool:
        step = way.nonleaf.step
        now = self.memory.quadword(step.address)
        if now is None:
            return False
        return bool(now & PRESENT[step.role]) and not (now ^ step.value) & ADDRESS_MASK
