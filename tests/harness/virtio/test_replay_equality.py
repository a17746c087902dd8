"""Both replays give the same counters and the same findings for one trace, right or wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    Clock,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    FaultReport,
    Features,
    Gap,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Store,
)
from harness.model.virtio.config import MappingBudgetError, VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from harness.native import NativeVirtioReplay, available
from harness.targets.virtio_model import VirtioModelReplay
from harness.trace import Block
from harness.trace.checks import ANSWER_LIMIT
from harness.trace.codec import Encoder
from tests.harness.virtio.lives import Life, Operation

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

TRACES = 150
LIFE = 300


def as_event(operation: Operation, answers: Any, random: Random) -> Event | None:
    """Return an operation as the event that asks for it; None where a trace cannot hold it."""
    name, arguments = operation
    match name:
        case "request":
            data, room, answer = arguments
            if answer is None and answers:
                # As a unit that chooses among what is permitted.
                answer = random.choice((None, answers[0], answers[0], random.choice(answers)))
            if room >> 32 or (answer is not None and len(answer) > min(room, ANSWER_LIMIT)):
                return None
            return Request(data, room, answer)
        case "access":
            endpoint, iova, kind, outcome = arguments
            return Access(endpoint, None, iova, kind, outcome)
        case "read_register":
            offset, size = arguments
            wrong = int(random.randrange(8) == 0)
            return RegRead(offset, size, random.choice((None, answers, answers ^ wrong)))
        case "write_register":
            offset, size, value = arguments
            return RegWrite(offset, size, value & (1 << 8 * size) - 1)
        case "endpoint":
            return Endpoint(*arguments)
        case "features":
            return Features(*arguments)
        case "config_space":
            return ConfigSpace(*arguments)
        case "device_reset":
            return DeviceReset()
        case _:
            return Reset()


def spoilt(random: Random, seen: list[FaultReport]) -> list[Event]:
    """Return what a recording with faults would hold of what was seen."""
    made: list[Event] = []
    for one in seen:
        match random.randrange(16):
            case 0:
                continue
            case 1:
                made += [one, one]
            case 2:
                flags = one.flags ^ random.choice((1, 2, 0x100, 0x200))
                made.append(FaultReport(one.reason, flags, one.endpoint, one.address))
            case 3:
                made.append(FaultReport(one.reason ^ 1, one.flags, one.endpoint, one.address))
            case 4:
                made.append(FaultReport(one.reason, one.flags, one.endpoint, one.address ^ 8))
            case _:
                made.append(one)
    return made


def recording(random: Random) -> tuple[VirtioConfig, list[Event]]:
    """Make a trace of one random life, as a unit that is right most of the time had lived it."""
    life = Life(random)
    unit = VirtioUnit(life.config)
    events: list[Event] = []
    operations = life.opening()
    try:
        while len(events) < LIFE:
            for one in operations:
                operation = one
                name, arguments = operation
                answers = getattr(unit, name)(*arguments)
                if name == "access":
                    unit.emitted()
                    operation = life.recorded(operation, answers)
                    unit.access(*operation[1])
                if (event := as_event(operation, answers, random)) is not None:
                    events += [event, *spoilt(random, unit.emitted())]
            if random.randrange(64) == 0:
                others: list[Event] = [
                    Clock(len(events)),
                    Store(0x1000, 8, 1),
                    FaultReport(2, 0x100, 0x18, 0),
                    Gap("for no reason"),
                ]
                events.append(random.choice(others))
            operations = [life.step()]
    except MappingBudgetError:
        pass
    return life.config, events


def blocks(events: list[Event], size: int) -> list[Block]:
    encoder = Encoder()
    return [
        Block(first, len(part), b"".join(map(encoder.encode, part)))
        for first in range(0, len(events), size)
        for part in (events[first : first + size],)
    ]


def fed(target: VirtioModelReplay | NativeVirtioReplay, block: Block) -> str:
    """Feed a target; return where it stopped, and why where both say it in the same words."""
    try:
        target.feed(block)
    except MappingBudgetError as error:
        return str(error)
    except DecodeError as error:
        return ".".join(error.path.split(".")[:2])
    return ""


def test_findings_and_counters_are_the_same() -> None:
    total: Counter[str] = Counter()
    for seed in range(TRACES):
        config, events = recording(Random(seed))
        if seed % 10 == 0:  # few traces need all that is usually allowed
            config = replace(config, mapping_budget=12)
        model, native = VirtioModelReplay(config), NativeVirtioReplay(config)
        for block in blocks(events, 97):
            stopped = fed(model, block)
            assert fed(native, block) == stopped, f"Random({seed})"
            assert native.counters() == model.counters(), f"Random({seed})"
            assert native.findings() == model.findings(), f"Random({seed})"
            if stopped:
                total[stopped] += 1
                break
        else:
            model.finish()
            native.finish()
        assert native.counters() == model.counters(), f"Random({seed})"
        assert native.findings() == model.findings(), f"Random({seed})"
        total.update(model.counters().as_dict())
        total.update(finding.subject for finding in model.findings())
    print(dict(total))
    wanted = {"agreed", "divergences", "unjudged", "requests", "fault_records", "register_reads"}
    wanted |= {"request", "access", "fault-report", "config"}
    assert wanted <= set(+total), wanted - set(+total)
    assert any("--mapping-budget" in name for name in total)


def test_damage_ends_both_at_the_same_event() -> None:
    random = Random(3)
    config, events = recording(random)
    (block,) = blocks(events[:200], 200)
    for _ in range(300):
        raw = bytearray(block.raw)
        for _ in range(random.randrange(1, 3)):
            raw[random.randrange(len(raw))] = random.choice((0, 0xC0, random.randrange(256)))
        damaged = Block(0, block.events, bytes(raw[: random.choice((len(raw), 500))]))
        targets = VirtioModelReplay(config), NativeVirtioReplay(config)
        outcomes = [(fed(one, damaged), one.counters(), one.findings()) for one in targets]
        assert outcomes[0] == outcomes[1]
