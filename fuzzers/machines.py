"""Small VT-d machines for scaffolds: few tables, at the beginning of pages, that a walk reaches.

Every index that an address in use has is below 4, so that an input of 32 bytes fills what counts of
a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from decoders.events import Access, AccessKind, Attribute, Event, RegRead, RegWrite, Store
from decoders.layout import Layout, layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    IotlbInvalidation,
    PasidCacheInvalidation,
)
from decoders.vtd.interrupt import InterruptRemapEntry
from decoders.vtd.paging import PAGE_SHIFT
from decoders.vtd.registers import Capability, ExtendedCapability, GlobalCommand
from decoders.vtd.tables import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from harness.generate.vtd_tables import PAGE as PAGE
from harness.generate.vtd_tables import QUEUE as QUEUE
from harness.generate.vtd_tables import STATUS as STATUS
from harness.generate.vtd_tables import TABLES_START, packed
from harness.trace import Header, UnitInfo

ROOT, CONTEXT, DIRECTORY, PASIDS = (TABLES_START + n * PAGE for n in range(1, 5))
FIRST, SECOND = TABLES_START + 0x8000, TABLES_START + 0x10000
"""Where tables of the two stages begin: the top one, then one of each lower level."""

FLUSH_QUEUE: Final = QUEUE + PAGE
POOL: Final = 0x40_0000
"""Where leaves lead."""

IOVA: Final = sum(1 << PAGE_SHIFT[level] for level in (1, 2, 3))
"""An address whose indexes are 1 in the lowest three levels, and 0 above."""

_GCMD: Final = layout(GlobalCommand)
_ECAP: Final = layout(ExtendedCapability)
TE, QIE, SRTP, IRE, SIRTP = (_GCMD[name].mask for name in ("te", "qie", "srtp", "ire", "sirtp"))
_WIDE, _SCALABLE = 1 << 11, 1 << 10

CAPABILITY: Final = packed(
    layout(Capability),
    sagaw=14, mgaw=56, fro=0x22, sslps=3, mamv=18, nfr=1, fs1gp=1, fs5lp=1, psi=1,
)[0]  # fmt: skip
EXTENDED: Final = packed(
    layout(ExtendedCapability),
    iro=0x0F, qi=1, smts=1, dt=1, pt=1, sc=1, ssads=1, ssts=1, fsts=1, srs=1, ers=1, eafs=1, mts=1,
    pds=1, nest=1, pasid=1, prs=1, ir=1, pss=19, mhmv=15,
)[0]  # fmt: skip


def header(dialect: str = "spec") -> Header:
    """Return the header of a machine that has all that a unit can have."""
    unit = UnitInfo(
        version=0x10, capability=CAPABILITY, extended_capability=EXTENDED, host_address_width=46
    )
    return Header(dialect=dialect, units=(unit,))


@dataclass(frozen=True, slots=True)
class Ground:
    """Say what a scaffold stands on: the unit, source ids of devices, and where leaves lead.

    large is the beginning of 2 MiB that may be read. header has one unit.
    """

    header: Header
    sids: tuple[int, ...] = (0, 1, 2, 4)
    pool: int = POOL
    large: int = POOL

    def has(self, name: str) -> bool:
        """Say whether the unit has what a field of ECAP says."""
        return bool(_ECAP[name].get((self.header.units[0].extended_capability,)))


MADE_UP: Final = Ground(header())
PLAIN: Final = Ground(Header(units=(UnitInfo(capability=CAPABILITY),)))
"""Stands on a unit that has nothing but what CAP says."""


def stores(address: int, words: Iterable[int]) -> list[Event]:
    """Return the stores of quadwords that are not zero."""
    return [Store(address + 8 * n, 8, word) for n, word in enumerate(words) if word]


def paging(top: int, levels: int, flags: int, leaf: int) -> list[Event]:
    """Return tables that translate IOVA and the page behind it; one page for each level."""
    made: list[Event] = []
    table = top
    for level in range(levels, 1, -1):
        index = IOVA >> PAGE_SHIFT[level] & 0x1FF
        made += stores(table + 8 * index, [table + PAGE | flags])
        table += PAGE
    return [*made, *stores(table + 8, [leaf | flags, leaf + PAGE | flags])]


SECOND_FLAGS, FIRST_FLAGS = 0x3, 0x67
"""Read and write; present, writable, of a user, accessed and dirty."""


def legacy(ground: Ground, levels: int = 3) -> list[Event]:
    """Return tables of legacy mode: the third source passes through, the others translate."""
    made = stores(ROOT, packed(layout(RootEntry), p=1, ctp=CONTEXT))
    for number, sid in enumerate(ground.sids):
        words = packed(
            layout(ContextEntry),
            p=1, tt=2 * (number == 2), ssptptr=SECOND, aw=levels - 2, did=1 + number % 2,
        )  # fmt: skip
        made += stores(CONTEXT + 16 * sid, words)
    return made


def scalable(
    ground: Ground, kinds: Sequence[int], levels: int = 4, *, tracked: bool = False
) -> list[Event]:
    """Return tables of scalable mode: PASID n is translated as kinds[n] says (PGTT).

    Functions from 0x80 on have the context entries of those below. tracked has the second stage
    keep A and D bits.
    """
    made = stores(ROOT, packed(layout(ScalableRootEntry), lp=1, lctp=CONTEXT, up=1, uctp=CONTEXT))
    for number, sid in enumerate(ground.sids):
        words = packed(
            layout(ScalableContextEntry),
            p=1, dte=ground.has("dt"), paside=ground.has("pasid"), pre=ground.has("prs"),
            pasiddirptr=DIRECTORY, rid_pasid=number % len(kinds),
        )  # fmt: skip
        made += stores(CONTEXT + 32 * sid, words)
    made += stores(DIRECTORY, packed(layout(PasidDirectoryEntry), p=1, smptblptr=PASIDS))
    for pasid, kind in enumerate(kinds):
        entry = pasid_entry(ground, kind, 1 + pasid % 2, levels, tracked=tracked)
        made += stores(PASIDS + 64 * pasid, entry)
    return made


def pasid_entry(
    ground: Ground, kind: int, domain: int, levels: int = 4, *, tracked: bool = False
) -> tuple[int, ...]:
    """Return a PASID entry of a kind: 1 first stage, 2 second, 3 nested, 4 pass-through."""
    return packed(
        layout(PasidEntry),
        p=1, pgtt=kind, aw=2 if kind != 2 else levels - 2, did=domain,
        sre=ground.has("srs"), ere=ground.has("ers"), ssade=tracked,
        ssptptr=SECOND if kind in (2, 3) else 0,
        fsptptr=FIRST if kind in (1, 3) else 0,
        fspm=levels - 4 if kind in (1, 3) else 0,
    )  # fmt: skip


def interrupt_entries(table: int, count: int) -> list[Event]:
    """Return entries that remap interrupts of anyone: the last one is not present."""
    return [
        event
        for number in range(count)
        for event in stores(
            table + 16 * number,
            packed(layout(InterruptRemapEntry), p=number < count - 1, vector=0x30 + number),
        )
    ]


def enabled(*, scalable_mode: bool, wide: bool, base: int = QUEUE) -> list[Event]:
    """Return the register writes that set the root table and switch all on."""
    return [
        RegWrite(vtd.RTADDR.offset, 8, ROOT | _SCALABLE * scalable_mode),
        RegWrite(vtd.GCMD.offset, 4, SRTP),
        RegWrite(vtd.IQA.offset, 8, base | _WIDE * wide),
        RegWrite(vtd.GCMD.offset, 4, TE | QIE),
    ]


def _flush_stores(*, wide: bool) -> list[Event]:
    """Return a second queue that holds the invalidation of everything, whatever lay there."""
    context: Layout = layout(ContextCacheInvalidation)
    found = [packed(context, type=1, g=1)]
    if wide:
        found.append(packed(layout(PasidCacheInvalidation), type=7, g=3))
    found.append(packed(layout(IotlbInvalidation), type=2, g=1))
    size = 4 if wide else 2
    return [
        Store(FLUSH_QUEUE + 8 * (size * number + n), 8, word)
        for number, words in enumerate(found)
        for n, word in enumerate((*words, 0, 0)[:size])
    ]


def flushed(*, wide: bool) -> list[Event]:
    """Return what invalidates everything, whatever became of queues and their registers."""
    slot = 32 if wide else 16
    return [
        *_flush_stores(wide=wide),
        RegWrite(vtd.GCMD.offset, 4, TE),
        RegWrite(vtd.FSTS.offset, 4, 0x7F),
        RegWrite(vtd.IQT.offset, 8, 0),
        RegWrite(vtd.IQA.offset, 8, FLUSH_QUEUE | _WIDE * wide),
        RegWrite(vtd.GCMD.offset, 4, TE | QIE),
        RegWrite(vtd.IQT.offset, 8, slot * (3 if wide else 2)),
    ]


def access(
    sid: int,
    iova: int = IOVA,
    kind: AccessKind = AccessKind.READ,
    pasid: int | None = None,
    attributes: int = 0,
) -> Access:
    """Return a request without a recorded answer."""
    return Access(sid, pasid, iova, kind, None, Attribute(attributes))


STATE: Final[tuple[Event, ...]] = tuple(
    RegRead(register.offset, register.size, None) for register in (vtd.FSTS, vtd.IQH)
)
"""Reads of what a unit shows of itself."""
