"""Tell which descriptors software put into the queue of a unit, and which of them it took."""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack

from decoders.events import Store
from decoders.vtd import registers as vtd
from harness.generate.vtd_tables import QUEUE
from harness.model.queue import QUEUE_UNIT
from harness.targets.model import ModelReplay


def head(guide: ModelReplay) -> int:
    """Return where the head of the queue is."""
    return guide.unit.registers.load(vtd.IQH)


def taken(guide: ModelReplay, since: int, slot: int) -> list[tuple[int, ...]]:
    """Return the descriptors that a unit took from its queue since its head was somewhere."""
    count = (head(guide) - since) % QUEUE_UNIT // slot
    places = ((since + n * slot) % QUEUE_UNIT for n in range(count))
    found = (guide.unit.load(QUEUE + place, slot) for place in places)
    return [unpack(f"<{slot // 8}Q", one) for one in found]


def descriptors(stores: Sequence[Store], slot: int) -> list[tuple[int, ...]]:
    """Return the descriptors that stores put into the queue."""
    words: dict[int, dict[int, int]] = {}
    for store in stores:
        if QUEUE <= store.address < QUEUE + QUEUE_UNIT:
            place = store.address - QUEUE
            words.setdefault(place // slot, {})[place % slot // 8] = store.value
    return [tuple(found.get(n, 0) for n in range(slot // 8)) for found in words.values()]
