"""Both replays give the same counters and the same findings for one trace, right or wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Clock,
    Descriptor,
    Event,
    FaultRecord,
    Gap,
    Observation,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
)
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from harness.native import NativeReplay, available
from harness.targets.model import ModelReplay
from harness.trace import Block
from harness.trace.codec import Encoder
from tests.harness.scenarios import PAGE, Operation, Scenario

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

TRACES = 60
LIFE = 300


def as_event(operation: Operation) -> Event | None:
    """Return an operation as the event that asks for it, None where there is none."""
    name, arguments = operation
    match name:
        case "store":
            return Store(*arguments)
        case "snapshot":
            address, data = arguments
            return Snapshot(address, Role.SECOND_STAGE, 1, data.ljust(PAGE, b"\0"))
        case "write_register":
            return RegWrite(*arguments)
        case "access":
            return Access(*arguments)
        case "reset":
            return Reset()
        case _:
            return None


def spoilt(random: Random, seen: list[Observation]) -> list[Observation]:
    """Return what a recording with faults would hold of what was seen."""
    made: list[Observation] = []
    for one in seen:
        match random.randrange(24):
            case 0:
                continue
            case 1:
                made += [one, one]
            case 2 if isinstance(one, Descriptor):
                made.append(Descriptor(one.words[:2]))
            case 3 if isinstance(one, Descriptor):
                made.append(Descriptor((one.words[0] ^ 0x10, *one.words[1:])))
            case 2 | 3 if isinstance(one, FaultRecord):
                made.append(FaultRecord(one.index, one.low, one.high ^ 1 << 63 ^ 1 << 33))
            case 2 if isinstance(one, StatusWrite):
                made.append(StatusWrite(one.address, one.value ^ 1))
            case _:
                made.append(one)
    if random.randrange(12) == 0:
        random.shuffle(made)
    return made


def recording(random: Random) -> tuple[UnitConfig, list[Event]]:
    """Make a trace of one random life, as a unit that is right most of the time had lived it."""
    scenario = Scenario(random)
    config = scenario.config()
    unit = VtdUnit(config)
    events: list[Event] = []
    operations = scenario.opening()
    while len(events) < LIFE:
        for operation in operations:
            event = as_event(operation)
            if event is None:
                continue
            name, arguments = operation
            if name == "store" and arguments[0] % PAGE + arguments[1] > PAGE:
                continue
            answer = getattr(unit, name)(*arguments)
            if isinstance(event, Access):
                scenario.answered(candidate.outcome for candidate in answer.permitted)
            events += [event, *spoilt(random, unit.emitted())]
        if random.randrange(4) == 0:
            offset = random.choice((0x1C, 0x34, 0x80, 0x220, 0x228))
            value = unit.read_register(offset, 4) ^ int(random.randrange(8) == 0)
            events.append(RegRead(offset, 4, random.choice((None, value, value))))
        if random.randrange(16) == 0:
            events += [Clock(len(events)), Release(PAGE)]
        if random.randrange(160) == 0:
            events.append(Gap("for no reason"))
        operations = scenario.step()
    return config, events


def blocks(events: list[Event], size: int) -> list[Block]:
    encoder = Encoder()
    return [
        Block(first, len(part), b"".join(map(encoder.encode, part)))
        for first in range(0, len(events), size)
        for part in (events[first : first + size],)
    ]


def test_findings_and_counters_are_the_same() -> None:
    total: Counter[str] = Counter()
    for seed in range(TRACES):
        config, events = recording(Random(seed))
        model, native = ModelReplay(config), NativeReplay(config)
        for block in blocks(events, 97):
            model.feed(block)
            native.feed(block)
            assert native.counters() == model.counters(), f"Random({seed})"
            assert native.findings() == model.findings(), f"Random({seed})"
        model.finish()
        native.finish()
        assert native.counters() == model.counters(), f"Random({seed})"
        assert native.findings() == model.findings(), f"Random({seed})"
        total.update(model.counters().as_dict())
    assert total["agreed"] and total["divergences"] and total["unjudged"]


def test_damage_ends_both_at_the_same_event() -> None:
    random = Random(1)
    config, events = recording(random)
    (block,) = blocks(events[:200], 200)
    for _ in range(300):
        raw = bytearray(block.raw)
        for _ in range(random.randrange(1, 3)):
            raw[random.randrange(len(raw))] = random.choice((0, 0xC0, random.randrange(256)))
        damaged = Block(0, block.events, bytes(raw[: random.choice((len(raw), 500))]))
        outcomes = []
        for target in (ModelReplay(config), NativeReplay(config)):
            place = ""
            try:
                target.feed(damaged)
            except DecodeError as error:
                place = ".".join(error.path.split(".")[:2])
            outcomes.append((place, target.counters(), target.findings()))
        assert outcomes[0] == outcomes[1]
