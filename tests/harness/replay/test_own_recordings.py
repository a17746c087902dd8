"""What a unit answered itself is permitted: its recording shows staleness at most."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from decoders.events import Access, Event
from harness.findings import FindingKind
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from harness.targets import target_named
from harness.trace import Block
from harness.trace.codec import Encoder
from tests.harness.scenarios import PAGE, Scenario
from tests.harness.test_replay_equality import as_event

LIVES = 25
LIFE = 300
OWN_FAULT = {FindingKind.UNFLUSHED, FindingKind.PAGE_REUSE}
"""Findings about software alone: no unit is to blame for them."""


def recording(random: Random) -> tuple[UnitConfig, list[Event]]:
    """Return a random life of the model, with every answer as the model gave it."""
    scenario = Scenario(random)
    config = scenario.config()
    unit = VtdUnit(config)
    events: list[Event] = []
    operations = scenario.opening()
    while len(events) < LIFE:
        for operation in operations:
            event = as_event(operation)
            name, arguments = operation
            if event is None or (name == "store" and arguments[0] % PAGE + arguments[1] > PAGE):
                continue
            unit.event = len(events)
            if isinstance(event, Access):
                verdict = unit.access(
                    event.sid, event.pasid, event.iova, event.kind, None, event.attributes
                )
                event = replace(event, outcome=verdict.taken)
            else:
                getattr(unit, name)(*arguments)
            events += [event, *unit.emitted()]
        operations = scenario.step()
    return config, events


def test_a_unit_agrees_with_its_own_recording(target: str) -> None:
    seen = set()
    for seed in range(LIVES):
        config, events = recording(Random(seed))
        encoder = Encoder()
        replay = target_named(target, config)
        raw = b"".join(encoder.encode(event) for event in events)
        replay.feed(Block(0, len(events), raw))
        replay.finish()
        wrong = [one for one in replay.findings() if one.kind not in OWN_FAULT]
        assert wrong == [], f"Random({seed})"
        counters = replay.counters()
        assert counters.agreed, f"Random({seed})"
        seen |= {one.kind for one in replay.findings()}
    assert FindingKind.UNFLUSHED in seen
