"""A driver that keeps every rule, seen as a recorder sees it: the events of a small trace.

Each step is one that a test can leave out, repeat or do otherwise, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from decoders.events import (
    Access,
    AccessKind,
    Event,
    FaultRecord,
    RegRead,
    RegWrite,
    Role,
    Snapshot,
    Store,
)
from decoders.fields import Structure, build, words
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTOR_SIZES,
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    InterruptEntryCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry, entry_index
from decoders.vtd.registers import (
    LEVEL_COMMANDS,
    GlobalCommand,
    InvalidationQueueAddress,
    Register,
    RootTableAddress,
)
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
)
from harness.model.config import UnitConfig
from tests.writers.platform import DEVICE, DOMAIN, descriptor, quadword, unit_config

PAGE = 0x1000
ROOT, CONTEXTS, RING, STATUS, TABLES = 0x10_0000, 0x10_1000, 0x11_0000, 0x11_8000, 0x12_0000
DATA, OTHER = 0x1000_0000, 0x2000_0000
"""Memory that mappings lead to."""
IOVA = 0x7000
LEVELS = 4

EVERYTHING = 1
"""The granularity of an invalidation that is global, but for PASID entries (3)."""
WAIT = descriptor(InvalidationWait, sw=1, stdata=1, staddr=STATUS >> 2)


def contexts(g: int = EVERYTHING, *, did: int = DOMAIN, sid: int = DEVICE) -> tuple[int, ...]:
    """Invalidate context entries: g is 1 for all, 2 for a domain, 3 for a device."""
    return descriptor(ContextCacheInvalidation, g=g, did=did, sid=sid)


def iotlb(g: int = EVERYTHING, *, did: int = DOMAIN, iova: int = 0, **more: int) -> tuple[int, ...]:
    """Invalidate translations: g is 1 for all, 2 for a domain, 3 for pages."""
    return descriptor(IotlbInvalidation, g=g, did=did, addr=iova >> 12, **more)


def page(iova: int, **more: int) -> tuple[int, ...]:
    """Invalidate one page, of DOMAIN unless did says otherwise."""
    return iotlb(3, iova=iova, **more)


def pasids(g: int = 1, *, did: int = DOMAIN, pasid: int = 0) -> tuple[int, ...]:
    """Invalidate PASID entries: g is 0 for a domain, 1 for a PASID in it, 3 for all."""
    return descriptor(PasidCacheInvalidation, g=g, did=did, pasid=pasid)


def pasid_page(iova: int, *, did: int = DOMAIN, **more: int) -> tuple[int, ...]:
    """Invalidate one page of PASID 0."""
    return descriptor(PasidIotlbInvalidation, g=3, did=did, addr=iova >> 12, **more)


def pasid_domain(*, did: int = DOMAIN) -> tuple[int, ...]:
    """Invalidate all translations of PASID 0."""
    return descriptor(PasidIotlbInvalidation, g=2, did=did)


def device_tlb(iova: int, *, sid: int = DEVICE) -> tuple[int, ...]:
    """Invalidate one page in a device."""
    return descriptor(DeviceTlbInvalidation, sid=sid, addr=iova >> 12)


def interrupts(**more: int) -> tuple[int, ...]:
    """Invalidate the interrupt entry cache."""
    return descriptor(InterruptEntryCacheInvalidation, **more)


@dataclass
class Space:
    """A set of page tables: where its root is, and what stage it belongs to."""

    root: int
    role: Role = Role.SECOND_STAGE

    def value(self, address: int, **fields: int) -> int:
        """Return an entry with all rights."""
        if self.role is Role.FIRST_STAGE:
            return quadword(FirstStageEntry, **{"p": 1, "rw": 1, "us": 1, **fields}) | address
        return quadword(SecondStageEntry, **{"r": 1, "w": 1, **fields}) | address


@dataclass
class Driver:
    """Say what a driver does; events are what is seen of it."""

    config: UnitConfig = field(default_factory=unit_config)
    wide: bool = False
    events: list[Event] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)
    tail: int = 0
    free: int = TABLES
    levels: int = 0
    ring: int = RING
    space: Space = field(default_factory=lambda: Space(0))
    domain: int = DOMAIN
    ats: bool = False
    """Whether the device keeps translations, which the driver has to invalidate there."""
    alive: bool = True
    """Whether the story goes on behind a mistake: a queue that has stopped ends it."""

    # -- single events -------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """The number of the last event."""
        return len(self.events) - 1

    def store(self, address: int, value: int) -> int:
        """Store a quadword; return the number of the event."""
        self.memory[address] = value
        self.events.append(Store(address, 8, value))
        return self.last

    def load(self, address: int) -> int:
        """Return a quadword."""
        return self.memory.get(address, 0)

    def table(self, role: Role, level: int = 0, at: int = 0, pages: int = 1) -> int:
        """Make an empty table; return where it is."""
        if not at:
            at = self.free
            self.free += pages * PAGE
        for address in range(at, at + pages * PAGE, PAGE):
            self.events.append(Snapshot(address, role, level, b""))
        return at

    def write(self, register: Register, value: int, offset: int = -1) -> int:
        """Write a register; return the number of the event."""
        place = register.offset if offset < 0 else offset
        self.events.append(RegWrite(place, register.size, value))
        return self.last

    def read(self, register: Register, offset: int = -1) -> None:
        """Read a register."""
        self.events.append(RegRead(register.offset if offset < 0 else offset, register.size, None))

    def command(self, *, awaited: bool = True, **bits: int) -> int:
        """Give a global command and look at its status; return the number of the write."""
        for name, bit in bits.items():
            mask = quadword(GlobalCommand, **{name: 1})
            if mask & LEVEL_COMMANDS:
                self.levels = self.levels & ~mask | (mask if bit else 0)
        number = self.write(vtd.GCMD, self.levels | quadword(GlobalCommand, **bits))
        if awaited:
            self.read(vtd.GSTS)
        return number

    def use(self, iova: int = IOVA, *, sid: int = DEVICE) -> int:
        """Let a device read; return the number of the event."""
        self.events.append(Access(sid, None, iova, AccessKind.READ, None))
        return self.last

    def fault(self, index: int = 0) -> int:
        """Let the unit record a fault."""
        high = 1 << 62 | 6 << 32 | DEVICE
        self.events.append(FaultRecord(index, 0x3000, high))
        return self.last

    # -- the queue -----------------------------------------------------------------------------

    def start_queue(self, *, size: int = 0) -> None:
        """Set the queue up and enable it."""
        self.table(Role.QUEUE, at=RING)
        self.write(vtd.IQT, 0)
        address = quadword(
            InvalidationQueueAddress, qs=size, dw=int(self.wide), iqa=self.ring >> 12
        )
        self.write(vtd.IQA, address)
        self.command(qie=1)

    def fill(self, *descriptors: Iterable[int]) -> None:
        """Put descriptors into the ring, without telling the unit."""
        step = DESCRIPTOR_SIZES[self.wide]
        for content in descriptors:
            padded = [*content, 0, 0][: step // 8]
            for index, word in enumerate(padded):
                self.store(self.ring + self.tail + 8 * index, word)
            self.tail = (self.tail + step) % PAGE

    def submit(self, *descriptors: Iterable[int], wait: bool = True) -> int:
        """Put descriptors into the ring, a wait behind them, and tell the unit."""
        self.fill(*descriptors, *([WAIT] if wait else []))
        return self.write(vtd.IQT, self.tail)

    # -- setting up ----------------------------------------------------------------------------

    def set_root(self, mode: int = 0) -> int:
        """Make a root table and take it over; return the number of the command."""
        self.write(vtd.RTADDR, quadword(RootTableAddress, ttm=mode, rta=ROOT >> 12))
        number = self.command(srtp=1)
        self.table(Role.ROOT, at=ROOT)
        return number

    def flush(self, mode: int = 0) -> None:
        """Invalidate everything, in order."""
        for content in (contexts(), *([pasids(3)] if mode else []), iotlb()):
            self.submit(content)

    def start(self, mode: int = 0, *, translate: bool = True) -> None:
        """Enable queue and translation."""
        self.read(vtd.CAP)
        self.start_queue()
        self.set_root(mode)
        self.flush(mode)
        if translate:
            self.command(te=1)

    def context(self, sid: int = DEVICE, **fields: int) -> tuple[int, tuple[int, ...]]:
        """Return where a legacy context entry lies, and one that leads to new tables."""
        if not self.load(ROOT):
            self.table(Role.CONTEXT, at=CONTEXTS)
            self.store(ROOT, quadword(RootEntry, p=1, ctp=CONTEXTS >> 12))
        self.space = Space(self.table(Role.SECOND_STAGE, LEVELS))
        self.domain = fields.get("did", DOMAIN)
        default = {"p": 1, "aw": LEVELS - 2, "did": DOMAIN, "ssptptr": self.space.root >> 12}
        return CONTEXTS + 16 * sid, words(build(ContextEntry, **(default | fields)))

    def put(self, at: int, entry: tuple[int, ...]) -> int:
        """Write an entry of several quadwords, the first one last; return the number of that."""
        for index in range(len(entry) - 1, -1, -1):
            if entry[index] != self.load(at + 8 * index) or not index:
                self.store(at + 8 * index, entry[index])
        return self.last

    def attach(self, sid: int = DEVICE, **fields: int) -> int:
        """Give a device tables of its own, in legacy mode; return where its entry lies."""
        at, entry = self.context(sid, **fields)
        self.put(at, entry)
        did = fields.get("did", DOMAIN)
        # What blocked before is kept with domain 0 (Linux context_present_cache_flush).
        self.submit(contexts(3, did=0, sid=sid), iotlb(2, did=did))
        return at

    def detach(self, at: int) -> int:
        """Take a context entry back, and invalidate nothing; return the number of the store."""
        number = self.store(at, 0)
        self.store(at + 8, 0)
        return number

    def pasid_entry(
        self, stage: Role = Role.FIRST_STAGE, sid: int = DEVICE, **fields: int
    ) -> tuple[int, tuple[int, ...]]:
        """Return where the entry of PASID 0 lies, and one that leads to new tables."""
        if not self.load(ROOT):
            self.table(Role.SCALABLE_CONTEXT, at=CONTEXTS)
            self.store(ROOT, CONTEXTS | 1)
        at = CONTEXTS + 32 * sid
        if not self.load(at):
            directory = self.table(Role.PASID_DIRECTORY)
            self.put(at, words(build(ScalableContextEntry, p=1, pasiddirptr=directory >> 12)))
            table = self.table(Role.PASID_TABLE)
            self.store(directory, quadword(PasidDirectoryEntry, p=1, smptblptr=table >> 12))
        directory = self.load(at) & ~0xFFF
        self.space = Space(self.table(stage, LEVELS), stage)
        self.domain = fields.get("did", DOMAIN)
        default = {"p": 1, "did": DOMAIN, "aw": LEVELS - 2}
        if stage is Role.FIRST_STAGE:
            default |= {"pgtt": 1, "fsptptr": self.space.root >> 12}
        else:
            default |= {"pgtt": 2, "ssptptr": self.space.root >> 12}
        entry = words(build(PasidEntry, **(default | fields)))
        return self.load(directory) & ~0xFFF, entry

    def attach_pasid(self, stage: Role = Role.FIRST_STAGE, **fields: int) -> int:
        """Give a device tables of its own, in scalable mode; return where its entry lies."""
        at, entry = self.pasid_entry(stage, **fields)
        self.put(at, entry)
        did = fields.get("did", DOMAIN)
        self.submit(contexts(), pasids(did=did), pasid_domain(did=did), iotlb(2, did=did))
        return at

    # -- mappings ------------------------------------------------------------------------------

    def entry(self, iova: int = IOVA, level: int = 1) -> int:
        """Return where the entry of a level lies, adding the tables above it."""
        at = self.space.root
        for above in range(LEVELS, level, -1):
            place = at + 8 * entry_index(iova, above)
            if not self.load(place):
                child = self.table(self.space.role, above - 1)
                self.store(place, self.space.value(child))
            at = self.load(place) & 0xF_FFFF_FFFF_F000
        return at + 8 * entry_index(iova, level)

    def map(self, iova: int = IOVA, address: int = DATA, **fields: int) -> int:
        """Map a page and tell the unit, as caching mode wants it; return the store's number."""
        number = self.store(self.entry(iova), self.space.value(address, **fields))
        self.forget(iova)
        return number

    def unmap(self, iova: int = IOVA) -> int:
        """Unmap a page and wait until nothing keeps it; return the number of the store."""
        number = self.store(self.entry(iova), 0)
        self.forget(iova)
        return number

    def forget(self, iova: int) -> None:
        """Invalidate a page everywhere, in order."""
        by_pasid = [pasid_page(iova, did=self.domain)] if self.wide else []
        self.submit(page(iova, did=self.domain), *by_pasid)
        if self.ats:
            self.submit(device_tlb(iova))

    def go_on(self) -> None:
        """Map, use and unmap another page: nothing is wrong with that."""
        if self.alive and self.space.root:
            for address in (DATA, OTHER):
                self.map(0x9000, address)
                self.use(0x9000)
                self.unmap(0x9000)


def structure(shape: type[Structure], **fields: int) -> tuple[int, ...]:
    """Return the quadwords of a structure."""
    return words(build(shape, **fields))
