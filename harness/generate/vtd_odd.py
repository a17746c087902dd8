"""Make up what hardly any software does: strange descriptors, writes to registers as it likes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Final

from decoders.events import RegWrite
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    InterruptEntryCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
)
from harness.generate.vtd_tables import NEAR, STATUS, packed

Words = tuple[int, ...]

_WAIT: Final = layout(InvalidationWait)
_IOTLB: Final = layout(IotlbInvalidation)
_PASID: Final = layout(PasidCacheInvalidation)
_PASID_IOTLB: Final = layout(PasidIotlbInvalidation)
_ENTRIES: Final = layout(InterruptEntryCacheInvalidation)

_PLACE, _VALUE = 0xF00, 0xFFFF_FF07
_BOTH: Final[Words] = packed(
    _WAIT, type=5, sw=1, iflag=1, stdata=_VALUE, staddr=STATUS + _PLACE
)  # fmt: skip
"""A wait that asks for both at once (6.5.2.8 allows it)."""

_WRITTEN: Final = (
    (vtd.FECTL.offset, 8), (vtd.IECTL.offset, 8), (vtd.IEADDR.offset, 8), (vtd.FEADDR.offset, 8),
    (vtd.FECTL.offset, 4), (vtd.IECTL.offset, 4), (vtd.IEDATA.offset, 4), (vtd.FEDATA.offset, 4),
    (vtd.ICS.offset, 4), (vtd.RTADDR.offset, 8), (vtd.RTADDR.offset, 4), (vtd.FSTS.offset, 4),
)  # fmt: skip
"""Registers that software may write at any time without an effect on translation."""

_HALVES: Final = (vtd.FECTL.offset, vtd.IECTL.offset, vtd.IEADDR.offset)
"""Registers of 32 bits at multiples of 8 with another behind them."""

_IN_PAIRS: Final = (*_HALVES, vtd.FEADDR.offset)
"""Registers whose neighbour is the data of a message, or the upper half of its address."""

_READ_WHOLE: Final = (vtd.RTADDR.offset, vtd.FEADDR.offset, vtd.IEADDR.offset)
"""Registers that are read as widely as they were written."""

_FSTS_VALUES: Final = (0, 1, 0xFF)


def strange(random: Random, avoided: Collection[str], sound: Sequence[Words]) -> Words:
    """Return a descriptor that is strange; avoided are ids of known crashes."""
    spared = "wait-write-and-interrupt" in avoided
    match random.choice((0, 1, 3, 4, 5, 6) if spared else (0, 1, 2, 3, 4, 5, 6)):
        case 0:
            return (random.choice((0, 10, 15, 0x205, 0xE02)), 0)
        case 1:
            flags = random.choice(({"fn": 1}, {"iflag": 1}, {"iflag": 1, "fn": 1}, {}))
            return packed(_WAIT, type=5, **flags)
        case 2:
            return _BOTH
        case 3:
            words = list(random.choice(sound))
            words[random.randrange(2)] |= 1 << random.randrange(4, 64)
            return tuple(words)
        case 4:
            return packed(_IOTLB, type=2, g=3, did=1, am=random.choice((18, 19, 63)), addr=NEAR)
        case 5:
            return packed(_ENTRIES, type=4, g=random.randrange(2))
        case _:
            shape, kind = random.choice(((_PASID, 7), (_PASID_IOTLB, 6)))
            return packed(shape, type=kind, g=random.randrange(4), did=1)


def status_writes(words: Words) -> tuple[tuple[int, int], ...]:
    """Return the status writes that a strange descriptor asks for, as address and value."""
    asks = words[0] & 0x2F == _BOTH[0] & 0x2F
    return ((STATUS + _PLACE, _VALUE),) if asks else ()


def register_writes(
    random: Random, avoided: Collection[str]
) -> tuple[list[RegWrite], tuple[int, int]]:
    """Return writes to a register, and what to read of it."""
    offset, size = random.choice(_WRITTEN)
    if offset in _HALVES and "wide-register-write" in avoided:
        size = 4
    # The unit's own interrupts are masked, or not.
    value = random.getrandbits(8 * size) | random.getrandbits(1) << 31
    if offset == vtd.FSTS.offset:
        value = random.choice(_FSTS_VALUES)
    writes = [RegWrite(offset, size, value)]
    # Of two registers that one write reaches, the upper may or may not be written (11.2).
    if offset in _IN_PAIRS and size == 8:
        writes.insert(0, RegWrite(offset + 4, 4, value >> 32))
    whole = offset in _READ_WHOLE
    return writes, (offset, size if whole else 4)
