"""Leave out of a sequence for a VT-d unit what a divergence does not need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from decoders.events import RegWrite, Store
from decoders.vtd import registers as vtd
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE

ATTEMPTS: Final = 400
"""Runs that shrinking one sequence may take."""

ROUNDS: Final = 2
"""What joined steps do may be needed less than what each of them did."""

_REPAIR: Final = "repair"
"""Label of a step that stores over descriptors that are in the queue."""

_QUEUE_BYTES: Final = 4096

T = TypeVar("T")
Check = Callable[[Sequence[Step]], bool]
"""Says whether a sequence still shows what it is kept for."""


def shrunk(steps: Sequence[Step], slot: int, check: Check) -> list[Step]:
    """Return a part of a sequence that still passes the check, with its descriptors moved up.

    What is left is in as few steps as will do.
    """
    left = [ATTEMPTS]
    known: dict[tuple[Step, ...], bool] = {}

    def allowed(candidate: Sequence[Step]) -> bool:
        tried = tuple(relocated(candidate, slot))
        if tried not in known:
            if left[0] <= 0:
                return False
            left[0] -= 1
            known[tried] = check(tried)
        return known[tried]

    kept = list(steps)
    for _ in range(ROUNDS):
        kept = _joined(_without(kept, allowed), allowed)
        for index in range(len(kept)):
            kept = _lighter(kept, index, allowed)
    return relocated(kept, slot)


def _joined(steps: list[Step], check: Check) -> list[Step]:
    """Let a step begin with what the one before it did, where no device acts between them."""
    at = 0
    while at + 1 < len(steps):
        step, following = steps[at : at + 2]
        one = replace(
            following,
            stores=step.stores + following.stores,
            writes=step.writes + following.writes,
            waits=step.waits + following.waits,
        )
        tried = [*steps[:at], one, *steps[at + 2 :]]
        acts = step.dma is not None or step.msi is not None
        if acts or _REPAIR in (step.label, following.label) or not check(tried):
            at += 1
        else:
            steps = tried
    return steps


def _lighter(steps: list[Step], index: int, check: Check) -> list[Step]:
    """Leave out of one step what it does beside what is needed."""

    def with_step(step: Step) -> list[Step]:
        return [*steps[:index], step, *steps[index + 1 :]]

    step = steps[index]
    for lighter in (replace(step, dma=None), replace(step, msi=None)):
        if lighter != step and check(with_step(lighter)):
            step = lighter

    def stores(part: list[Store]) -> Step:
        return replace(step, stores=tuple(part))

    step = stores(_without(list(step.stores), lambda part: check(with_step(stores(part)))))

    def writes(part: list[RegWrite]) -> Step:
        return replace(step, writes=tuple(part))

    step = writes(_without(list(step.writes), lambda part: check(with_step(writes(part)))))

    def reads(part: list[tuple[int, int]]) -> Step:
        return replace(step, reads=tuple(part))

    step = reads(_without(list(step.reads), lambda part: check(with_step(reads(part)))))
    return with_step(step)


def _without(items: list[T], check: Callable[[list[T]], bool]) -> list[T]:
    """Leave out what the check does not need: large parts first, from the end."""
    size = len(items) // 2 or len(items)
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
            if step.label != _REPAIR and not at % slot:
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
