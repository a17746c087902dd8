"""The invalidation queue: fetch, check, execute (VT-d specification 6.5.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decoders.events import Descriptor, Observation, StatusWrite
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTOR_SIZES,
    DESCRIPTORS,
    WIDE_ONLY,
    ContextCacheInvalidation,
    DescriptorType,
    InterruptEntryCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
    descriptor_type,
)
from decoders.vtd.faults import QueueError
from decoders.vtd.registers import (
    Ics,
    InvalidationQueueAddress,
    InvalidationQueueTail,
    QueueErrorRecord,
)
from harness.errors import HarnessError
from harness.memory import Memory
from harness.model.caches import Caches
from harness.model.config import UnitConfig
from harness.model.device_tlb import DeviceTlbs, invalidation, pasid_invalidation
from harness.model.faults import FSTS, EventMessage, FaultRecorder
from harness.model.interrupts import EntryCache
from harness.model.page_requests import PageRequestQueue
from harness.model.registers import RegisterFile

IQA = layout(InvalidationQueueAddress)
IQT = layout(InvalidationQueueTail)
ICS = layout(Ics)
IQERCD = layout(QueueErrorRecord)
CONTEXT_CACHE = layout(ContextCacheInvalidation)
IOTLB = layout(IotlbInvalidation)
INTERRUPT_ENTRY = layout(InterruptEntryCacheInvalidation)
WAIT = layout(InvalidationWait)
PASID_CACHE = layout(PasidCacheInvalidation)
PASID_IOTLB = layout(PasidIotlbInvalidation)
QUEUE_UNIT = 4096
"""Bytes of the smallest queue (IQA.QS = 0)."""

DESCRIPTORS_PER_EVENT = 8
"""What each event adds to the budget of descriptors."""
LOOKED_AT_SHIFT = 10
"""So many keys (log2) that invalidations looked at in the caches cost as much as a descriptor."""

Words = tuple[int, ...]


class DescriptorBudgetError(HarnessError):
    """Refuse a trace that makes the unit execute more descriptors than the budget allows."""


@dataclass(slots=True)
class _Ring:
    base: int = 0
    size: int = 0
    step: int = DESCRIPTOR_SIZES[0]


class InvalidationQueue:
    """Consume descriptors from memory between head and tail."""

    def __init__(
        self,
        config: UnitConfig,
        memory: Memory,
        registers: RegisterFile,
        caches: Caches,
        interrupts: EntryCache,
        devices: DeviceTlbs,
        page_requests: PageRequestQueue,
        faults: FaultRecorder,
        emit: Callable[[Observation], None],
        now: Callable[[], int],
    ):
        self._config = config
        self._memory = memory
        self._registers = registers
        self._caches = caches
        self._interrupts = interrupts
        self._devices = devices
        self._page_requests = page_requests
        self._faults = faults
        self._emit = emit
        self._now = now
        self._ring = _Ring()
        self._executed = 0
        self.enabled = False
        self.completion = EventMessage(
            registers, emit, vtd.IECTL, vtd.IEDATA, vtd.IEADDR, vtd.IEUADDR
        )
        self._execute: dict[int, Callable[[Words], QueueError]] = {
            DescriptorType.CONTEXT_CACHE: self._context_cache,
            DescriptorType.IOTLB: self._iotlb,
            DescriptorType.DEVICE_TLB: self._device_tlb,
            DescriptorType.INTERRUPT_ENTRY_CACHE: self._interrupt_entries,
            DescriptorType.WAIT: self._wait,
            DescriptorType.PASID_IOTLB: self._pasid_iotlb,
            DescriptorType.PASID_CACHE: self._pasid_cache,
            DescriptorType.PASID_DEVICE_TLB: self._pasid_device_tlb,
            DescriptorType.PAGE_GROUP_RESPONSE: self._page_response,
        }

    def reset(self) -> None:
        """Stop and forget where the queue was."""
        self.enabled = False
        self._ring = _Ring()

    def enable(self, on: bool) -> None:
        """Follow GCMD.QIE: latch IQA and start at its beginning, or stop."""
        if on and not self.enabled:
            words = (self._registers.load(vtd.IQA),)
            self._ring = _Ring(
                IQA["iqa"].address(words),
                QUEUE_UNIT << IQA["qs"].get(words),
                DESCRIPTOR_SIZES[IQA["dw"].get(words)],
            )
        if not on:
            self._registers.poke(vtd.IQH, 0)
        self.enabled = on
        if on:
            self.run()

    @property
    def stopped(self) -> bool:
        """Say whether a queue error (FSTS.IQE) keeps the queue from running."""
        return bool(self._registers.field(vtd.FSTS, FSTS["iqe"]))

    def run(self) -> None:
        """Consume descriptors until head meets tail or one is bad.

        Raise DescriptorBudgetError when that takes more than the budget.
        """
        if not self.enabled or self.stopped:
            return
        tail = IQT["qt"].address((self._registers.load(vtd.IQT),))
        if tail >= self._ring.size:
            self._fail(QueueError.TAIL)
            return
        if tail % self._ring.step:
            self._fail(QueueError.ALIGNMENT)
            return
        if self._ring.step == DESCRIPTOR_SIZES[1] and not self._config.ecap("smts"):
            self._fail(QueueError.WIDTH)
            return
        # A fault record that CAP.FRO places over IQH can leave anything there.
        head = self._registers.load(vtd.IQH)
        if head >= self._ring.size or head % self._ring.step:
            self._fail(QueueError.TAIL)
            return
        while (head := self._registers.load(vtd.IQH)) != tail:
            self._charge()
            error = self._one(self._ring.base + head)
            if error:
                self._fail(error)
                return
            self._advance()

    def _charge(self) -> None:
        self._executed += 1
        caches = (self._caches, self._interrupts, self._devices)
        looked_at = sum(cache.looked_at for cache in caches)
        spent = self._executed + (looked_at >> LOOKED_AT_SHIFT)
        budget = self._config.descriptor_budget
        if spent > budget + DESCRIPTORS_PER_EVENT * self._now():
            raise DescriptorBudgetError(
                f"the trace makes the unit execute more than {budget} invalidation descriptors "
                f"and {DESCRIPTORS_PER_EVENT} for each event; raise --descriptor-budget if it is "
                "yours"
            )

    def _advance(self) -> None:
        head = self._registers.load(vtd.IQH) + self._ring.step
        self._registers.poke(vtd.IQH, head % self._ring.size if self._ring.size else 0)

    def _one(self, address: int) -> QueueError:
        words: list[int] = []
        for at in range(address, address + self._ring.step, 8):
            word = self._memory.quadword(at)
            if word is None:
                return QueueError.FETCH
            words.append(word)
        return self._consume(tuple(words))

    def _consume(self, words: Words) -> QueueError:
        kind = descriptor_type(words[0])
        shape = DESCRIPTORS.get(kind)
        if shape is None:
            return QueueError.TYPE
        if kind not in self._config.dialect.untraced_descriptors:
            self._emit(Descriptor(words))
        if kind in WIDE_ONLY and self._ring.step != DESCRIPTOR_SIZES[1]:
            return QueueError.TYPE
        reserved = list(layout(shape).reserved)
        if kind == 5 and not self._config.ecap("pds"):
            reserved[0] |= WAIT["pd"].mask
        reserved += [(1 << 64) - 1] * (len(words) - len(reserved))
        if any(word & mask for word, mask in zip(words, reserved, strict=True)):
            return QueueError.RESERVED
        execute = self._execute.get(kind)
        return execute(words) if execute else QueueError.NONE

    def adopt(self, words: Words) -> None:
        """Execute a descriptor that the recorded unit took and this one did not.

        When this queue had stopped at that very slot it goes on behind it.
        """
        if self.enabled and self.stopped:
            self._registers.put(vtd.FSTS, FSTS["iqe"], 0)
            self._execute_only(words)
            self._advance()
            self.run()
        else:
            self._execute_only(words)

    def _execute_only(self, words: Words) -> None:
        execute = self._execute.get(descriptor_type(words[0]))
        if execute == self._wait:
            self._devices.waited()
        elif execute is not None:
            execute(words)

    def _fail(self, error: QueueError) -> None:
        before = self._registers.load(vtd.FSTS)
        self._registers.put(vtd.FSTS, FSTS["iqe"], 1)
        self._registers.put(vtd.IQERCD, IQERCD["iqei"], int(error))
        self._faults.raise_event(before)

    # -- descriptors -------------------------------------------------------------------------

    def _context_cache(self, words: Words) -> QueueError:
        match CONTEXT_CACHE["g"].get(words):
            case 1:
                self._caches.drop_contexts()
            case 2:
                self._caches.drop_contexts_of_domain(CONTEXT_CACHE["did"].get(words))
            case 3:
                ignored = self._config.dialect.device_selective_ignores_domain
                self._caches.drop_contexts_of_device(
                    CONTEXT_CACHE["sid"].get(words),
                    CONTEXT_CACHE["fm"].get(words),
                    None if ignored else CONTEXT_CACHE["did"].get(words),
                )
            case _:
                return QueueError.RESERVED
        return QueueError.NONE

    def _iotlb(self, words: Words) -> QueueError:
        domain = IOTLB["did"].get(words)
        match IOTLB["g"].get(words):
            case 1:
                self._caches.drop_iotlb(self._now())
            case 2:
                self._caches.drop_iotlb(self._now(), domain)
            case 3:
                mask = IOTLB["am"].get(words)
                if mask > self._config.cap("mamv"):
                    return QueueError.RESERVED
                self._caches.drop_second_stage(
                    self._now(),
                    domain,
                    IOTLB["addr"].address(words),
                    mask,
                    bool(IOTLB["ih"].get(words)),
                )
            case _:
                return QueueError.RESERVED
        return QueueError.NONE

    def _interrupt_entries(self, words: Words) -> QueueError:
        if not INTERRUPT_ENTRY["g"].get(words):
            self._interrupts.drop(self._now())
            return QueueError.NONE
        order = INTERRUPT_ENTRY["im"].get(words)
        if order > self._config.ecap("mhmv") and self._config.dialect.handle_mask_checked:
            return QueueError.RESERVED
        self._interrupts.drop_range(self._now(), INTERRUPT_ENTRY["iidx"].get(words), order)
        return QueueError.NONE

    def _pasid_iotlb(self, words: Words) -> QueueError:
        domain, pasid = PASID_IOTLB["did"].get(words), PASID_IOTLB["pasid"].get(words)
        match PASID_IOTLB["g"].get(words):
            case 2:
                self._caches.drop_pasid(self._now(), domain, pasid)
            case 3:
                mask = PASID_IOTLB["am"].get(words)
                if mask > self._config.cap("mamv"):
                    return QueueError.RESERVED
                self._caches.drop_pasid_pages(
                    self._now(),
                    domain,
                    pasid,
                    PASID_IOTLB["addr"].address(words),
                    mask,
                    bool(PASID_IOTLB["ih"].get(words)),
                )
            case _:
                return QueueError.RESERVED
        return QueueError.NONE

    def _pasid_cache(self, words: Words) -> QueueError:
        domain, pasid = PASID_CACHE["did"].get(words), PASID_CACHE["pasid"].get(words)
        match PASID_CACHE["g"].get(words):
            case 0:
                self._caches.drop_pasids(domain)
            case 1:
                self._caches.drop_pasids(domain, pasid)
            case 3:
                self._caches.drop_pasids()
            case _:
                return QueueError.RESERVED
        return QueueError.NONE

    def _device_tlb(self, words: Words) -> QueueError:
        self._devices.invalidate(invalidation(words), self._now())
        return QueueError.NONE

    def _pasid_device_tlb(self, words: Words) -> QueueError:
        self._devices.invalidate(pasid_invalidation(words), self._now())
        return QueueError.NONE

    def _page_response(self, words: Words) -> QueueError:
        self._page_requests.respond(words)
        return QueueError.NONE

    def _wait(self, words: Words) -> QueueError:
        # Page requests are stored as they come: there are none to drain (PD).
        self._devices.waited()
        if WAIT["sw"].get(words):
            address, data = WAIT["staddr"].address(words), WAIT["stdata"].get(words)
            self._memory.write(address, data.to_bytes(4, "little"), self._now())
            self._emit(StatusWrite(address, data))
        if WAIT["iflag"].get(words) and not self._registers.field(vtd.ICS, ICS["iwc"]):
            self._registers.put(vtd.ICS, ICS["iwc"], 1)
            self.completion.request()
        return QueueError.NONE
