"""The recorder against the model: what a unit may have cached leads to watched pages only."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from decoders.events import AccessKind, Role, Translation
from decoders.layout import layout
from decoders.vtd.registers import Capability, ExtendedCapability
from harness.model.config import UnitConfig
from harness.model.dialects import DIALECTS
from harness.model.unit import VtdUnit
from tests.tools.guest_tables import (
    CONTEXT_GLOBAL,
    GCMD,
    IOTLB_GLOBAL,
    IQA,
    IQT,
    PASID_GLOBAL,
    QIE,
    RTADDR,
    SCALABLE,
    SRTP,
    WIDE,
    Descriptor,
    Make,
    Table,
    context_device,
    context_domain,
    iotlb_domain,
    iotlb_page,
    page,
    pasid_cache,
    pasid_iotlb,
    pasid_iotlb_page,
    reachable,
)
from tests.tools.plugin_host import Host

PAGES = 64
RING = 50
TE = 1 << 31


def _register(shape: Any, **values: int) -> int:
    words = [0]
    for name, value in values.items():
        layout(shape)[name].put(words, value)
    return words[0]


CONFIG = UnitConfig(
    _register(Capability, sagaw=6, mgaw=47, mamv=18, fro=0x22, cm=1),
    _register(ExtendedCapability, iro=0xF, qi=1, smts=1, pasid=1, pss=19, ssts=1, fsts=1, pt=1),
    dialect=DIALECTS["qemu-10.0"],
)


class Pair:
    """Let the plugin and a unit of the model see the same guest."""

    def __init__(self, host: Host, scalable: bool) -> None:
        self.host, self.unit, self.scalable = host, VtdUnit(CONFIG), scalable
        self.step = 32 if scalable else 16
        self.tail = 0
        self.register(RTADDR, page(1) | (SCALABLE if scalable else 0), 8)
        self.register(IQA, page(RING) | (WIDE if scalable else 0), 8)
        self.register(GCMD, SRTP | QIE | TE)

    def register(self, offset: int, value: int, size: int = 4) -> None:
        self.unit.write_register(offset, size, value)
        self.host.register(offset, value, size)

    def store(self, address: int, value: int) -> None:
        self.unit.store(address, 8, value)
        self.host.store(address, value)

    def invalidate(self, descriptor: Descriptor) -> None:
        for index, word in enumerate(descriptor):
            self.store(page(RING) + self.tail + 8 * index, word)
        self.tail = (self.tail + self.step) % 4096
        self.register(IQT, self.tail)

    def cached(self) -> Iterator[Table]:
        """Yield every table that an entry in a cache of the unit points to.

        One that is kept because it is not present points to nothing.
        """
        caches = self.unit.caches
        for tag in caches.structures.values():
            for ways in tag.values():
                for way in ways:
                    step = way.nonleaf.step
                    kind = "first" if step.role == Role.FIRST_STAGE else "second"
                    yield way.nonleaf.child, kind, step.level - 1
        if not self.scalable:
            for entries in caches.contexts.values():
                for entry in entries:
                    if entry.blocked is None:
                        yield entry.words[0], "second", (entry.words[1] & 7) + 2
        for entries in caches.pasids.values():
            for entry in entries:
                if entry.blocked is not None:
                    continue
                low, _, third, *_ = entry.words
                if low >> 6 & 7 == 1:
                    yield third, "first", 4
                else:
                    yield low, "second", (low >> 2 & 7) + 2


def store_entry(pair: Pair, random: Random) -> None:
    """Change one entry somewhere, to another table of its kind or to nothing."""
    number = random.randrange(2)

    def either(*pages: int) -> int:
        return random.choice((0, *(page(one) for one in pages), *(page(one) for one in pages)))

    kind = random.choice(("context", "pasid", "paging", "paging", "paging", "above"))
    if kind == "above":
        if pair.scalable and random.randrange(2):
            target = either(6, 16)
            pair.store(page(random.choice((32, 33))), target | bool(target))
        elif not random.randrange(4):
            target = either(2)
            pair.store(page(1), target | bool(target))
    elif kind == "context" or not pair.scalable:
        target = either(32, 33) if pair.scalable else either(3, 13)
        entry = page(2) + number * (32 if pair.scalable else 16)
        if not pair.scalable:
            pair.store(entry + 8, random.choice((5, 6)) << 8 | 1)
        pair.store(entry, target | (bool(target) and (9 if pair.scalable else 1)))
    if kind == "pasid" and pair.scalable:
        entry = page(random.choice((6, 16))) + 64 * number
        pair.store(entry, 0)
        pair.store(entry + 8, random.choice((5, 6)))
        pair.store(entry + 16, page(random.choice((7, 17))))
        pair.store(entry, random.choice((0, 1 << 6 | 1, 1 << 6 | 1, page(3) | 2 << 6 | 1 << 2 | 1)))
    if kind == "paging":
        table, below = random.choice(
            (((3, 13), (4, 14)), ((4, 14), (5, 15)), ((5, 15), (40, 41)))
            if not pair.scalable or not random.randrange(4)
            else (((7, 17), (8, 18)), ((8, 18), (9, 19)), ((9, 19), (10, 21)), ((10, 21), (40, 41)))
        )
        target = either(*below)
        pair.store(page(random.choice(table)) + 8 * number, target | (bool(target) and 7))


def some_address(random: Random) -> int:
    return sum(random.randrange(2) << shift for shift in (12, 21, 30, 39))


def invalidation(random: Random, scalable: bool) -> Descriptor:
    """Return a descriptor for something of this guest, or for nothing of it."""
    domain, number = random.choice((5, 5, 6, 6, 7)), random.randrange(3)
    address, order = some_address(random), random.choice((0, 0, 9, 18))
    address &= -(4096 << order)
    hint = not random.randrange(4)
    legacy = [
        CONTEXT_GLOBAL,
        context_domain(domain),
        context_device(domain, number, random.randrange(4)),
        IOTLB_GLOBAL,
        iotlb_domain(domain),
        *(iotlb_page(domain, address, order, hint),) * 3,
    ]
    if not scalable:
        return random.choice(legacy)
    pasids = [
        PASID_GLOBAL,
        pasid_cache(domain),
        *(pasid_cache(domain, number),) * 2,
        *(pasid_iotlb(domain, number),) * 2,
        *(pasid_iotlb_page(domain, number, address, order),) * 3,
    ]
    return random.choice(random.choice((legacy, pasids)))


@pytest.mark.parametrize("seed", range(16))
def test_what_may_be_cached_is_watched(make: Make, seed: int) -> None:
    random, scalable = Random(seed), bool(seed % 2)
    pair = Pair(make(PAGES), scalable)
    translated = fewer = 0
    for step in range(1200):
        for _ in range(60 if step == 0 else random.randrange(3)):
            store_entry(pair, random)
        if not random.randrange(3):
            before = len(pair.host.watched)
            pair.invalidate(invalidation(random, scalable))
            fewer += len(pair.host.watched) < before
        for _ in range(3):
            pasid = random.randrange(2) if scalable else None
            place = random.randrange(2), pasid, some_address(random)
            verdict = pair.unit.access(*place, AccessKind.READ)
            translated += isinstance(verdict.taken, Translation)
        pair.unit.findings()
        pair.unit.emitted()
        starts = {(page(1), "root", 0), *pair.cached()}
        seen = {address for address, _, _ in reachable(pair.host, starts, scalable, PAGES)}
        assert seen <= set(pair.host.watched), (seed, step)
    assert translated > 100 and fewer > 10
