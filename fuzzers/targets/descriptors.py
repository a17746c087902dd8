"""Fuzz the invalidation queue: its descriptors, 128 and 256 bits wide, on units that cache."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from decoders.events import AccessKind, Event, Role, Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DESCRIPTORS,
    ContextCacheInvalidation,
    DeviceTlbInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PageGroupResponse,
    PasidCacheInvalidation,
    PasidDeviceTlbInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.tables import ContextEntry
from fuzzers import machines as m
from fuzzers import words
from fuzzers.memory_target import MemoryTarget
from fuzzers.real_memory import FIRST_STAGE, LEGACY, SECOND_STAGE, OnQemu
from fuzzers.scaffold import Piece, Scaffold, Tail
from harness.generate.vtd_tables import packed

_QUEUE_SIZE: Final = 512
_LARGE: Final = m.IOVA + (1 << 21)
"""An address in a large page, next to the table that IOVA goes through."""

_ADDRESS_BITS: Final = 40
_OTHER_TABLES: Final = m.SECOND + 0x8000
_LEGACY_CONTEXT, _SCALABLE_CONTEXT = 16, 32

_SEEDS: Final = (
    packed(layout(ContextCacheInvalidation), type=1, g=1),
    packed(layout(ContextCacheInvalidation), type=1, g=2, did=1),
    packed(layout(ContextCacheInvalidation), type=1, g=3, did=2, sid=1, fm=1),
    packed(layout(IotlbInvalidation), type=2, g=1),
    packed(layout(IotlbInvalidation), type=2, g=2, did=1),
    packed(layout(IotlbInvalidation), type=2, g=3, did=1, am=1, addr=m.IOVA),
    packed(layout(IotlbInvalidation), type=2, g=3, did=1, addr=_LARGE),
    packed(layout(DeviceTlbInvalidation), type=3, sid=1, addr=m.IOVA),
    (4, 0),
    packed(layout(InvalidationWait), type=5, sw=1, stdata=7, staddr=m.STATUS),
    packed(layout(InvalidationWait), type=5, iflag=1, fn=1),
    packed(layout(PasidIotlbInvalidation), type=6, g=2, did=1, pasid=0),
    packed(layout(PasidIotlbInvalidation), type=6, g=3, did=2, pasid=1, ih=1, addr=m.IOVA),
    packed(layout(PasidIotlbInvalidation), type=6, g=3, did=1, pasid=0, addr=_LARGE),
    packed(layout(PasidCacheInvalidation), type=7, g=1, did=1, pasid=0),
    packed(layout(PasidDeviceTlbInvalidation), type=8, sid=1, pasid=1, addr=m.IOVA),
    packed(layout(PageGroupResponse), type=9, rid=1, pasid=1, prgi=3),
)


def _scaffold(kinds: tuple[int, ...], ground: m.Ground = m.MADE_UP) -> Scaffold:
    """Return a unit that has cached what its tables say, and tables that say otherwise since."""
    wide = bool(kinds)
    memory: list[Event] = m.scalable(ground, kinds) if kinds else m.legacy(ground)
    memory += m.paging(m.SECOND, 4 if wide else 3, m.SECOND_FLAGS, ground.pool)
    if wide:
        memory += m.paging(m.FIRST, 4, m.FIRST_FLAGS, ground.pool)
    one, other, _, gone = ground.sids
    used = [
        *(m.access(one), m.access(other, kind=AccessKind.WRITE), m.access(gone)),
        *(m.access(one, _LARGE), m.access(other, pasid=1), m.access(one, _LARGE, pasid=1)),
    ]
    tops = [(m.SECOND + (2 if wide else 1) * m.PAGE, m.SECOND_FLAGS)]
    if wide:
        tops.append((m.FIRST + 2 * m.PAGE, m.FIRST_FLAGS))
    changed: list[Event] = []
    for number, (middle, flags) in enumerate(tops):
        table = _OTHER_TABLES + number * m.PAGE
        memory += m.stores(middle + 16, [ground.large | flags | 0x80])
        memory += m.stores(table + 8, [ground.pool + 0xB000 | flags])
        leaf = ground.pool + 0x9000 + number * m.PAGE
        changed += m.stores(middle + m.PAGE + 8, [leaf | flags])
        changed += m.stores(middle + 8, [table | flags, ground.large + 0x20_0000 | flags | 0x80])
    # Entries of devices change, too: one is another domain's, one is gone.
    if wide:
        changed += m.stores(m.PASIDS + 64, m.pasid_entry(ground, kinds[0], 3))
    else:
        place = m.CONTEXT + other * _LEGACY_CONTEXT
        changed += m.stores(place, packed(layout(ContextEntry), did=3, aw=1))
    left = gone * (_SCALABLE_CONTEXT if wide else _LEGACY_CONTEXT)
    changed.append(Store(m.CONTEXT + left, 8, 0))
    return Scaffold(
        ground.header,
        tuple(memory),
        (*m.enabled(scalable_mode=wide, wide=wide), *used, *changed),
        (Piece(m.QUEUE, _QUEUE_SIZE, Role.QUEUE),),
        tuple(used),
        Tail(vtd.IQT.offset, 32 if wide else 16),
        (*m.flushed(wide=wide), *used),
    )


def on_qemu() -> OnQemu:
    """Return what becomes of the scaffolds on QEMU's machines, which have one stage each."""
    return (
        ((LEGACY, partial(_scaffold, ())),),
        ((FIRST_STAGE, partial(_scaffold, (1, 1))), (SECOND_STAGE, partial(_scaffold, (2, 2)))),
    )


def _each_kind() -> Iterable[tuple[int, ...]]:
    """Yield each type with each granularity, and with each flag alone: at 0, and at the end."""
    for kind, cls in DESCRIPTORS.items():
        shape = layout(cls)
        named = {name: 1 for name in ("did", "pasid", "sid", "rid") if name in shape.fields}
        wide = {name: -1 for name, field in shape.fields.items() if field.width >= _ADDRESS_BITS}
        for others in ({}, wide) if wide else ({},):
            yield packed(shape, type=kind, **named, **others)
            for name, field in shape.fields.items():
                if field.width == 1 or name == "g":
                    yield from (
                        packed(shape, **(named | others | {"type": kind, name: value}))
                        for value in range(1, 1 << field.width)
                    )


def _seeds(wide: bool) -> Iterable[bytes]:
    for one in (*_SEEDS, *_each_kind()):
        filled = (*one, 0, 0)[: 4 if wide else 2]
        yield b"".join(word.to_bytes(8, "little") for word in filled)


def create() -> MemoryTarget:
    """Build the target."""
    choices = [_scaffold(kinds) for kinds in ((), (1, 2))]
    seeds = [bytes((number,)) + one for number in range(2) for one in _seeds(bool(number))]
    seeds += [
        (bytes((number,)) + b"".join(_seeds(bool(number))))[: 1 + _QUEUE_SIZE]
        for number in range(2)
    ]
    addresses = (m.IOVA, m.STATUS, m.POOL, m.IOVA | 1, m.IOVA | 0x40)
    return MemoryTarget(
        "descriptors",
        "invalidation descriptors, 128 and 256 bits wide",
        choices,
        seeds,
        (
            *words.of_types(DESCRIPTORS.items()),
            *words.of_layouts(DESCRIPTORS.values()),
            *map(words.quadword, addresses),
        ),
        on_qemu(),
    )
