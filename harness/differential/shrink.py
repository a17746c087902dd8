"""Leave out of a sequence for a VT-d unit what a divergence does not need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from decoders.events import RegWrite, Store
from decoders.vtd import registers as vtd
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE

ATTEMPTS: Final = 200
"""Runs that shrinking one sequence may take."""

_QUEUE_BYTES: Final = 4096

T = TypeVar("T")
Check = Callable[[Sequence[Step]], bool]
"""Says whether a sequence still shows what it is kept for."""


def shrunk(steps: Sequence[Step], slot: int, check: Check) -> list[Step]:
    """Return a part of a sequence that still passes the check, with its descriptors moved up."""
    left = [ATTEMPTS]

    def allowed(candidate: Sequence[Step]) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        return check(relocated(candidate, slot))

    def lighter(index: int, step: Step) -> bool:
        return allowed([*kept[:index], step, *kept[index + 1 :]])

    kept = _without(list(steps), lambda part: allowed(part))
    for index in range(len(kept)):
        if kept[index].dma is not None and lighter(index, replace(kept[index], dma=None)):
            kept[index] = replace(kept[index], dma=None)
        if kept[index].msi is not None and lighter(index, replace(kept[index], msi=None)):
            kept[index] = replace(kept[index], msi=None)
    for index in range(len(kept)):
        kept[index] = _with_fewer_stores(kept[index], partial(lighter, index))
    return relocated(kept, slot)


def _with_fewer_stores(step: Step, check: Callable[[Step], bool]) -> Step:
    def passes(part: list[Store]) -> bool:
        return check(replace(step, stores=tuple(part)))

    return replace(step, stores=tuple(_without(list(step.stores), passes)))


def _without(items: list[T], check: Callable[[list[T]], bool]) -> list[T]:
    """Leave out what the check does not need: large parts first, from the end."""
    size = len(items) // 2
    while size:
        at = len(items) - size
        while at >= 0 and items:
            tried = items[:at] + items[at + size :]
            if check(tried):
                items = tried
            at -= size
        size //= 2
    return items


def relocated(steps: Sequence[Step], slot: int) -> list[Step]:
    """Return steps whose descriptors follow each other in the queue again."""
    places: dict[int, int] = {}
    tail, found = 0, []
    for step in steps:
        stores: list[Store] = []
        for store in step.stores:
            at = store.address - QUEUE
            if not 0 <= at < _QUEUE_BYTES:
                stores.append(store)
                continue
            first = at - at % slot
            if step.label != "repair" and not at % slot:
                places[first] = tail
                tail = (tail + slot) % _QUEUE_BYTES
            stores.append(replace(store, address=QUEUE + places.get(first, first) + at % slot))
        writes = [
            replace(write, value=tail) if _moves_tail(write) and write.value else write
            for write in step.writes
        ]
        found.append(replace(step, stores=tuple(stores), writes=tuple(writes)))
    return found


def _moves_tail(write: RegWrite) -> bool:
    return write.offset == vtd.IQT.offset
