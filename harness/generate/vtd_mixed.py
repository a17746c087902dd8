"""Make up what software and devices do to a unit that offers everything: more than QEMU does.

Steps are those of harness.generate.vtd, over tables of every kind at once; requests have PASIDs
and attributes. Further steps are about devices with TLBs and page requests, interrupts, virtual
commands, and observations that a recording may have where the unit did nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Final

from decoders.events import (
    ATTRIBUTES,
    NO_ATTRIBUTES,
    AccessKind,
    Attribute,
    Event,
    RegWrite,
    Role,
    Store,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
)
from harness.generate.vtd import Generator, Words
from harness.generate.vtd_devices import Devices
from harness.generate.vtd_mixed_interrupts import MixedInterrupts
from harness.generate.vtd_spaces import PASIDS, MixedTables, NestedSpace
from harness.generate.vtd_steps import DmaChoice, Scene, Step
from harness.generate.vtd_tables import PAGE, Spot, packed
from harness.model.lookup import TTM_ABORT, TTM_SCALABLE

_WAIT: Final = layout(InvalidationWait)
_CONTEXT: Final = layout(ContextCacheInvalidation)
_IOTLB: Final = layout(IotlbInvalidation)
_PASID: Final = layout(PasidCacheInvalidation)
_PASID_IOTLB: Final = layout(PasidIotlbInvalidation)
_IRE: Final = layout(vtd.GlobalCommand)["ire"].mask
_SRTP: Final = layout(vtd.GlobalCommand)["srtp"].mask
(_SCALABLE,) = packed(layout(vtd.RootTableAddress), ttm=TTM_SCALABLE)
(_ABORT,) = packed(layout(vtd.RootTableAddress), ttm=TTM_ABORT)
_ODD_PLACES: Final = (0xFEE0_0040, 0xFEF0_0000, 1 << 47, 1 << 56, (1 << 64) - PAGE, 0, PAGE)
_ATTRIBUTES: Final = tuple(sorted(ATTRIBUTES))
_TYPES: Final = Attribute.TRANSLATION_REQUEST | Attribute.TRANSLATED


@dataclass(frozen=True, slots=True)
class Request(DmaChoice):
    """Ask for DMA with a PASID, or with attributes."""

    pasid: int | None = None
    attributes: Attribute = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class MixedStep(Step):
    """Hold what happens behind the DMA of a step, too."""

    more: tuple[Event, ...] = ()


class MixedGenerator(Generator):
    """Make up sequences for a unit that nobody has to build."""

    def __init__(self, scene: Scene, random: Random) -> None:
        super().__init__(scene, random)
        self._last: Request | None = None
        self._devices = Devices(scene, random)
        self._messages = MixedInterrupts(scene, random)
        config = scene.config
        for kind, weight in (
            (self._remap, 10 if config.ecap("ir") else 1),
            (self._page_request, 6 if config.ecap("prs") else 1),
            (self._device_tlb, 6 if config.ecap("dt") else 1),
            (self._virtual_command, 4 if config.virtual_commands else 0),
            (self._repair, 25),
            (self._abort, 6 if config.ecap("adms") else 0),
            (self._seen, 1),
        ):
            self._kinds.append(kind)
            self._weights.append(weight)

    @property
    def _mixed(self) -> MixedTables:
        """Return the tables of the last sequence, which are of every kind."""
        assert isinstance(self.tables, MixedTables)
        return self.tables

    def _platform(self, sids: Sequence[int]) -> MixedTables:
        scene = self._scene
        return MixedTables(scene.config, sids, (scene.pool_start, scene.pool_pages), self._random)

    def _start(self) -> list[Step]:
        if self._random.random() < 0.9:
            self._level |= _IRE
        begin = Step(
            "page requests", (), self._devices.opening(self._mixed.page()), self._devices.reads
        )
        pages = [self._mixed.page() for _ in range(3)]
        stores, writes = self._messages.opening(pages, self._level)
        steps = super()._start()
        return [*steps, begin, Step("interrupt table", stores, writes)]

    # -- more steps --------------------------------------------------------------------------

    def _remap(self) -> list[Step]:
        """Change an interrupt entry, or the table, and request interrupts."""
        stores, asked = self._messages.change()
        steps: list[Step] = []
        draw = self._random.random()
        descriptors = [] if draw < 0.6 else [self._messages.invalidation()]
        if descriptors and self._queued:
            step = self._queue("interrupt", stores, descriptors, None, draw < 0.9)
        else:
            writes = self._messages.latch(self._level) if draw < 0.05 else ()
            step = Step("interrupt", tuple(stores), (*self._clear(), *writes))
        steps.append(_with(step, asked))
        return steps

    def _page_request(self) -> list[Step]:
        """Let devices ask for pages, and software look after the queue."""
        made = self._devices.requests(self._sid())
        return [_with(Step("page request", (), self._devices.registers()), made)]

    def _device_tlb(self) -> list[Step]:
        """Tell devices to forget, and answer their page requests."""
        if not self._queued:
            return self._access()
        found = [self._devices.descriptor(self._sid()) for _ in range(self._random.randint(1, 2))]
        return [self._queue("device", (), found, None, self._random.random() < 0.8)]

    def _virtual_command(self) -> list[Step]:
        """Ask for PASIDs, and give them back."""
        return [_with(Step("virtual command"), self._devices.virtual_command())]

    def _repair(self) -> list[Step]:
        """Make entries sound again: of all that are not, those that most depends on."""
        found = [
            spot for spot in self._mixed.spots if self._now[spot.address] != spot.words
        ]  # fmt: skip
        found.sort(key=lambda spot: spot.space >= 0)
        if not found:
            return self._access()
        stores: list[Store] = []
        for spot in found[:4]:
            self._now[spot.address] = spot.words
            stores += self._mixed.put(spot.address, spot.words)
        made = self._everything() if self._random.random() < 0.5 else self._covering(found[0])
        return self._flushed("repair of tables", stores, made, found[0])

    def _abort(self) -> list[Step]:
        """Let the unit abort everything for a while."""
        root = self._mixed.root | (_SCALABLE if self._mixed.scalable else 0)
        latched = self._level | _SRTP
        made: list[Step] = []
        for value in (root | _ABORT, root):
            writes = [RegWrite(vtd.RTADDR.offset, 8, value), RegWrite(vtd.GCMD.offset, 4, latched)]
            step = self._written(writes)
            more = self._devices.requests(self._sid()) if self._random.random() < 0.3 else ()
            made.append(_with(replace(step, label="abort"), more))
        return made

    def _seen(self) -> list[Step]:
        """Let a recording show what the unit did not do."""
        return [_with(Step("adopted"), [self._devices.observation()])]

    def _sid(self) -> int:
        return self._random.choice(self._scene.devices).sid

    def _odd(self) -> list[Step]:
        """Queue a strange descriptor: one with a random bit besides those of the base."""
        if self._random.random() < 0.9 or not self._queued:
            return super()._odd()
        word = 1 << self._random.randrange(64)
        number = self._random.randrange(1, 10)
        return [self._queue("odd descriptor", (), [(number | word, 0)], None, True)]

    # -- invalidations -----------------------------------------------------------------------

    def _covering(self, spot: Spot) -> list[Words]:
        """Return what a change asks for; of a host, for each domain that it serves."""
        tables, random = self._mixed, self._random
        if spot.role in (Role.CONTEXT, Role.SCALABLE_CONTEXT) and random.random() < 0.2:
            # In caching mode what blocks is kept with domain 0.
            return [packed(_CONTEXT, type=1, g=2), packed(_IOTLB, type=2, g=1)]
        if spot.address in tables.entries and random.random() < 0.6:
            pasid, space = tables.entries[spot.address]
            did = self._domain(space)
            one = packed(_PASID, type=7, g=1, did=did, pasid=pasid)
            return [one, packed(_PASID_IOTLB, type=6, g=2, did=did, pasid=pasid)]
        if spot.space < 0 or tables.spaces[spot.space].stage != Role.SECOND_STAGE:
            return super()._covering(spot)
        served = [
            space for space in tables.spaces
            if isinstance(space, NestedSpace) and space.host == spot.space
        ]  # fmt: skip
        if not served:
            return super()._covering(spot)
        own = tables.spaces[spot.space].domain
        return [
            self._page_of(did, spot) for did in dict.fromkeys((own, *(s.domain for s in served)))
        ]

    def _page_of(self, did: int, spot: Spot) -> Words:
        mask = 9 * (spot.level - 1)
        if mask > self._scene.config.cap("mamv") or self._random.random() < 0.2:
            return packed(_IOTLB, type=2, g=2, did=did)
        hint = int(spot.leaf and self._random.random() < 0.5)
        place = spot.iovas[0] & -(1 << 12 + mask)
        return packed(_IOTLB, type=2, g=3, did=did, am=mask, ih=hint, addr=place)

    def _pages(self, spot: Spot, hint: bool) -> Words:
        """Return an invalidation of the addresses that a paging entry serves."""
        tables = self._mixed
        if tables.spaces[spot.space].stage != Role.FIRST_STAGE or not tables.pasids:
            return super()._pages(spot, hint)
        pasids = [
            pasid for own in tables.pasids for pasid, at in own.items() if at == spot.space
        ]  # fmt: skip
        words = super()._pages(spot, hint)
        if pasids:
            changed = list(words)
            _PASID_IOTLB["pasid"].put(changed, self._random.choice(pasids))
            return tuple(changed)
        return words

    # -- DMA ---------------------------------------------------------------------------------

    def _dma(self, spot: Spot | None = None) -> DmaChoice:
        """Return a request: of any device, with any PASID, now and then with attributes."""
        random, tables = self._random, self._mixed
        if spot is None and self._last is not None and random.random() < 0.5:
            return replace(self._last, kind=random.choice((self._last.kind, AccessKind.READ)))
        base = super()._dma(spot)
        attributes = NO_ATTRIBUTES
        if random.random() < 0.25:
            attributes = random.choice(_ATTRIBUTES)
        place = next(
            n for n, one in enumerate(tables.places)
            if one.sid == self._scene.devices[base.device].sid
        )  # fmt: skip
        own = tables.pasids[place]
        device, pasid, space, iova = base.device, None, tables.places[place].space, base.iova
        if own and random.random() < 0.6:
            pasid = random.choice(list(own))
            space = own[pasid]
        if spot is not None and random.random() < 0.8:
            users = self._users(spot)
            if users:
                device, pasid, space = random.choice(users)
        elif random.random() < (0.04 if tables.scalable else 0.02):
            pasid = random.choice((*PASIDS, 0xFFFFF))
        where = list(tables.spaces[space].iovas) if space >= 0 else []
        if spot is not None and spot.space == space and spot.iovas and random.random() < 0.8:
            where = list(spot.iovas)
        if where and random.random() < 0.92:
            iova = random.choice(where) | 64 * random.randrange(PAGE // 64)
        elif random.random() < 0.3:
            iova = random.choice(_ODD_PLACES)
        if attributes & Attribute.TRANSLATED:
            iova = tables.target() | random.choice((0, 0x40))
        self._last = Request(device, base.kind, iova, pasid, attributes)
        return self._last

    def _users(self, spot: Spot) -> list[tuple[int, int | None, int]]:
        """Return devices, PASIDs and spaces of requests that read an entry."""
        tables = self._mixed
        wanted = {spot.space}
        wanted |= {
            index for index, space in enumerate(tables.spaces)
            if isinstance(space, NestedSpace) and space.host == spot.space
        }  # fmt: skip
        named = tables.entries.get(spot.address)
        found: list[tuple[int, int | None, int]] = []
        for device, one in enumerate(self._scene.devices):
            place = next(n for n, where in enumerate(tables.places) if where.sid == one.sid)
            if named is not None and place != spot.device:
                continue
            for pasid, space in tables.pasids[place].items():
                if (named is not None and pasid == named[0]) or space in wanted:
                    found.append((device, pasid, space))
            if tables.places[place].space in wanted:
                found.append((device, None, tables.places[place].space))
        return found


def _with(step: Step, more: Sequence[Event]) -> MixedStep:
    """Return a step with events behind it."""
    given = {one.name: getattr(step, one.name) for one in fields(Step)}
    return MixedStep(**given, more=tuple(more))
