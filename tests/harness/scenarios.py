"""Random lives of a unit, for comparing two implementations step by step.

A scenario is made from a random.Random: the same one gives the same life. Tables are mostly sane,
because a walk that faults at its first entry tells nothing, and are then damaged bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

from decoders.events import (
    ATTRIBUTES,
    NO_ATTRIBUTES,
    AccessKind,
    Descriptor,
    Fault,
    FaultRecord,
    Interrupt,
    Observation,
    Outcome,
    StatusWrite,
    Translation,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import DESCRIPTORS
from decoders.vtd.paging import FirstStageEntry, SecondStageEntry, entry_index
from decoders.vtd.registers import Capability, ExtendedCapability, GlobalCommand
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.model.config import UnitConfig, Updates
from harness.model.dialects import DIALECTS, SPECIFICATION, Dialect
from harness.model.lookup import PASID_CAPABILITIES

PAGE = 0x1000
ROOT, CONTEXT, UPPER_CONTEXT, PASIDS, QUEUE = 0x1000, 0x2000, 0x3000, 0x5000, 0x6000
DIRECTORY = 0x20000
"""Fixed places of the structures."""
TABLES = tuple(0x8000 + PAGE * index for index in range(10))
"""Pages that paging tables live in, shared by every level: loops and aliases are welcome."""
ARENA = range(0, 0x14000, PAGE)
SIDS = (0x0000, 0x0010, 0x0018, 0x0080, 0x00FF, 0x0110)
PASIDS_USED = (0, 1, 2, 63, 64, 0x2000, 0xFFFFF)
CAPABILITIES = (
    "dt",
    "pt",
    "sc",
    "ssads",
    "ssts",
    "fsts",
    "srs",
    "ers",
    "eafs",
    "mts",
    "pds",
    "rps",
    "nest",
    "pasid",
)
TOP = (1 << 64) - 1
IOVAS = (0, 0x1000, 0x1FF8, 0x20_0000, 0x20_1000, 0x4000_0000, 0x7F_FFFF_F000)
FAR_IOVAS = (
    0xFEE0_0000,
    0xFEF0_0000,
    1 << 39,
    1 << 47,
    1 << 56,
    0xFFFF_8000_0000_0000,
    (1 << 64) - 8,
)

_GCMD = layout(GlobalCommand)
_SS, _FS = layout(SecondStageEntry), layout(FirstStageEntry)

Operation = tuple[str, tuple[Any, ...]]
"""Name of a unit's method and its arguments."""


def _words(shape: type, **values: int) -> list[int]:
    found = layout(shape)
    words = [0] * found.words
    for name, value in values.items():
        field = found[name]
        # Pointers are given as addresses.
        field.put(words, value >> field.low if field.width >= 40 else value)
    return words


@dataclass(slots=True)
class Scenario:
    """Make operations one after another; last is what the units answered most recently."""

    random: Random
    last: list[Outcome] = field(default_factory=list)
    previous: tuple[Any, ...] = ()
    mode: int = 0
    tail: int = 0
    wide: bool = False
    command: int = 0
    calm: bool = False
    nests: bool = False
    made: UnitConfig | None = None

    def chance(self, one_in: int) -> bool:
        """Be true once in so many times."""
        return self.random.randrange(one_in) == 0

    def config(self) -> UnitConfig:
        """Return a unit's configuration."""
        random = self.random
        self.nests = self.chance(5)
        capability = _words(
            Capability,
            sagaw=random.choice((2, 4, 6, 14, 14, 14, 14, 14)),
            mgaw=random.choice((38, 47, 47, 56)),
            cm=random.getrandbits(1),
            fro=random.choice((0x22, 0x22, 0x40)),
            sslps=random.choice((0, 1, 3, 3)),
            mamv=random.choice((9, 18, 63)),
            nfr=random.choice((0, 0, 1, 7)),
            fs1gp=random.getrandbits(1),
            fs5lp=random.getrandbits(1),
            esrtps=random.getrandbits(1),
        )
        extended = _words(
            ExtendedCapability,
            iro=random.choice((0x0F, 0x10)),
            qi=1,
            smts=int(not self.chance(16)),
            **{name: int(not self.chance(8)) for name in CAPABILITIES},
            adms=random.getrandbits(1),
            rprivs=int(self.chance(4)),
        )
        memory: tuple[tuple[int, int], ...] = ()
        if self.chance(4):
            memory = (
                (0, 0x10000),
                (0x11000, random.choice((0xF000, 0xF804))),
                (DIRECTORY, 0x10000),
            )
        self.made = UnitConfig(
            capability[0],
            extended[0],
            host_address_width=random.choice((39, 46, 46, 52)),
            memory=memory,
            dialect=self._dialect(),
            updates=random.choice((*[Updates.DONE] * 12, *Updates)),
        )
        return self.made

    def _dialect(self) -> Dialect:
        if self.nests:
            return SPECIFICATION
        dialect = self.random.choice(sorted(DIALECTS.items()))[1]
        if self.chance(3):
            flags = {
                member.name: bool(self.random.getrandbits(1))
                for member in fields(Dialect)
                if member.type in ("bool", bool)
            }
            dialect = replace(dialect, **flags)  # type: ignore[arg-type]
        return dialect

    def answered(self, outcomes: Iterable[Outcome]) -> None:
        """Learn what was permitted last: later accesses claim to have recorded it."""
        self.last = [*self.last[-8:], *outcomes]

    # -- operations ----------------------------------------------------------------------------

    def opening(self) -> list[Operation]:
        """Return the operations that set up tables, a queue and translation."""
        self.wide = not self.chance(4)
        self.calm = self.nests or self.chance(2)
        self.mode = self.random.getrandbits(1) | self.nests
        made: list[Operation] = []
        for sid in SIDS:
            made += self._root(sid) + self._context(sid)
        if self.mode:
            for pasid in PASIDS_USED:
                made += self._directory(pasid) + self._pasid(pasid)
        made += [self._snapshot(table, everywhere=True) for table in TABLES]
        made += [
            ("write_register", (vtd.RTADDR.offset, 8, ROOT | self.mode << 10)),
            ("write_register", (vtd.IQA.offset, 8, QUEUE | int(self.wide) << 11)),
            ("write_register", (vtd.IECTL.offset, 4, 0)),
            ("write_register", (vtd.FECTL.offset, 4, 0)),
        ]
        self.command = _GCMD.mask("te", "qie")
        made.append(("write_register", (vtd.GCMD.offset, 4, _GCMD.mask("srtp"))))
        made.append(("write_register", (vtd.GCMD.offset, 4, self.command)))
        return made

    def step(self) -> list[Operation]:
        """Return the next operations; most often a single one."""
        makers: tuple[tuple[int, Callable[[], list[Operation]]], ...] = (
            (60, lambda: [self._access()]),
            (12, lambda: [self._paging_entry()]),
            (3, self._structures),
            (6, self._descriptors),
            (2, lambda: [self._damage()]),
            (2, self._registers),
            (1, lambda: [("adopt", (self._observation(),))]),
            (1, lambda: [self._snapshot(self.random.choice(TABLES), everywhere=self.chance(2))]),
            (1, lambda: self._restart() if self.chance(4) else []),
        )
        (chosen,) = self.random.choices(
            [maker for _, maker in makers], [weight for weight, _ in makers]
        )
        return chosen()

    def _restart(self) -> list[Operation]:
        return [("reset", ()), *self.opening()]

    def _damaged(self, word: int) -> int:
        return word ^ 1 << self.random.randrange(64) if self.chance(100) else word

    def _stores(self, address: int, words: list[int]) -> list[Operation]:
        return [
            ("store", (address + 8 * index, 8, self._damaged(word)))
            for index, word in enumerate(words)
        ]

    def _structures(self) -> list[Operation]:
        """Write one root, context, directory or PASID entry."""
        random = self.random
        makers: list[Callable[[], list[Operation]]] = [
            lambda: self._root(random.choice(SIDS)),
            lambda: self._context(random.choice(SIDS)),
            lambda: self._context(random.choice(SIDS)),
        ]
        if self.mode:
            makers += [
                lambda: self._directory(random.choice(PASIDS_USED)),
                lambda: self._pasid(random.choice(PASIDS_USED)),
                lambda: self._pasid(random.choice(PASIDS_USED)),
            ]
        return random.choice(makers)()

    def _present(self) -> int:
        return int(not self.chance(30))

    def _root(self, sid: int) -> list[Operation]:
        words = _words(RootEntry, p=self._present(), ctp=CONTEXT)
        if self.mode:
            words = _words(
                ScalableRootEntry, lp=self._present(), lctp=CONTEXT, up=1, uctp=UPPER_CONTEXT
            )
        return self._stores(ROOT + 16 * (sid >> 8), words)

    def _context(self, sid: int) -> list[Operation]:
        random, function = self.random, sid & 0xFF
        common = {"p": self._present(), "fpd": int(self.chance(6))}
        if not self.mode:
            words = _words(
                ContextEntry,
                tt=random.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3)),
                ssptptr=random.choice(TABLES),
                aw=random.choice((1, 1, 1, 2, 2, 2, 3)),
                did=random.randrange(1, 4),
                **common,
            )
            return self._stores(CONTEXT + 16 * function, words)
        words = _words(
            ScalableContextEntry,
            paside=int(not self.chance(10)),
            pdts=random.choice((0, 7, 7)),
            pasiddirptr=DIRECTORY,
            rid_pasid=random.choice((0, 0, 1)),
            rid_priv=int(self.chance(4)),
            dte=int(not self.chance(4)),
            **common,
        )
        table = UPPER_CONTEXT if function >> 7 else CONTEXT
        return self._stores(table + 32 * (function & 0x7F), words)

    def _directory(self, pasid: int) -> list[Operation]:
        silent = int(self.chance(10))
        words = _words(PasidDirectoryEntry, p=self._present(), fpd=silent, smptblptr=PASIDS)
        return self._stores(DIRECTORY + 8 * (pasid >> 6), words)

    def _pasid(self, pasid: int) -> list[Operation]:
        random = self.random
        extra = {name: int(self.chance(4)) for name in ("ssee", "ssade", "nxe", "ere", "smep")}
        extra |= {name: random.getrandbits(1) for name in ("sre", "wpe", "pwsnp")}
        extra |= {name: int(self.chance(20)) for name in ("eafe", "pgsnp", "cd")}
        extra["aw"] = random.choice((1, 1, 2, 2, 3))
        extra["pgtt"] = random.choice((1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4))
        extra["fspm"] = random.choice((0, 0, 0, 1))
        if self.made is not None and not self.chance(12):
            self._make_usable(extra, self.made)
        words = _words(
            PasidEntry,
            p=self._present(),
            fpd=int(self.chance(6)),
            ssptptr=random.choice(TABLES),
            did=random.randrange(1, 4),
            fsptptr=random.choice(TABLES),
            **extra,
        )
        return self._stores(PASIDS + 64 * (pasid & 63), words)

    def _make_usable(self, values: dict[str, int], config: UnitConfig) -> None:
        """Take from the fields of a PASID entry what the unit does not offer."""
        for name, capability in (*PASID_CAPABILITIES, ("ssade", "ssads")):
            if name in values and not config.ecap(capability):
                values[name] = 0
        values["fspm"] &= config.cap("fs5lp")
        if not config.width_supported(values["aw"]):
            values["aw"] = config.widest
        if self.nests and not self.chance(8):
            values["pgtt"] = 3
        if not config.ecap({1: "fsts", 2: "ssts", 3: "nest", 4: "pt"}[values["pgtt"]]):
            values["pgtt"] = 1 if config.ecap("fsts") else 2

    def _paging_entry(self) -> Operation:
        random = self.random
        index = entry_index(random.choice(IOVAS + TABLES[:3]), random.randrange(1, 5))
        return ("store", (random.choice(TABLES) + 8 * index, 8, self._paging_value()))

    def _paging_value(self) -> int:
        random = self.random
        # A nested walk reads two dozen entries: in a calm life most of them are good.
        rare = 8 if self.calm else 1
        if self.chance(16 * rare):
            return random.choice((0, 0, 0, (1 << 64) - 1))
        target = random.choice(TABLES)
        if self.chance(8 * rare):
            target = random.choice((0x4000_0000, 0x20_0000, 0xFEE0_0000, 0xFED0_0000))
        # Allowed in both stages, but for what chance takes away.
        value = target | _FS.mask("p", "rw", "us")
        for name in ("p", "rw", "us", "a", "d", "xd"):
            if self.chance(16 * rare):
                value ^= _FS[name].mask
        if self.chance(8):
            value = value & -0x4000_0000 | _FS.mask("p", "rw", "us", "ps")
        for name in ("snp", "tm", "ps"):
            if self.chance(40 * rare):
                value ^= _SS[name].mask
        return self._damaged(value)

    def _damage(self) -> Operation:
        random = self.random
        size = random.choice((1, 2, 4, 8))
        address = random.choice(ARENA) + random.randrange(0, PAGE, size)
        if self.chance(30):
            address = random.getrandbits(64) & -8
        return ("store", (address, size, random.getrandbits(8 * size) * random.getrandbits(1)))

    def _snapshot(self, table: int, everywhere: bool) -> Operation:
        """Fill a page with entries where the walks of the addresses in use look, or with few."""
        page = bytearray(PAGE)
        # TABLES are addresses, too: those that the second stage translates in nested walks.
        for iova in IOVAS + FAR_IOVAS + TABLES:
            for level in range(1, 6):
                if everywhere or self.chance(20):
                    offset = 8 * entry_index(iova, level)
                    page[offset : offset + 8] = self._paging_value().to_bytes(8, "little")
        return ("snapshot", (table, bytes(page).rstrip(b"\0")))

    def _access(self) -> Operation:
        random = self.random
        with_pasid = (self.mode and self.chance(2)) or self.chance(30)
        pasid = random.choice(PASIDS_USED) if with_pasid else None
        iova = random.choice(FAR_IOVAS if self.chance(16) else IOVAS)
        kind = random.choice(tuple(AccessKind))
        attributes = NO_ATTRIBUTES
        if self.chance(4):
            attributes = random.choice(sorted(ATTRIBUTES))
        request = (random.choice(SIDS), pasid, iova, kind)
        if self.previous and self.chance(2):
            request = (*self.previous[:3], kind)
        self.previous = request
        iova = request[2]
        recorded: Outcome | None = None
        match random.randrange(8):
            case 0:
                recorded = Fault(random.choice((2, 5, 6, 0x71, 0x79, random.randrange(256))))
            case 1 | 2 | 3 if self.last:
                recorded = random.choice(self.last)
                if isinstance(recorded, Translation) and self.chance(2):
                    recorded = Translation(recorded.address | iova & recorded.mask & -PAGE, 0xFFF)
            case 4:
                recorded = Translation(random.choice(TABLES), 0xFFF)
        return ("access", (*request, recorded, attributes))

    def _descriptors(self) -> list[Operation]:
        """Put one to three descriptors into the queue and ring."""
        made: list[Operation] = []
        size = 32 if self.wide else 16
        for _ in range(self.random.randrange(1, 4)):
            made += self._stores(QUEUE + self.tail, self._descriptor())
            self.tail = (self.tail + size) % PAGE
        tail = self.tail if not self.chance(40) else self.random.getrandbits(19)
        made.append(("write_register", (vtd.IQT.offset, 8, tail)))
        return made

    def _descriptor(self) -> list[int]:
        random = self.random
        kind = random.choice((*DESCRIPTORS, 1, 2, 2, 2, 5, 6, 6, 7))
        shape = layout(DESCRIPTORS[kind])
        words = [0, 0, 0, 0] if self.wide else [0, 0]
        choices = {
            "type": kind,
            "g": random.randrange(4),
            "did": random.choice((0, 1, 1, 2, 2, 3, 3)),
            "sid": random.choice(SIDS),
            "pasid": random.choice(PASIDS_USED),
            "fm": random.randrange(4),
            "am": random.choice((0, 0, 9, 18, 63)),
            "ih": random.getrandbits(1),
            "addr": random.choice(IOVAS + FAR_IOVAS) >> 12,
            "iflag": random.getrandbits(1),
            "sw": random.getrandbits(1),
            "stdata": random.getrandbits(32),
            "staddr": 0x7000 >> 2,
        }
        for name, value in choices.items():
            if name in shape.fields:
                shape[name].put(words, value & (1 << shape[name].width) - 1)
        return words

    def _registers(self) -> list[Operation]:
        random = self.random
        match random.randrange(9):
            case 0:
                bit = random.choice(("te", "qie", "sirtp", "cfi"))
                off = self.command ^ _GCMD[bit].mask
                again = [] if self.chance(8) else [self.command]
                return [("write_register", (vtd.GCMD.offset, 4, value)) for value in (off, *again)]
            case 1:
                mode = random.choice((self.mode, self.mode, 0, 1, 2, 3))
                root = ROOT | mode << 10 | (1 << 60 if self.chance(16) else 0)
                back = [] if self.chance(3) else [ROOT | self.mode << 10]
                latch = ("write_register", (vtd.GCMD.offset, 4, self.command | _GCMD["srtp"].mask))
                return [
                    made
                    for value in (root, *back)
                    for made in (("write_register", (vtd.RTADDR.offset, 8, value)), latch)
                ]
            case 2:
                return [("write_register", (vtd.FSTS.offset, 4, random.getrandbits(8)))]
            case 3:
                register = random.choice((vtd.FECTL, vtd.IECTL))
                value = random.getrandbits(1) << 31
                return [("write_register", (register.offset, 4, value))]
            case 4:
                return [("write_register", (vtd.ICS.offset, 4, 1))]
            case 5:
                base = random.choice((0x220, 0x230, 0x240, 0x400))
                return [("write_register", (base + 12, 4, 1 << 31))]
            case 6:
                word = random.getrandbits(34) | random.randrange(4) << 61 | 1 << 63
                return [("write_register", (vtd.CCMD.offset, 8, word))]
            case 7:
                base = random.choice((0xF0, 0x100))
                address = random.choice(IOVAS) | random.choice((0, 9, 0x40))
                word = random.randrange(1, 4) << 32 | random.randrange(4) << 60 | 1 << 63
                return [
                    ("write_register", (base, 8, address)),
                    ("write_register", (base + 8, 8, word)),
                ]
            case _:
                # GCMD is left out: a random one would only switch everything off.
                size = random.choice((4, 4, 8, 2))
                offset = random.choice((random.randrange(0x1C, 0x260), random.randrange(0x7000)))
                return [
                    ("write_register", (offset & -4, size, random.getrandbits(8 * size))),
                    ("read_register", (offset & -4, size)),
                ]

    def _observation(self) -> Observation:
        random = self.random
        match random.randrange(4):
            case 0:
                return Descriptor(tuple(self._descriptor()))
            case 1:
                return FaultRecord(random.randrange(3), 0x1000, random.getrandbits(64))
            case 2:
                return StatusWrite(0x7000, random.getrandbits(32))
            case _:
                return Interrupt(0xFEE0_0000, 0x40)
