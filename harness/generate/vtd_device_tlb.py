"""Make up what tells devices with TLBs to forget translations (VT-d 6.5.2.5 and 6.5.2.6)."""

from __future__ import annotations

from random import Random
from typing import Final

from decoders.layout import layout
from decoders.vtd.descriptors import DeviceTlbInvalidation, PasidDeviceTlbInvalidation
from decoders.vtd.paging import PAGE_SHIFT
from harness.generate.vtd_steps import Scene
from harness.generate.vtd_tables import FAR, HUGE, NEAR, PAGE, WIDE, Spot, packed

Words = tuple[int, ...]

_DEVICE: Final = layout(DeviceTlbInvalidation)
_PASID_DEVICE: Final = layout(PasidDeviceTlbInvalidation)
_EVERYTHING: Final = 52
"""Order of a range that has all pages."""

_ADDRESSES: Final = (1 << 64) - 1
_PASIDS: Final = (0, 1, 7, 64, 0xFFFFF)
_PLACES: Final = (NEAR, FAR, WIDE, HUGE, 0, 0xFEE0_0000, 0xFED0_0000, 1 << 63)
_ODD_BITS: Final = (9, 11, 12, 15, 16, 20, 21, 31, 48, 51, 52, 63)


def span(base: int, order: int) -> tuple[int, int]:
    """Return S and the address that give 2^order pages around a base.

    The lowest clear bit from bit 12 up is half of the range; where it is the whole, there is none.
    """
    if not order:
        return 0, base & -PAGE
    half = PAGE << order - 1
    if order == _EVERYTHING:
        return 1, _ADDRESSES & -PAGE
    return 1, base & -2 * half | half - PAGE


def device_tlb_invalidations(
    scene: Scene, spot: Spot | None, wide: bool, random: Random
) -> list[Words]:
    """Return what is queued behind other invalidations: enough, too little, or something else."""
    sid = random.choice(sorted(scene.ats))
    draw = random.random()
    if draw < 0.45:
        if spot is None or not spot.iovas:
            return [_without_pasid(sid, 0, _EVERYTHING)]
        return [_without_pasid(sid, spot.iovas[0], PAGE_SHIFT[spot.level] - PAGE_SHIFT[1])]
    if draw < 0.6 and spot is not None and spot.iovas:
        return [_without_pasid(sid, random.choice(spot.iovas), 0)]
    if draw < 0.75:
        return []
    place = random.choice(spot.iovas) if spot is not None and spot.iovas else random.choice(_PLACES)
    if random.random() < 0.3:
        place = random.choice(_PLACES)
    order = random.choice((0, 0, 1, 2, 3, 4, 8, 9, 10, 18, 19, 20, 21, 35, 51, _EVERYTHING))
    if draw < 0.85 and wide:
        return [_with_pasid(sid, place, order, random)]
    if draw < 0.9:
        sid = random.choice([device.sid for device in scene.devices] + [0, 0xFFFF])
    return [_without_pasid(sid, place, order)]


def odd_device_tlb_invalidation(scene: Scene, wide: bool, random: Random) -> Words:
    """Return one with a bit that may be reserved, or of the kind that the queue has no room for."""
    sid = random.choice(sorted(scene.ats))
    if random.random() < 0.5 or not wide:
        words = list(_without_pasid(sid, NEAR, 0))
    else:
        words = list(_with_pasid(sid, NEAR, 0, random))
    draw = random.random()
    if draw < 0.2:
        return _with_pasid(sid, NEAR, 0, random)
    if draw < 0.7:
        words[0] ^= 1 << random.choice(_ODD_BITS)
    else:
        words[1] ^= 1 << random.randrange(12)
    return tuple(words)


def _without_pasid(sid: int, base: int, order: int) -> Words:
    large, address = span(base, order)
    return packed(_DEVICE, type=3, sid=sid, s=large, addr=address)


def _with_pasid(sid: int, base: int, order: int, random: Random) -> Words:
    large, address = span(base, order)
    pasid, every = random.choice(_PASIDS), random.randrange(2)
    return packed(_PASID_DEVICE, type=8, sid=sid, pasid=pasid, g=every, s=large, addr=address)
