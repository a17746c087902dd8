"""Whatever software does, it is judged without a failure, and the same way every time."""

from __future__ import annotations

import contextlib
import os
from random import Random

import hypothesis
import pytest
from hypothesis import strategies as st

from decoders.errors import DecodeError
from decoders.events import Access, Event, RegRead, RegWrite, Reset, Role, Snapshot, Store
from harness.check.command import watch
from harness.check.rules import Notebook, Violation
from harness.errors import HarnessError
from harness.model.config import UnitConfig
from harness.model.virtio.config import VirtioConfig
from harness.targets.base import AnyConfig
from tests.harness.scenarios import (
    CONTEXT,
    DIRECTORY,
    PASIDS,
    ROOT,
    UPPER_CONTEXT,
    Operation,
    Scenario,
)
from tests.harness.trace.strategies import events
from tests.writers.platform import unit_config

EXAMPLES = 2000 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 100
LIVES = 400 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 12
STEPS = 300
PLACES = {
    ROOT: Role.ROOT,
    CONTEXT: Role.CONTEXT,
    UPPER_CONTEXT: Role.SCALABLE_CONTEXT,
    PASIDS: Role.PASID_TABLE,
    DIRECTORY: Role.PASID_DIRECTORY,
}


def event_of(operation: Operation) -> Event:
    """Return an operation on a unit as the event that a recorder would see."""
    name, arguments = operation
    match name:
        case "store":
            return Store(*arguments)
        case "write_register":
            return RegWrite(*arguments)
        case "access":
            return Access(*arguments)
        case "reset":
            return Reset()
        case "snapshot":
            page, data = arguments
            stage = Role.FIRST_STAGE if page & 0x1000 else Role.SECOND_STAGE
            return Snapshot(page, stage, 1 + page // 0x1000 % 4, data)
        case "read_register":
            offset, size = arguments
            return RegRead(offset, size, None)
        case _:
            seen: Event = arguments[0]
            assert name == "adopt"
            return seen


def life(seed: int) -> tuple[UnitConfig, list[Event]]:
    scenario = Scenario(Random(seed))
    config = scenario.config()
    seen: list[Event] = [Snapshot(page, role, 0, b"") for page, role in PLACES.items()]
    seen += map(event_of, scenario.opening())
    for _ in range(STEPS):
        seen += map(event_of, scenario.step())
    return config, seen


def judged(seed: int) -> list[Violation]:
    config, seen = life(seed)
    notes = Notebook()
    assert watch(config, seen, notes) == len(seen)
    assert all(0 <= one.event < len(seen) for one in notes.kept)
    return notes.kept


@pytest.mark.parametrize("seed", range(LIVES))
def test_any_life_is_judged(seed: int) -> None:
    assert judged(seed) == judged(seed)


def test_lives_break_many_rules() -> None:
    broken = {one.rule.id for seed in range(6) for one in judged(seed)}
    assert len(broken) > 12


UNITS: list[AnyConfig] = [
    unit_config(cm=1, ram=False, page_budget=64),
    unit_config(dialect="qemu-10.0", smts=0, page_budget=64),
    VirtioConfig(mapping_budget=64),
]


@pytest.mark.parametrize("number", range(len(UNITS)))
@hypothesis.settings(max_examples=EXAMPLES)
@hypothesis.given(seen=st.lists(events, max_size=40))
def test_any_events_are_judged_or_refused(number: int, seen: list[Event]) -> None:
    # Refused are those that cost too much, and source ids that no unit of this kind has.
    with contextlib.suppress(HarnessError, DecodeError):
        watch(UNITS[number], seen, Notebook())
