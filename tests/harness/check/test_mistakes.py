"""Each mistake of a driver is found at its event, by its rule, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from decoders.events import Event
from harness.check.catalogue import VTD_RULES
from harness.check.command import watch
from harness.check.rules import Notebook
from harness.targets.base import AnyConfig
from tests.harness.check import (
    mistakes_commands,
    mistakes_entries,
    mistakes_queue,
    mistakes_stale,
)
from tests.harness.check.mistakes import MISTAKES, Mistake

GROUPS = (mistakes_commands, mistakes_queue, mistakes_entries, mistakes_stale)


def broken(config: AnyConfig, events: Iterable[Event]) -> list[tuple[str, int]]:
    notes = Notebook()
    watch(config, events, notes)
    assert notes.count == len(notes.kept)
    return [(one.rule.id, one.event) for one in notes.kept]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    mistake: Mistake = MISTAKES[name]
    driver = mistake.driver()
    number = mistake.make(driver)
    driver.go_on()
    assert broken(driver.config, driver.events) == [(mistake.rule, number)]


def test_every_rule_has_a_mistake() -> None:
    needs_two = {"tail-overtakes-head"}
    assert {one.rule for one in MISTAKES.values()} == set(VTD_RULES) - needs_two
