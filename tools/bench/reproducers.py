"""Make traces that show a finding, long ones: made-up software, shipped recordings, whole queues.

Each depends on a seed only. What was wrong is put in on purpose: an answer that is not permitted,
an entry that software did not invalidate, a descriptor that the recorded unit should have refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from decoders.events import (
    Access,
    AccessKind,
    Descriptor,
    Event,
    RegRead,
    RegWrite,
    Request,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from harness.differential.simulated import Simulated
from harness.findings import FindingKind
from harness.generate.virtio import Generator as VirtioGenerator
from harness.generate.vtd import Generator
from harness.generate.vtd_steps import Device, Scene
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.model.translate import Request as Asked
from harness.model.unit import VtdUnit
from harness.model.virtio.dialect import SPECIFICATION as VIRTIO_SPECIFICATION
from harness.replay import unit_config
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Header, UnitInfo, open_events

CORPUS: Final = Path(__file__).parents[2] / "corpora" / "traces"
BOTH: Final = (AccessKind.READ, AccessKind.WRITE)
SIDS: Final = (0x20, 0x28, 0x200, 0x300)
POOL: Final = (0x3C_0000, 64)
UNITS: Final = {
    "legacy": (0xD2008C222F0606, 0xF42),
    "second-stage": (0xD2008C222F0606, 0x480080000F42),
    "first-stage": (0x1D2008C222F0606, 0x880000000F42),
}
"""CAP and ECAP of made-up units; those of QEMU's."""

_ATTEMPTS: Final = 20
_FLIPPED: Final = 1 << 24
_QUEUE: Final = 0x1E_0000
_STATUS: Final = 0x1F_0000
_QIE: Final = 1 << 26
_WAIT, _CONTEXT, _IOTLB = 5, 1, 2


@dataclass(frozen=True, slots=True)
class Reproducer:
    """Name a trace; which says what of it is to be kept: the finding at this index."""

    name: str
    trace: Trace
    which: int = -1


def reproducers() -> Iterator[Reproducer]:
    """Yield all of them; the queues' names begin with queue."""
    for wide in (False, True):
        word = "256" if wide else "128"
        yield Reproducer(f"queue {word}: refused descriptor", refused(400, 1, wide), 0)
        yield Reproducer(f"queue {word}: wrong status", wrong_status(300, 2, wide), 0)
        yield Reproducer(f"queue {word}: lost descriptor", lost(1500, 3, wide), 0)
    for number, (name, steps) in enumerate((name, n) for name in UNITS for n in (60, 400)):
        yield Reproducer(f"{name}: wrong answer, {steps} steps", wrong_answer(name, number, steps))
    for number, name in enumerate(UNITS):
        yield Reproducer(f"{name}: stale use", stale_use(name, 20 + number, 300))
    for name, events in _SHIPPED:
        yield Reproducer(f"{name}: wrong answer", shipped(name, events))
    for number, steps in enumerate((60, 400, 2000)):
        yield Reproducer(f"virtio: wrong answer, {steps} steps", virtio_answer(number, steps))
        yield Reproducer(f"virtio: wrong status, {steps} steps", virtio_status(number, steps))


_SHIPPED: Final = (
    ("legacy-strict", 3_000),
    ("reboot", 6_000),
    ("legacy-strict", 10_000),
    ("lazy", 5_000),
    ("scalable-first-stage", 10_000),
    ("legacy-device-tlb", 3_000),
    ("smp", 8_000),
    ("virtio-iommu", 3_000),
    ("virtio-iommu-lazy", 10_000),
)
"""Recordings and how many of their events are taken."""


# --- recordings ----------------------------------------------------------------------------------


def shipped(name: str, count: int) -> Trace:
    """Return the beginning of a shipped recording with one answer changed near its end."""
    with open_events(CORPUS / f"{name}.trace") as source:
        events = list(islice(source, count))
        return Trace(source.header, tuple(_with_wrong_answer(events)))


def _with_wrong_answer(events: list[Event]) -> list[Event]:
    """Let the last access that was translated lead elsewhere; end behind it."""
    for number in range(len(events) - 1, -1, -1):
        event = events[number]
        if isinstance(event, Access) and isinstance(event.outcome, Translation):
            wrong = replace(event.outcome, address=event.outcome.address ^ _FLIPPED)
            return [*events[:number], replace(event, outcome=wrong)]
    raise ValueError("no access was translated")


# --- made-up software ----------------------------------------------------------------------------


def header(name: str) -> Header:
    """Return the header of a made-up VT-d unit."""
    capability, extended = UNITS[name]
    info = UnitInfo(
        version=0x10, capability=capability, extended_capability=extended, host_address_width=48
    )
    return Header(units=(info,))


def wrong_answer(name: str, seed: int, steps: int) -> Trace:
    """Return a sequence in which the last translation is wrong."""
    events = list(_life(name, seed, steps, stale=False))
    return Trace(header(name), tuple(_with_wrong_answer(events)))


def stale_use(name: str, seed: int, steps: int) -> Trace:
    """Return a sequence whose unit answers from an entry that software has not invalidated."""
    for attempt in range(_ATTEMPTS):
        found = tuple(_life(name, seed + 1000 * attempt, steps, stale=True))
        trace = Trace(header(name), found)
        if any(one.signature.kind == FindingKind.STALE_USE for one in ReplayJudge("model")(trace)):
            return trace
    raise ValueError(f"{name}: no stale entry was used from seed {seed} on")


def _life(name: str, seed: int, steps: int, stale: bool) -> Iterator[Event]:
    """Yield what a unit does with made-up software; with stale, until it uses a stale entry."""
    config = unit_config(header(name))
    assert isinstance(config, UnitConfig)
    unit = VtdUnit(config)
    devices = [Device(sid, 64, BOTH, 64) for sid in SIDS]
    made = Generator(Scene(config, devices, *POOL), Random(seed)).sequence(steps)
    for number, step in enumerate(made):
        for store in step.stores:
            unit.store(store.address, store.size, store.value)
            yield store
        for write in step.writes:
            unit.write_register(write.offset, write.size, write.value)
            yield write
            yield from unit.emitted()
        for offset, size in step.reads:
            yield RegRead(offset, size, unit.read_register(offset, size))
        if step.dma is None:
            continue
        sid, iova, kind = SIDS[step.dma.device], step.dma.iova, step.dma.kind
        permitted, _ = unit.translator.permitted(Asked(sid, None, iova, kind))
        chosen = permitted[0].outcome
        late = stale and number > steps // 2
        if late:
            others = (one.outcome for one in permitted if one.cache)
            chosen = next((one for one in others if one != chosen), chosen)
        unit.access(sid, None, iova, kind, chosen)
        unit.findings()
        yield Access(sid, None, iova, kind, chosen)
        yield from unit.emitted()
        if late and chosen != permitted[0].outcome:
            return


# --- queues --------------------------------------------------------------------------------------


def _queue(count: int, seed: int, wide: bool) -> Iterator[tuple[list[Event], tuple[int, ...]]]:
    """Yield, for each of many descriptors, the events that hand it over and what it holds."""
    random = Random(seed)
    step, size = (32, 4096) if wide else (16, 4096)
    yield (
        [
            RegWrite(vtd.IQT.offset, 8, 0),
            RegWrite(vtd.IQA.offset, 8, _QUEUE | wide << 11),
            RegWrite(vtd.GCMD.offset, 4, _QIE),
        ],
        (),
    )
    tail = 0
    for number in range(count):
        kind = random.choice((_WAIT, _CONTEXT, _IOTLB, _IOTLB))
        low, high = kind | 1 << 4, 0
        if kind == _WAIT:
            low = _WAIT | 1 << 5 | (number + 1) << 32
            high = _STATUS + 4 * random.randrange(512)
        elif kind == _IOTLB:
            low = _IOTLB | 3 << 4 | random.randrange(1, 64) << 16
            high = random.randrange(1 << 20) << 12
        words = (low, high, 0, 0)[: step // 8]
        stores = [Store(_QUEUE + tail + 8 * n, 8, word) for n, word in enumerate(words)]
        tail = (tail + step) % size
        yield [*stores, RegWrite(vtd.IQT.offset, 8, tail)], words


def _executed(words: Sequence[int]) -> list[Event]:
    """Return what is seen of a descriptor that is executed."""
    seen: list[Event] = [Descriptor(tuple(words))] if words else []
    if words and words[0] & 0xF == _WAIT:
        seen.append(StatusWrite(words[1], words[0] >> 32))
    return seen


def _queued(
    count: int, seed: int, wide: bool, change: Callable[[int, list[Event], list[Event]], None]
) -> Trace:
    """Return a trace of a queue; change may edit what is said and seen of each descriptor."""
    events: list[Event] = []
    for number, (said, words) in enumerate(_queue(count, seed, wide)):
        seen = _executed(words)
        change(number, said, seen)
        events += said + seen
    return Trace(header("first-stage"), tuple(events))


def refused(count: int, seed: int, wide: bool) -> Trace:
    """Return a trace whose unit takes a descriptor with a reserved bit set, and goes on."""

    def change(number: int, said: list[Event], seen: list[Event]) -> None:
        if number == count * 3 // 4:
            low = _CONTEXT | 1 << 4 | 1 << 8
            words = (low, 0, 0, 0)[: 4 if wide else 2]
            first = said[0]
            assert isinstance(first, Store)
            stores = [replace(first, address=first.address + 8 * n, value=w)
                      for n, w in enumerate(words)]  # fmt: skip
            said[:-1] = stores
            seen[:] = [Descriptor(words), RegRead(vtd.FSTS.offset, 4, 0)]

    return _queued(count, seed, wide, change)


def wrong_status(count: int, seed: int, wide: bool) -> Trace:
    """Return a trace whose unit writes a status that no wait descriptor asked for."""
    done: list[int] = []

    def change(number: int, _: list[Event], seen: list[Event]) -> None:
        if number > count * 2 // 3 and not done and len(seen) == 2:
            done.append(number)
            status = seen[1]
            assert isinstance(status, StatusWrite)
            seen[1] = replace(status, value=status.value ^ 0x100)

    return _queued(count, seed, wide, change)


def lost(count: int, seed: int, wide: bool) -> Trace:
    """Return a trace whose unit never took one of the wait descriptors."""
    done: list[int] = []

    def change(number: int, _: list[Event], seen: list[Event]) -> None:
        if number > count // 2 and not done and len(seen) == 2:
            done.append(number)
            seen.clear()

    return _queued(count, seed, wide, change)


# --- virtio-iommu --------------------------------------------------------------------------------


def _virtio_life(seed: int, steps: int) -> tuple[Header, list[Event]]:
    unit = Simulated(VIRTIO_SPECIFICATION)
    guide = VirtioModelReplay(unit_config(unit.header))  # type: ignore[arg-type]
    events = unit.begin()
    for event in events:
        guide.apply(event)
    for step in VirtioGenerator(unit.scene, Random(seed)).sequence(steps):
        events += unit.step(step, guide)
    return unit.header, events


def virtio_answer(seed: int, steps: int) -> Trace:
    """Return a sequence in which the last translation is wrong."""
    made, events = _virtio_life(seed, steps)
    return Trace(made, tuple(_with_wrong_answer(events)))


def virtio_status(seed: int, steps: int) -> Trace:
    """Return a sequence in which the last request that was carried out was refused instead."""
    made, events = _virtio_life(100 + seed, steps)
    for number in range(len(events) - 1, -1, -1):
        event = events[number]
        if isinstance(event, Request) and event.answer == bytes(4) and event.data[0] == _MAP:
            return Trace(made, (*events[:number], replace(event, answer=b"\x04\0\0\0")))
    raise ValueError("no request was carried out")


_MAP: Final = 3
