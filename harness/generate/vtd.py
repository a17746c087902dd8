"""Make up what software could do to a VT-d unit: sound platforms, violations, invalidations, DMA.

A sequence is a list of steps; it depends on the random generator and the scene only. What a step
does to memory and registers is given as events, so that every target takes the same sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from decoders.events import AccessKind, RegWrite, Role, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.faults import FaultRecordRegister
from decoders.vtd.registers import fault_record_offset, iotlb_offset, iva_offset
from harness.generate.vtd_device_tlb import (
    device_tlb_invalidations,
    odd_device_tlb_invalidation,
)
from harness.generate.vtd_edits import edited
from harness.generate.vtd_interrupts import Interrupts
from harness.generate.vtd_moves import moved, moved_root
from harness.generate.vtd_odd import register_writes, status_writes, strange
from harness.generate.vtd_steps import ALWAYS, DmaChoice, Scene, Step, scene_page
from harness.generate.vtd_tables import (
    NEAR,
    NOWHERE,
    PAGE,
    QUEUE,
    STATUS,
    WIDE,
    Spot,
    Tables,
    packed,
)
from harness.model.lookup import TTM_ABORT, TTM_SCALABLE

_TE, _SRTP, _QIE, _IRE, _SIRTP, _CFI = (
    layout(vtd.GlobalCommand)[name].mask for name in ("te", "srtp", "qie", "ire", "sirtp", "cfi")
)
_WIDE_QUEUE: Final = layout(vtd.InvalidationQueueAddress)["dw"].mask
(_SCALABLE,) = packed(layout(vtd.RootTableAddress), ttm=TTM_SCALABLE)
(_ABORT,) = packed(layout(vtd.RootTableAddress), ttm=TTM_ABORT)
_QUEUE_BYTES: Final = 4096
_STATUS_WORDS: Final = 512
_F: Final = layout(FaultRecordRegister)["f"].mask >> 32
"""F in the highest four bytes of a fault record."""

_PFO, _IQE = (layout(vtd.FaultStatus)[name].mask for name in ("pfo", "iqe"))
_WAIT: Final = layout(InvalidationWait)
_CONTEXT: Final = layout(ContextCacheInvalidation)
_IOTLB: Final = layout(IotlbInvalidation)
_PASID: Final = layout(PasidCacheInvalidation)
_PASID_IOTLB: Final = layout(PasidIotlbInvalidation)

Words = tuple[int, ...]


class Generator:
    """Make up sequences for a scene; `tables` are those of the last one."""

    tables: Tables
    slot: int
    """Bytes of a descriptor in the last one."""

    def __init__(self, scene: Scene, random: Random) -> None:
        self._scene, self._random = scene, random
        config = scene.config
        self._record = fault_record_offset(config.capability, 0) + 12
        self._iotlb = iotlb_offset(config.extended_capability)
        self._iva = iva_offset(config.extended_capability)
        kinds: tuple[tuple[Callable[[], list[Step]], int], ...] = (
            (self._edit, 50),
            (self._access, 25),
            (self._flush, 8),
            (self._odd, 4),
            (self._register, 2),
            (self._enable, 2),
            (self._reroot, 2),
            (self._interrupt, 25 if scene.senders else 0),
        )
        self._kinds = [kind for kind, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def sequence(self, steps: int) -> list[Step]:
        """Return a sequence that begins in a machine that was just reset."""
        scene, random = self._scene, self._random
        self.tables = tables = self._platform([device.sid for device in scene.devices])
        self._now = {spot.address: spot.words for spot in tables.spots}
        self._tail, self._number = 0, random.randrange(1 << 20)
        self._given: DmaChoice | None = None
        self._queued = self.tables.scalable or random.random() < 0.7 or bool(scene.ats)
        self._wide = bool(scene.config.ecap("smts")) and (
            tables.stage == Role.FIRST_STAGE or tables.scalable or random.random() < 0.3
        )
        self.slot = 32 if self._wide else 16
        self._level = _TE | (_QIE if self._queued else 0)
        self._interrupts = Interrupts(scene.senders, random) if scene.senders else None
        if self._interrupts and random.random() < 0.9:
            self._level |= _IRE
        made = self._start()
        while len(made) < steps:
            (kind,) = random.choices(self._kinds, self._weights)
            made += kind()
        return made[:steps]

    # -- the platform ------------------------------------------------------------------------

    def _platform(self, sids: Sequence[int]) -> Tables:
        """Lay out the tables of a sequence."""
        scene = self._scene
        pool = scene.pool_start, scene.pool_pages
        return Tables(scene.config, sids, pool, self._random, scene.ats)

    def _start(self) -> list[Step]:
        """Return the steps that violate something, seldom, and switch translation on."""
        random, tables = self._random, self.tables
        stores = list(tables.stores)
        for _ in range(random.choice((0, 0, 1, 2, 3))):
            stores += self._change(random.choice(tables.spots))[0]
        root = tables.root | (_SCALABLE if tables.scalable else 0)
        writes = [RegWrite(vtd.RTADDR.offset, 8, root), RegWrite(vtd.GCMD.offset, 4, _SRTP)]
        if self._queued:
            queue = QUEUE | (_WIDE_QUEUE if self._wide else 0)
            writes += [
                RegWrite(vtd.IQT.offset, 8, 0),
                RegWrite(vtd.IQA.offset, 8, queue),
                RegWrite(vtd.GCMD.offset, 4, _QIE),
            ]
        if self._interrupts:
            stores += self._interrupts.start()
            writes += [RegWrite(vtd.IRTA.offset, 8, self._interrupts.root)]
            level = _QIE if self._queued else 0
            writes += [RegWrite(vtd.GCMD.offset, 4, level | _SIRTP)]
        first = Step("tables", tuple(stores), tuple(writes), (*ALWAYS, (vtd.GSTS.offset, 4)))
        enable = RegWrite(vtd.GCMD.offset, 4, self._level)
        return [first, *self._flushed("flush", (), self._everything()), self._written([enable])]

    def _written(self, writes: list[RegWrite], dma: bool = True) -> Step:
        reads = (*ALWAYS, (vtd.GSTS.offset, 4))
        choice = self._dma() if dma else None
        return Step("register", (), (*self._clear(), *writes), reads, choice)

    # -- steps -------------------------------------------------------------------------------

    def _access(self) -> list[Step]:
        return [Step("access", (), self._clear(), ALWAYS, self._dma())]

    def _edit(self) -> list[Step]:
        """Change an entry, invalidate more or less, and use it."""
        random = self._random
        spot = random.choice(self.tables.spots)
        stores: list[Store] = []
        if random.random() < 0.1:
            stores = moved(spot, self.tables, self._now)
        if not stores:
            stores, spot = self._change(spot)
        draw = random.random()
        steps = []
        if draw < 0.2:
            flushed = [Step("edit", tuple(stores), self._clear(), ALWAYS, self._dma(spot))]
        elif draw < 0.65:
            flushed = self._flushed("edit", stores, self._covering(spot), spot)
        else:
            flushed = self._flushed("edit", stores, self._insufficient(spot), spot)
        steps += flushed
        if random.random() < 0.3:
            steps.append(Step("access", (), self._clear(), ALWAYS, self._dma(spot)))
        return steps

    def _flush(self) -> list[Step]:
        random = self._random
        spot = random.choice(self.tables.spots)
        made = self._everything() if random.random() < 0.5 else self._covering(spot)
        return self._flushed("flush", (), made, spot)

    def _odd(self) -> list[Step]:
        """Queue a descriptor that is strange, and put waits in its place behind it."""
        if not self._queued:
            return self._access()
        head = self._tail
        if self._scene.ats and self._random.random() < 0.4:
            odd = odd_device_tlb_invalidation(self._scene, self._wide, self._random)
        else:
            odd = strange(self._random, self._scene.avoided, self._everything())
        step = self._queue("odd descriptor", (), [odd], None, False)
        # What is wrong with it can be read only now and then: not every unit has the register.
        seen = ((vtd.IQERCD.offset, 8),) if self._random.random() < 0.1 else ()
        step = replace(step, waits=status_writes(odd), reads=(*step.reads, *seen))
        repair: list[Store] = []
        at = head
        self._number += 1
        while at != self._tail:
            word = packed(_WAIT, type=5, sw=1, stdata=self._number, staddr=STATUS)
            repair += self._slot_stores(at, word)
            at = (at + self.slot) % _QUEUE_BYTES
        writes = (
            RegWrite(vtd.FSTS.offset, 4, _IQE),
            RegWrite(vtd.IQT.offset, 8, self._tail),
        )
        again = Step("repair", tuple(repair), writes, ALWAYS, None, ((STATUS, self._number),))
        return [step, again]

    def _register(self) -> list[Step]:
        """Write to a register, which may let an interrupt of the unit go."""
        writes, place = register_writes(self._random, self._scene.avoided)
        steps = [Step("register", (), tuple(writes), (*ALWAYS, place), self._dma())]
        if place[0] == vtd.RTADDR.offset:
            # It counts with the next SRTP only.
            root = self.tables.root | (_SCALABLE if self.tables.scalable else 0)
            steps.append(self._written([RegWrite(place[0], 8, root)]))
        return steps

    def _enable(self) -> list[Step]:
        """Switch translation off and on again."""
        off = self._written([RegWrite(vtd.GCMD.offset, 4, self._level & ~_TE)])
        return [off, self._written([RegWrite(vtd.GCMD.offset, 4, self._level)])]

    def _reroot(self) -> list[Step]:
        """Set the root table once more, moved, or one that is not sound and then the sound one."""
        random, tables = self._random, self.tables
        stores = moved_root(tables, self._now) if random.random() < 0.3 else []
        root = tables.root | (_SCALABLE if tables.scalable else 0)
        wrong = random.choice(
            (root, root ^ _SCALABLE, root | _ABORT, tables.zeros, NOWHERE, root | 1 << 50)
        )
        steps = []
        for value in (root,) if stores else (wrong, root):
            writes = [
                RegWrite(vtd.RTADDR.offset, 8, value),
                RegWrite(vtd.GCMD.offset, 4, self._level | _SRTP),
            ]
            steps.append(replace(self._written(writes, dma=False), stores=tuple(stores)))
            steps += self._flushed("flush", (), self._everything())
        return steps

    def _interrupt(self) -> list[Step]:
        """Change the interrupt table or how it is used, and send a message."""
        random, interrupts = self._random, self._interrupts
        assert interrupts is not None
        draw = random.random()
        if draw < 0.25:
            return [Step("message", (), self._clear(), ALWAYS, msi=interrupts.request())]
        if draw < 0.3:
            return [Step("message", (), self._clear(), ALWAYS, self._message_by_dma())]
        if draw < 0.37:
            if random.random() < 0.3:
                self._level ^= _CFI if random.random() < 0.2 else _IRE
            level = RegWrite(vtd.GCMD.offset, 4, self._level)
            return [self._written([level], dma=False), self._message((), None)]
        if draw < 0.45:
            stores, writes = interrupts.moved()
            writes.append(RegWrite(vtd.GCMD.offset, 4, self._level | _SIRTP))
            step = replace(self._written(writes, dma=False), stores=tuple(stores))
            return [step, self._message((), None)]
        stores, index = interrupts.edit()
        return [self._message(stores, index)]

    def _message(self, stores: Sequence[Store], index: int | None) -> Step:
        """Return a step that stores, invalidates an entry, or all, and sends a message."""
        assert self._interrupts is not None
        msi = self._interrupts.request(index)
        dropped = self._interrupts.dropping(index or 0)
        if not self._queued:
            return Step("message", tuple(stores), self._clear(), ALWAYS, msi=msi)
        return replace(self._queue("message", stores, dropped, None, True), dma=None, msi=msi)

    def _message_by_dma(self) -> DmaChoice:
        """Return DMA to the interrupt range by a device that writes two doublewords, or any DMA."""
        assert self._interrupts is not None
        devices = enumerate(self._scene.devices)
        able = [index for index, device in devices if device.write_alignment == 4]
        if not able:
            return self._dma()
        address = self._interrupts.request().address & ~0x7
        return DmaChoice(self._random.choice(able), AccessKind.WRITE, address)

    # -- edits -------------------------------------------------------------------------------

    def _change(self, spot: Spot) -> tuple[list[Store], Spot]:
        """Return stores that change an entry, or repair one that is not sound."""
        now = self._now[spot.address]
        words = spot.words
        if now == spot.words or self._random.random() < 0.4:
            words = edited(spot, self.tables, self._random)
        self._now[spot.address] = words
        places = [n for n, (old, new) in enumerate(zip(now, words, strict=True)) if old != new]
        return [Store(spot.address + 8 * n, 8, words[n]) for n in places], spot

    # -- invalidations -----------------------------------------------------------------------

    def _everything(self) -> list[Words]:
        found = [packed(_CONTEXT, type=1, g=1)]
        if self._wide:
            found.append(packed(_PASID, type=7, g=3))
        return [*found, packed(_IOTLB, type=2, g=1)]

    def _covering(self, spot: Spot) -> list[Words]:
        """Return what the specification asks for behind a change of an entry (6.5)."""
        random, tables = self._random, self.tables
        if spot.space >= 0:
            return [self._pages(spot, random.random() < 0.5 and spot.leaf)]
        place = tables.places[spot.device]
        pasid, did = place.pasid, self._domain(place.space)
        match spot.role:
            case Role.CONTEXT | Role.SCALABLE_CONTEXT:
                first = packed(_CONTEXT, type=1, g=3, sid=place.sid, did=did)
                if random.random() < 0.3:
                    first = packed(_CONTEXT, type=1, g=1)
                pasids = [packed(_PASID, type=7, g=3)] if self._wide else []
                return [first, *pasids, packed(_IOTLB, type=2, g=1)]
            case Role.PASID_TABLE | Role.PASID_DIRECTORY:
                first = packed(_PASID, type=7, g=3)
                if spot.role == Role.PASID_TABLE and random.random() < 0.3:
                    first = packed(_PASID, type=7, g=1, did=did, pasid=pasid)
                return [first, packed(_IOTLB, type=2, g=1)]
            case _:
                return self._everything()

    def _pages(self, spot: Spot, hint: bool) -> Words:
        """Return an invalidation of the addresses that a paging entry serves."""
        random, space = self._random, self.tables.spaces[spot.space]
        first = space.stage == Role.FIRST_STAGE
        shape, kind = (_PASID_IOTLB, 6) if first else (_IOTLB, 2)
        pasids = [p.pasid for p in self.tables.places if p.space == spot.space] or [0]
        more = {"pasid": random.choice(pasids)} if first else {}
        mask = 9 * (spot.level - 1)
        if random.random() < 0.3 or mask > self._scene.config.cap("mamv"):
            return packed(shape, type=kind, g=2, did=space.domain, **more)
        return packed(
            shape,
            type=kind,
            g=3,
            did=space.domain,
            am=mask,
            ih=int(hint),
            addr=spot.iovas[0] & -(1 << 12 + mask),
            **more,
        )

    def _insufficient(self, spot: Spot) -> list[Words]:
        """Return less than a change needs, or something beside it."""
        random = self._random
        whole = self._covering(spot)
        draw = random.random()
        if len(whole) > 1 and draw < 0.6:
            return [random.choice(whole)]
        if spot.space >= 0 and draw < 0.5:
            other = random.choice([s for s in self.tables.spots if s.space >= 0])
            return [self._pages(other, random.random() < 0.5)]
        did = random.choice([space.domain for space in self.tables.spaces])
        return [
            random.choice((packed(_IOTLB, type=2, g=2, did=did), packed(_CONTEXT, type=1, g=1)))
        ]

    def _domain(self, space: int) -> int:
        return self.tables.spaces[space].domain if space >= 0 else 0x40

    def _flushed(
        self,
        label: str,
        stores: Sequence[Store],
        descriptors: list[Words],
        spot: Spot | None = None,
    ) -> list[Step]:
        """Return a step that stores, invalidates and uses what was changed."""
        if self._queued:
            wait = self._random.random() < 0.9
            return [self._queue(label, stores, descriptors, spot, wait)]
        writes = [write for words in descriptors for write in self._commands(words)]
        reads = (*ALWAYS, (vtd.CCMD.offset, 8), (self._iotlb, 8))
        dma = self._dma(spot)
        return [Step(label, tuple(stores), (*self._clear(), *writes), reads, dma)]

    def _commands(self, words: Words) -> list[RegWrite]:
        """Return the register writes that do what a descriptor says (11.4.6)."""
        kind = words[0] & 0xF
        if kind == 1:
            granularity = _CONTEXT["g"].get(words)
            value = 1 << 63 | granularity << 61
            value |= _CONTEXT["did"].get(words) | _CONTEXT["sid"].get(words) << 16
            return [RegWrite(vtd.CCMD.offset, 8, value | _CONTEXT["fm"].get(words) << 32)]
        if kind != 2:
            return []
        value = 1 << 63 | _IOTLB["g"].get(words) << 60 | _IOTLB["did"].get(words) << 32
        address = RegWrite(self._iva, 8, words[1])
        return [address, RegWrite(self._iotlb, 8, value)]

    def _queue(
        self,
        label: str,
        stores: Sequence[Store],
        descriptors: list[Words],
        spot: Spot | None,
        wait: bool,
    ) -> Step:
        placed, waits = list(stores), []
        if self._scene.ats and label != "odd descriptor":
            ats = device_tlb_invalidations(self._scene, spot, self._wide, self._random)
            descriptors = [*descriptors, *ats]
        dma = self._dma(spot)
        if wait:
            self._number += 1
            at = STATUS + 4 * (1 + self._number % _STATUS_WORDS)
            waits.append((at, self._number))
            more = {"fn": 1} if self._random.random() < 0.1 else {}
            descriptors = [
                *descriptors, packed(_WAIT, type=5, sw=1, stdata=self._number, staddr=at, **more)
            ]  # fmt: skip
        for words in descriptors:
            placed += self._slot_stores(self._tail, words)
            self._tail = (self._tail + self.slot) % _QUEUE_BYTES
        writes = (*self._clear(), RegWrite(vtd.IQT.offset, 8, self._tail))
        reads = (*ALWAYS, (vtd.ICS.offset, 4), (vtd.IECTL.offset, 4))
        return Step(label, tuple(placed), writes, reads, dma, tuple(waits))

    def _slot_stores(self, at: int, words: Words) -> list[Store]:
        filled = (*words, 0, 0)[: self.slot // 8]
        return [Store(QUEUE + at + 8 * n, 8, word) for n, word in enumerate(filled)]

    # -- DMA ---------------------------------------------------------------------------------

    def _clear(self) -> tuple[RegWrite, ...]:
        """Return the writes that make room for the next fault, seldom none."""
        draw = self._random.random()
        if draw < 0.05:
            return ()
        record = RegWrite(self._record, 4, _F)
        return (record,) if draw < 0.8 else (record, RegWrite(vtd.FSTS.offset, 4, _PFO))

    def _dma(self, spot: Spot | None = None) -> DmaChoice:
        random, tables = self._random, self.tables
        devices = self._scene.devices
        spaces = {place.sid: place.space for place in tables.places}
        wanted = list(range(len(devices)))
        if spot is not None and random.random() < 0.8:
            if spot.space >= 0:
                wanted = [n for n in wanted if spaces[devices[n].sid] == spot.space] or wanted
            elif spot.role != Role.ROOT:
                sid = tables.places[spot.device].sid
                wanted = [n for n in wanted if devices[n].sid == sid] or wanted
        if self._scene.ats and random.random() < 0.4:
            wanted = [n for n in wanted if devices[n].ats] or wanted
        index = random.choice(wanted)
        device = devices[index]
        kind = random.choice(device.kinds)
        space = spaces[device.sid]
        iovas = list(tables.spaces[space].iovas) if space >= 0 else []
        if spot is not None and spot.iovas and random.random() < 0.8:
            iovas = list(spot.iovas)
        reachable = [iova for iova in iovas if iova >> device.width == 0]
        draw = random.random()
        if draw < 0.88 and reachable:
            iova = random.choice(reachable)
        elif draw < 0.95 or space < 0:
            iova = scene_page(self._scene, random)
        else:
            iova = random.choice(
                (NEAR + 8 * PAGE, NOWHERE, 1 << 39, 1 << 47, 1 << 48, 1 << 63, WIDE - PAGE)
            )
        iova &= (1 << device.width) - 1
        if iova < self._scene.pool_start:
            iova = scene_page(self._scene, random)
        choice = DmaChoice(index, kind, iova | 64 * random.randrange(PAGE // 64))
        if device.ats:
            # What it was given is used again, while it may and while it may not.
            if self._given is not None and random.random() < 0.6:
                choice = replace(self._given, device=index)
            self._given = choice
        return choice
