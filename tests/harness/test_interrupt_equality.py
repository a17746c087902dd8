"""Interrupts in the native core are those of the model, whatever happens to both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest

from decoders.errors import DecodeError
from decoders.events import (
    Delivery,
    Event,
    Fault,
    InterruptRequest,
    Message,
    Posted,
    RegWrite,
    Reset,
    Store,
)
from decoders.fields import build, words
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InterruptEntryCacheInvalidation
from decoders.vtd.faults import Reason
from decoders.vtd.interrupt import (
    InterruptRemapEntry,
    PostedInterruptDescriptor,
    PostedInterruptEntry,
)
from decoders.vtd.register_fields import GlobalCommand, Irta
from harness.differential.pair_vtd import VtdPair
from harness.findings import FindingKind
from harness.model.config import UnitConfig
from harness.model.dialects import DIALECTS, Dialect
from harness.model.unit import VtdUnit
from harness.native import available
from harness.native.replay import NativeReplay
from harness.targets.model import ModelReplay
from harness.trace import Block
from harness.trace.codec import Encoder
from tests.writers.interrupts import compatible, remappable
from tests.writers.platform import descriptor, quadword, unit_config

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

OPERATIONS = int(os.environ.get("DMAREWIND_EQUALITY_OPERATIONS", "100000")) // 2
LIFE = 300
TABLES = (0x10_0000, 0x10_1000, 0x20_0000_0000)
"""Where the table may be; the last one is no RAM where there is a list of it."""
POSTED = (0x11_0000, 0x11_0040, 0x20_0000_1000)
QUEUE = 0x12_0000
SOURCES = (0x18, 0x1C, 0x0118, None)
INDICES = (*range(6), 255, 0xFFFF)

Operation = tuple[str, tuple[Any, ...]]


class Life:
    """Make up what software and devices do about interrupts."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.tail = 0
        self.last: list[Delivery] = []
        self.answers: dict[tuple[int, int], list[Delivery]] = {}

    def config(self) -> UnitConfig:
        """Return a unit with or without what changes the answers."""
        random = self.random
        dialect = random.choice(sorted(DIALECTS.items()))[1]
        if random.random() < 0.3:
            flags = {
                member.name: random.random() < 0.5
                for member in fields(Dialect)
                if member.type in ("bool", bool)
            }
            dialect = replace(dialect, **flags)  # type: ignore[arg-type]
        config = unit_config(
            ram=random.random() < 0.5,
            ir=int(random.random() < 0.95),
            mhmv=random.choice((0, 3, 15)),
            pi=random.getrandbits(1),
            cm=random.getrandbits(1),
            esirtps=random.getrandbits(1),
            nfr=random.choice((0, 3)),
        )
        return replace(config, dialect=dialect)

    def opening(self) -> Iterator[Operation]:
        """Yield what sets up a queue, a table and remapping."""
        yield "write_register", (vtd.IQA.offset, 8, QUEUE)
        yield "write_register", (vtd.FECTL.offset, 4, 0)
        for index in INDICES:
            for table in TABLES[:2]:
                yield from self.entry(table, index)
        for place in POSTED[:2]:
            yield from self.posted(place)
        yield from self.latch(TABLES[0])

    def latch(self, table: int) -> Iterator[Operation]:
        """Yield what makes a table the one in use; remapping is most often on."""
        random = self.random
        size = random.choice((2, 7, 15, 15))
        value = quadword(Irta, s=size, eime=random.getrandbits(1), irta=table >> 12)
        yield "write_register", (vtd.IRTA.offset, 8, value | (random.random() < 0.1) << 50)
        command = quadword(
            GlobalCommand, qie=1, ire=int(random.random() < 0.95), cfi=random.getrandbits(1)
        )
        yield "write_register", (vtd.GCMD.offset, 4, command)
        yield "write_register", (vtd.GCMD.offset, 4, command | layout(GlobalCommand)["sirtp"].mask)

    def entry(self, table: int, index: int) -> Iterator[Operation]:
        """Yield the stores of one entry, most often a sound one."""
        random = self.random
        common = {
            "p": int(random.random() < 0.9),
            "fpd": random.getrandbits(1),
            "vector": random.choice((0x31, 0x32, 0xF2)),
            "sid": random.choice((0x18, 0x18, 0x1C, 0x0100)),
            "sq": random.randrange(4),
            "svt": random.choice((0, 0, 1, 1, 2, 3)),
        }
        if random.random() < 0.4:
            place = random.choice(POSTED)
            low, high = words(
                build(
                    PostedInterruptEntry,
                    im=1,
                    urg=random.getrandbits(1),
                    pda_low=place >> 6 & 0x3FF_FFFF,
                    pda_high=place >> 32,
                    **common,
                )
            )
        else:
            low, high = words(
                build(
                    InterruptRemapEntry,
                    dm=random.getrandbits(1),
                    rh=random.getrandbits(1),
                    tm=random.getrandbits(1),
                    dlm=random.randrange(8),
                    dst=random.choice((0x100, 0x200, 0x1234_5678)),
                    **common,
                )
            )
        if random.random() < 0.1:
            low ^= 1 << random.randrange(64)
        if random.random() < 0.1:
            high ^= 1 << random.randrange(64)
        yield "store", (table + 16 * index + 8, 8, high)
        yield "store", (table + 16 * index, 8, low)

    def posted(self, place: int) -> Iterator[Operation]:
        """Yield the store that changes the control quadword of a posted descriptor."""
        random = self.random
        content = build(PostedInterruptDescriptor, sn=random.getrandbits(1), nv=0xF2, ndst=0x900)
        value = words(content)[4]
        if random.random() < 0.3:
            value ^= 1 << random.randrange(64)
        yield "store", (place + 32, 8, value)

    def invalidation(self) -> Iterator[Operation]:
        """Yield what invalidates some or all entries."""
        random = self.random
        order = random.choice((0, 0, 1, 3, 15, 31))
        content = descriptor(
            InterruptEntryCacheInvalidation,
            g=random.getrandbits(1),
            im=order,
            iidx=random.choice(INDICES),
        )
        for number, word in enumerate(content):
            yield "store", (QUEUE + self.tail + 8 * number, 8, word)
        self.tail = (self.tail + 16) % 0x1000
        yield "write_register", (vtd.IQT.offset, 8, self.tail)
        if random.random() < 0.5:  # the queue may have stopped at an error
            yield "write_register", (vtd.FSTS.offset, 4, 0x11)

    def answered(self, message: tuple[int, int], outcomes: list[Delivery]) -> None:
        """Learn what was permitted: later requests claim to have recorded it."""
        self.last = [*self.last[-8:], *outcomes]
        self.answers[message] = [*self.answers.get(message, [])[-3:], *outcomes]

    def request(self, index: int | None = None) -> Operation:
        """Return an interrupt request, with or without a recorded outcome.

        One of an index that is given is a plain one, and claims what was answered to it before.
        """
        random = self.random
        if index is not None and (earlier := self.answers.get(remappable(index))):
            return "interrupt", (0x18, *remappable(index), random.choice(earlier))
        index = random.choice(INDICES)
        message = remappable(index)
        if random.random() < 0.3:
            subhandle = random.choice((0, 1, 2, 0xFFFF, 0x1_0000))
            message = remappable(index - subhandle & 0xFFFF, subhandle)
        elif random.random() < 0.1:
            message = compatible()
        elif random.random() < 0.05:
            message = (random.getrandbits(40), random.getrandbits(32))
        recorded: Delivery | None = None
        if self.last and random.random() < 0.6:
            recorded = random.choice(self.last)
        elif random.random() < 0.2:
            recorded = Fault(random.choice((0, 0x22, 0x26)))
        return "interrupt", (random.choice(SOURCES), *message, recorded)

    def step(self) -> Iterator[Operation]:
        """Yield the next operations."""
        random = self.random
        draw = random.random()
        if draw < 0.6:
            yield self.request()
        elif draw < 0.8:
            index = random.choice(INDICES)
            yield from self.entry(random.choice(TABLES), index)
            if random.random() < 0.5:
                yield self.request(index)
        elif draw < 0.9:
            yield from self.invalidation()
        elif draw < 0.94:
            yield from self.posted(random.choice(POSTED))
        elif draw < 0.96:
            yield from self.latch(random.choice(TABLES))
        elif draw < 0.99:
            yield "write_register", (0x220 + 12, 4, 1 << 31)  # a fault record is free again
        else:
            yield "reset", ()
            yield from self.opening()


def live(seed: int, met: Counter[str]) -> int:
    """Lead both units through a life and compare all that is seen; return its length."""
    life = Life(Random(seed))
    config = life.config()
    pair = VtdPair(config)
    operations = life.opening()
    while pair.events < LIFE:
        for name, arguments in operations:
            verdict = pair.operate(name, *arguments)
            met.update(finding.kind for finding in pair.findings)
            if name == "interrupt":
                outcomes = [one.outcome for one in verdict.permitted]
                life.answered(arguments[1:3], outcomes)
                met.update(_name(outcome) for outcome in outcomes)
        operations = life.step()
    pair.compare()
    return pair.events


def _name(outcome: Delivery) -> str:
    return f"{outcome.reason:#x}" if isinstance(outcome, Fault) else type(outcome).__name__


def test_many_lives() -> None:
    done, seed, met = 0, 0, Counter[str]()
    while done < OPERATIONS:
        done += live(seed, met)
        seed += 1
    print(done, "operations in", seed, "lives:", dict(met))
    # A comparison of units that never get anywhere proves nothing.
    reasons = range(Reason.REMAP_REQUEST_RESERVED, Reason.POSTED_RESERVED + 1)
    wanted = {Message.__name__, Posted.__name__, *(f"{reason:#x}" for reason in reasons)}
    wanted |= set(FindingKind) - {FindingKind.PAGE_REUSE}
    assert wanted <= set(met), wanted - set(met)


def recording(seed: int) -> tuple[UnitConfig, list[Event]]:
    """Return a life as the events of a trace."""
    life = Life(Random(seed))
    config = life.config()
    unit = VtdUnit(config)
    events: list[Event] = []
    operations = life.opening()
    while len(events) < LIFE:
        for name, arguments in operations:
            events.append(EVENTS[name](*arguments))
            answer = getattr(unit, name)(*arguments)
            if name == "interrupt":
                life.answered(arguments[1:3], [one.outcome for one in answer.permitted])
                unit.findings()
            events += unit.emitted()
        operations = life.step()
    return config, events


EVENTS: dict[str, type[Event]] = {
    "store": Store,
    "write_register": RegWrite,
    "interrupt": InterruptRequest,
    "reset": Reset,
}


def test_replays_are_the_same() -> None:
    total: Counter[str] = Counter()
    for seed in range(20):
        config, events = recording(seed)
        raw = b"".join(Encoder().encode(event) for event in events)
        model, native = ModelReplay(config), NativeReplay(config)
        for replay in (model, native):
            replay.feed(Block(0, len(events), raw))
            replay.finish()
        assert native.counters() == model.counters(), seed
        assert native.findings() == model.findings(), seed
        total.update(model.counters().as_dict())
    assert total["interrupt_requests"] and total["agreed"] and total["fault_records"]


def test_damage_ends_both_at_the_same_event() -> None:
    config, events = recording(1)
    requests = [event for event in events if isinstance(event, InterruptRequest)]
    whole = b"".join(Encoder().encode(event) for event in requests)
    random = Random(2)
    for _ in range(500):
        raw = bytearray(whole)
        raw[random.randrange(len(raw))] = random.choice((0, 0x92, 0xC0, random.randrange(256)))
        ends = []
        for replay in (ModelReplay(config), NativeReplay(config)):
            damaged = False
            try:
                replay.feed(Block(0, len(requests), bytes(raw)))
            except DecodeError:
                damaged = True
            ends.append((damaged, replay.counters(), replay.findings()))
        assert ends[0] == ends[1], raw.hex()
