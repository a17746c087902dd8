"""Tell which descriptors software put into the queue of a unit, and which of them it took."""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack
from typing import Final

from decoders.events import Store
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DescriptorType,
    DeviceTlbInvalidation,
    InvalidationWait,
    PasidDeviceTlbInvalidation,
    descriptor_type,
)
from harness.model.queue import IQA, QUEUE_UNIT
from harness.targets.model import ModelReplay

_WAIT: Final = layout(InvalidationWait)
_PHYSICAL_FUNCTION: Final[dict[int, int]] = {
    DescriptorType.DEVICE_TLB: layout(DeviceTlbInvalidation).mask("pfsid_low", "pfsid_high"),
    DescriptorType.PASID_DEVICE_TLB: layout(PasidDeviceTlbInvalidation).mask(
        "pfsid_low", "pfsid_high"
    ),
}
"""Bits of PFSID by the type of the descriptor."""


def head(guide: ModelReplay) -> int:
    """Return where the head of the queue is."""
    return guide.unit.registers.load(vtd.IQH)


def base(guide: ModelReplay) -> int:
    """Return where the queue is in memory."""
    return IQA["iqa"].address((guide.unit.registers.load(vtd.IQA),))


def taken(guide: ModelReplay, since: int, slot: int) -> list[tuple[int, ...]]:
    """Return the descriptors that a unit took from its queue since its head was somewhere."""
    count = (head(guide) - since) % QUEUE_UNIT // slot
    places = ((since + n * slot) % QUEUE_UNIT for n in range(count))
    return [descriptor(guide, place, slot) for place in places]


def descriptor(guide: ModelReplay, place: int, slot: int) -> tuple[int, ...]:
    """Return the descriptor at a place of the queue."""
    return unpack(f"<{slot // 8}Q", guide.unit.load(base(guide) + place % QUEUE_UNIT, slot))


def refused(guide: ModelReplay, slot: int) -> tuple[int, ...]:
    """Return the descriptor that the unit stopped at, () when it did not stop."""
    return descriptor(guide, head(guide), slot) if guide.unit.queue.stopped else ()


def has_physical_function(words: Sequence[int]) -> bool:
    """Say whether PFSID of a device-TLB invalidation is set."""
    return bool(words[0] & _PHYSICAL_FUNCTION.get(descriptor_type(words[0]), 0))


def oddity(words: Sequence[int], *, page_requests: bool) -> str:
    """Say what is remarkable about a descriptor; empty for most.

    page_requests says whether the unit takes page requests (ECAP.PRS).
    """
    if descriptor_type(words[0]) == DescriptorType.WAIT:
        if _WAIT["sw"].get(words) or _WAIT["iflag"].get(words):
            return ""
        return "wait that only fences" if _WAIT["fn"].get(words) else "wait that asks for nothing"
    if descriptor_type(words[0]) == DescriptorType.PAGE_GROUP_RESPONSE:
        return "page group response" if page_requests else "page group response without PRS"
    return "device-TLB descriptor with PFSID" if has_physical_function(words) else ""


def descriptors(stores: Sequence[Store], start: int, slot: int) -> list[tuple[int, ...]]:
    """Return the descriptors that stores put into a queue that starts somewhere."""
    words: dict[int, dict[int, int]] = {}
    for store in stores:
        if start <= store.address < start + QUEUE_UNIT:
            place = store.address - start
            words.setdefault(place // slot, {})[place % slot // 8] = store.value
    return [tuple(found.get(n, 0) for n in range(slot // 8)) for found in words.values()]
