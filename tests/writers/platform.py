"""Build a machine around one VT-d unit: tables in memory, registers, a queue, DMA requests.

Everything is placed by name through the structures' layouts, so that a test can set any field,
reserved ones too, and reads like the sentence of the specification it checks:

    space = platform.legacy(domain=5)
    space.map(0x1000, 0x5000)
    assert platform.read(0x1000) == Translation(0x5000, 0xFFF)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from decoders.events import (
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Delivery,
    Fault,
    Observation,
    Outcome,
    PageRequest,
    Role,
    Translation,
)
from decoders.fields import Structure, build, words
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTOR_SIZES, DESCRIPTORS
from decoders.vtd.paging import ENTRY_SIZE, FirstStageEntry, SecondStageEntry, entry_index
from decoders.vtd.registers import (
    Capability,
    ExtendedCapability,
    GlobalCommand,
    InvalidationQueueAddress,
    Register,
    RootTableAddress,
    fault_record_offset,
    iotlb_offset,
    iva_offset,
)
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
)
from harness.findings import Finding
from harness.model.config import UnitConfig, Updates
from harness.model.dialects import dialect_named
from harness.model.unit import InterruptVerdict, Verdict

PAGE = 0x1000
DEVICE = 0x0018
"""Source id of the device that tests use unless they say otherwise: 00:03.0."""
DOMAIN = 5
READ, WRITE, EXECUTE = AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE
AW = {3: 1, 4: 2, 5: 3}
"""The AW code of a second stage by its levels."""
RAM = (0x10_0000, 0x4000_0000)
"""Start and length of RAM, for tests of reads that fail; OUTSIDE is no part of it."""
OUTSIDE = 0x20_0000_0000

CAPABILITY = {
    "nd": 6,
    "sagaw": 0b1110,
    "mgaw": 56,
    "fro": 0x22,
    "sslps": 0b11,
    "psi": 1,
    "nfr": 3,
    "mamv": 18,
    "fs1gp": 1,
    "fs5lp": 1,
}
EXTENDED_CAPABILITY = {
    "qi": 1,
    "dt": 1,
    "ir": 1,
    "eim": 1,
    "mhmv": 15,
    "pt": 1,
    "iro": 0xF,
    "ers": 1,
    "eafs": 1,
    "pss": 19,
    "pasid": 1,
    "smts": 1,
    "ssads": 1,
    "ssts": 1,
    "fsts": 1,
    "rps": 1,
}


class Unit(Protocol):
    """What the model and the native core have in common."""

    @property
    def event(self) -> int: ...
    @event.setter
    def event(self, number: int) -> None: ...
    def emitted(self) -> list[Observation]: ...
    def findings(self) -> list[Finding]: ...
    def reset(self) -> None: ...
    def load(self, address: int, length: int) -> bytes: ...
    def store(self, address: int, size: int, value: int) -> None: ...
    def snapshot(self, address: int, data: bytes) -> None: ...
    def read_register(self, offset: int, size: int) -> int: ...
    def write_register(self, offset: int, size: int, value: int) -> None: ...
    def access(
        self,
        sid: int,
        pasid: int | None,
        iova: int,
        kind: AccessKind,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict: ...
    def interrupt(
        self, sid: int | None, address: int, data: int, recorded: Delivery | None = None
    ) -> InterruptVerdict: ...
    def page_request(self, request: PageRequest) -> None: ...
    def adopt_read(self, offset: int, size: int, value: int) -> None: ...
    def adopt(self, seen: Observation) -> None: ...


Engine = Callable[[UnitConfig], Unit]


def unit_config(
    *, dialect: str = "spec", width: int = 46, ram: bool = False, page_budget: int = 1 << 16,
    updates: int = Updates.DONE, virtual_commands: int = 0, **capabilities: int,
) -> UnitConfig:  # fmt: skip
    """Return a configuration; capabilities are fields of CAP and ECAP by their mnemonics."""
    cap, ecap = dict(CAPABILITY), dict(EXTENDED_CAPABILITY)
    for name, value in capabilities.items():
        (cap if name in layout(Capability).fields else ecap)[name] = value
    return UnitConfig(
        capability=words(build(Capability, **cap))[0],
        extended_capability=words(build(ExtendedCapability, **ecap))[0],
        host_address_width=width,
        memory=(RAM,) if ram else (),
        dialect=dialect_named(dialect),
        page_budget=page_budget,
        updates=Updates(updates),
        virtual_commands=virtual_commands,
    )


def quadword(shape: type[Structure], index: int = 0, **values: int) -> int:
    """Return one quadword of a structure built from its fields."""
    return words(build(shape, **values))[index]


def descriptor(shape: type[Structure], **values: int) -> tuple[int, ...]:
    """Return a descriptor's quadwords; its type is filled in."""
    kind = next(number for number, known in DESCRIPTORS.items() if known is shape)
    return words(build(shape, type=kind, **values))


@dataclass
class Space:
    """One set of page tables. Entries default to present with every right."""

    platform: Platform
    stage: Role
    root: int
    levels: int

    @property
    def shape(self) -> type[Structure]:
        """The structure of the entries."""
        return FirstStageEntry if self.stage == Role.FIRST_STAGE else SecondStageEntry

    @property
    def rights(self) -> dict[str, int]:
        """The fields that make an entry present and allow everything."""
        if self.stage == Role.FIRST_STAGE:
            return {"p": 1, "rw": 1, "us": 1}
        return {"r": 1, "w": 1}

    def entry(self, iova: int, level: int = 1) -> int:
        """Return where the entry of a level for iova lies, adding the tables above it."""
        table = self.root
        for above in range(self.levels, level, -1):
            at = table + ENTRY_SIZE * entry_index(iova, above)
            if not self.platform.load(at):
                self.platform.store(at, self.value(self.platform.page()))
            table = self.platform.load(at) & layout(self.shape)["addr"].mask
        return table + ENTRY_SIZE * entry_index(iova, level)

    def value(self, address: int, **fields: int) -> int:
        """Return an entry: full rights but for the fields given; address may have extra bits."""
        return quadword(self.shape, **(self.rights | fields)) | address

    def map(self, iova: int, address: int, level: int = 1, **fields: int) -> int:
        """Map the page of a level at iova to address; return where the entry lies."""
        at = self.entry(iova, level)
        if level > 1:
            fields["ps"] = 1
        self.platform.store(at, self.value(address, **fields))
        return at

    def unmap(self, iova: int, level: int = 1) -> int:
        """Clear the entry of a level for iova; return where it lies."""
        at = self.entry(iova, level)
        self.platform.store(at, 0)
        return at

    def change(self, iova: int, level: int = 1, **fields: int) -> int:
        """Set fields of the entry of a level for iova; return where it lies."""
        at = self.entry(iova, level)
        value = [self.platform.load(at)]
        for name, content in fields.items():
            layout(self.shape)[name].put(value, content)
        self.platform.store(at, value[0])
        return at


@dataclass
class Ring:
    """Where the invalidation queue is and how far software has filled it."""

    base: int
    size: int
    step: int
    tail: int = 0


@dataclass
class Platform:
    """A unit and the memory around it."""

    unit: Unit
    config: UnitConfig
    root: int = 0
    levels_of_command: int = 0
    free: int = RAM[0]
    ring: Ring | None = None
    contexts: dict[int, int] = field(default_factory=dict)
    directories: dict[int, int] = field(default_factory=dict)

    # -- memory -------------------------------------------------------------------------------

    def page(self, count: int = 1) -> int:
        """Return the address of fresh pages."""
        address = self.free
        self.free += count * PAGE
        return address

    def load(self, address: int) -> int:
        """Return a quadword of memory."""
        return int.from_bytes(self.unit.load(address, ENTRY_SIZE), "little")

    def store(self, address: int, *values: int) -> None:
        """Store quadwords, one after the other; each is an event of its own."""
        for index, value in enumerate(values):
            self.next_event()
            self.unit.store(address + ENTRY_SIZE * index, ENTRY_SIZE, value)

    def write(self, address: int, entry: Structure) -> None:
        """Store a structure."""
        self.store(address, *words(entry))

    def next_event(self) -> int:
        """Count an event; return its number."""
        self.unit.event += 1
        return self.unit.event

    # -- registers ----------------------------------------------------------------------------

    def place(self, register: Register) -> int:
        """Return the offset of a register in this unit; of fault record 0 for FRCD."""
        moved = {
            id(vtd.IVA): iva_offset(self.config.extended_capability),
            id(vtd.IOTLB): iotlb_offset(self.config.extended_capability),
            id(vtd.FRCD_LOW): fault_record_offset(self.config.capability, 0),
            id(vtd.FRCD_HIGH): fault_record_offset(self.config.capability, 0) + 8,
        }
        return moved.get(id(register), register.offset)

    def register(self, register: Register, index: int = 0) -> int:
        """Read a register; index counts fault records."""
        return self.unit.read_register(self.place(register) + 16 * index, register.size)

    def field(self, register: Register, name: str, index: int = 0) -> int:
        """Read one field of a register."""
        assert register.fields is not None
        shape = layout(register.fields)
        place = shape[name]
        content = [0] * shape.words
        content[place.word] = self.register(register, index)
        return place.get(content)

    def program(self, register: Register, value: int, index: int = 0) -> None:
        """Write a register; index counts fault records."""
        self.next_event()
        self.unit.write_register(self.place(register) + 16 * index, register.size, value)

    def command(self, **bits: int) -> None:
        """Write GCMD: one-shot commands are given once, the others stay as they were set last."""
        value = quadword(GlobalCommand, **bits)
        for name, bit in bits.items():
            mask = layout(GlobalCommand)[name].mask
            if mask & vtd.LEVEL_COMMANDS:
                self.levels_of_command &= ~mask
                self.levels_of_command |= mask if bit else 0
        self.program(vtd.GCMD, self.levels_of_command | value)

    def set_root(self, address: int, mode: int) -> None:
        """Set the root table pointer and its mode (RTADDR.TTM), and take them over."""
        self.program(vtd.RTADDR, quadword(RootTableAddress, ttm=mode, rta=address >> 12))
        self.command(srtp=1)

    # -- tables -------------------------------------------------------------------------------

    def start(self, mode: int) -> None:
        """Make a root table of a mode (0 legacy, 1 scalable) and enable translation, once."""
        if not self.root:
            self.root = self.page()
            self.set_root(self.root, mode)
            self.command(te=1)

    def context(self, sid: int = DEVICE, **fields: int) -> int:
        """Write a legacy context entry, and the root entry above it; return where it lies."""
        self.start(0)
        bus = sid >> 8
        if bus not in self.contexts:
            self.contexts[bus] = self.page()
            root = build(RootEntry, p=1, ctp=self.contexts[bus] >> 12)
            self.write(self.root + 16 * bus, root)
        at = self.context_of(sid)
        self.write(at, build(ContextEntry, **({"p": 1, "aw": AW[4], "did": DOMAIN} | fields)))
        return at

    def context_of(self, sid: int = DEVICE) -> int:
        """Return where the legacy context entry of a device lies."""
        return self.contexts[sid >> 8] + 16 * (sid & 0xFF)

    def legacy(
        self, sid: int = DEVICE, *,
        domain: int = DOMAIN, levels: int = 4, root: int = 0, **fields: int,
    ) -> Space:  # fmt: skip
        """Give a device second-stage tables of its own in legacy mode."""
        space = Space(self, Role.SECOND_STAGE, root or self.page(), levels)
        self.context(sid, ssptptr=space.root >> 12, aw=AW[levels], did=domain, **fields)
        return space

    def scalable_context(self, sid: int = DEVICE, **fields: int) -> int:
        """Write a scalable context entry, and the root entry above it; return where it lies."""
        self.start(1)
        half, function = sid >> 7, sid & 0x7F
        if half not in self.contexts:
            self.contexts[half] = self.page()
            at = self.root + 8 * half
            self.store(at, self.contexts[half] | 1)
        at = self.contexts[half] + 32 * function
        self.directories[sid] = self.directories.get(sid) or self.page(16)
        default = {"p": 1, "paside": 1, "pdts": 7, "pasiddirptr": self.directories[sid] >> 12}
        self.write(at, build(ScalableContextEntry, **(default | fields)))
        return at

    def directory_entry(self, pasid: int = 0, sid: int = DEVICE, **fields: int) -> int:
        """Write fields of a PASID directory entry, adding its table; return where it lies."""
        if sid not in self.directories:
            self.scalable_context(sid)
        at = self.directories[sid] + 8 * (pasid >> 6)
        table = self.load(at) >> 12 or self.page() >> 12
        self.write(at, build(PasidDirectoryEntry, **({"p": 1, "smptblptr": table} | fields)))
        return at

    def pasid_entry(self, pasid: int = 0, sid: int = DEVICE, **fields: int) -> int:
        """Write a PASID table entry and what is above it; return where it lies."""
        if sid not in self.directories:
            self.scalable_context(sid)
        above = self.directories[sid] + 8 * (pasid >> 6)
        if not self.load(above):
            self.directory_entry(pasid, sid)
        at = (self.load(above) & ~0xFFF) + 64 * (pasid & 63)
        self.write(at, build(PasidEntry, **({"p": 1, "did": DOMAIN} | fields)))
        return at

    def first_stage(
        self, pasid: int = 0, sid: int = DEVICE, *,
        domain: int = DOMAIN, levels: int = 4, root: int = 0, **fields: int,
    ) -> Space:  # fmt: skip
        """Give a PASID (0: requests without one) first-stage tables of its own."""
        space = Space(self, Role.FIRST_STAGE, root or self.page(), levels)
        self.pasid_entry(
            pasid, sid, pgtt=1, fspm=levels - 4, fsptptr=space.root >> 12, did=domain, **fields
        )
        return space

    def second_stage(
        self, pasid: int = 0, sid: int = DEVICE, *,
        domain: int = DOMAIN, levels: int = 4, root: int = 0, **fields: int,
    ) -> Space:  # fmt: skip
        """Give a PASID (0: requests without one) second-stage tables of its own."""
        space = Space(self, Role.SECOND_STAGE, root or self.page(), levels)
        self.pasid_entry(
            pasid, sid, pgtt=2, aw=AW[levels], ssptptr=space.root >> 12, did=domain, **fields
        )
        return space

    # -- the invalidation queue ---------------------------------------------------------------

    def start_queue(self, *, wide: bool = False, qs: int = 0) -> Ring:
        """Set up the invalidation queue and enable it."""
        base = self.page(1 << qs)
        ring = self.ring = Ring(base, PAGE << qs, DESCRIPTOR_SIZES[wide])
        address = quadword(InvalidationQueueAddress, qs=qs, dw=int(wide), iqa=base >> 12)
        self.program(vtd.IQA, address)
        self.program(vtd.IQT, 0)
        self.command(qie=1)
        return ring

    def submit(self, *descriptors: tuple[int, ...]) -> None:
        """Put descriptors into the ring (128-bit unless it is already of 256) and ring its bell."""
        ring = self.ring or self.start_queue()
        for content in descriptors:
            self.store(ring.base + ring.tail, *content)
            self.store(
                ring.base + ring.tail + 8 * len(content),
                *[0] * (ring.step // 8 - len(content)),
            )
            ring.tail = (ring.tail + ring.step) % ring.size
        self.program(vtd.IQT, ring.tail)

    # -- requests -----------------------------------------------------------------------------

    def request(
        self,
        iova: int,
        kind: AccessKind = READ,
        *,
        sid: int = DEVICE,
        pasid: int | None = None,
        recorded: Outcome | None = None,
        attributes: Attribute = NO_ATTRIBUTES,
    ) -> Verdict:
        """Make a DMA request; recorded is what a recording says was answered."""
        self.next_event()
        return self.unit.access(sid, pasid, iova, kind, recorded, attributes)

    def read(self, iova: int, *, sid: int = DEVICE, pasid: int | None = None) -> Outcome:
        """Return the answer to a read."""
        return self.request(iova, READ, sid=sid, pasid=pasid).taken

    def write_to(self, iova: int, *, sid: int = DEVICE, pasid: int | None = None) -> Outcome:
        """Return the answer to a write."""
        return self.request(iova, WRITE, sid=sid, pasid=pasid).taken

    def execute(self, iova: int, *, sid: int = DEVICE, pasid: int | None = None) -> Outcome:
        """Return the answer to an execute request."""
        return self.request(iova, EXECUTE, sid=sid, pasid=pasid).taken

    def permitted(
        self, iova: int, kind: AccessKind = READ, *, sid: int = DEVICE, pasid: int | None = None
    ) -> set[Outcome]:
        """Return every outcome that a read (or another kind) may have; this is a request too."""
        verdict = self.request(iova, kind, sid=sid, pasid=pasid)
        return {candidate.outcome for candidate in verdict.permitted}

    def judge(
        self,
        iova: int,
        recorded: Outcome,
        kind: AccessKind = READ,
        *,
        sid: int = DEVICE,
        pasid: int | None = None,
    ) -> list[Finding]:
        """Return the findings on a request whose recorded answer is given."""
        self.request(iova, kind, sid=sid, pasid=pasid, recorded=recorded)
        return self.unit.findings()

    def observed(self) -> list[Observation]:
        """Return what the unit was seen doing since the last call."""
        return self.unit.emitted()


def page(address: int) -> Translation:
    """Return a translation to a 4 KiB page."""
    return Translation(address, 0xFFF)


def fault(reason: int) -> Fault:
    """Return a fault by its reason, which may be a member of an enumeration."""
    return Fault(int(reason))
