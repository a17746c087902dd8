"""The native core is the model, faster: whatever happens to both, nobody can tell them apart."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders.events import Fault
from decoders.vtd.registers import register_map
from harness.differential.pair_vtd import VtdPair
from harness.findings import FindingKind
from harness.memory import MemoryBudgetError
from harness.model.config import UnitConfig
from harness.model.unit import VtdUnit
from harness.native import NativeUnit, available
from tests.harness.scenarios import ARENA, PAGE, Operation, Scenario

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

OPERATIONS = int(os.environ.get("DMAREWIND_EQUALITY_OPERATIONS", "100000"))
"""Operations compared by the seeded run; every one compares answers, findings and observations."""
EXAMPLES = 1250 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 100
"""Lives that Hypothesis makes up; in CI their operations are more than 10^5 too."""
LIFE = 300
"""Operations in one life, after the opening."""


class Watched:
    """A pair, and what it met."""

    def __init__(self, config: UnitConfig) -> None:
        self.pair = VtdPair(config)
        self.met: Counter[str] = Counter()

    def apply(self, operation: Operation) -> Any:
        """Apply an operation to both and compare all that can be seen at once."""
        name, arguments = operation
        answer = self.pair.operate(name, *arguments)
        self.met.update(finding.kind for finding in self.pair.findings)
        if name == "access":
            fresh, *stale = answer.permitted
            self.met["fault" if isinstance(fresh.outcome, Fault) else "translation"] += 1
            self.met.update(candidate.cache for candidate in stale)
        return answer

    def compare(self) -> None:
        """Compare what only a look inside shows; the arena in full, with who wrote it."""
        self.pair.compare()
        model, native = self.pair.model, self.pair.native
        for page in ARENA:
            assert native.load(page, PAGE) == model.load(page, PAGE), hex(page)
            for address in range(page, page + PAGE, 8):
                assert native.last_writer(address) == model.memory.last_writer(address)


def live(first: Random, then: Random, length: int) -> Watched:
    """Lead both units through one life: its opening is made by first, what follows by then."""
    scenario = Scenario(first)
    pair = Watched(scenario.config())
    operations = scenario.opening()
    scenario.random = then
    opened = len(operations)
    while pair.pair.events < opened + length:
        for operation in operations:
            answer = pair.apply(operation)
            if operation[0] == "access":
                scenario.answered(candidate.outcome for candidate in answer.permitted)
        operations = scenario.step()
    pair.compare()
    return pair


def test_many_lives() -> None:
    done, seed, met = 0, 0, Counter[str]()
    while done < OPERATIONS:
        try:
            random = Random(seed)
            pair = live(random, random, LIFE)
        except BaseException:
            print(f"Random({seed})")
            raise
        done += pair.pair.events
        seed += 1
        met += pair.met
    print(done, "operations in", seed, "lives:", dict(met))
    # A comparison of units that never get anywhere proves nothing.
    wanted = {"translation", "fault", *FindingKind, "context", "pasid", "iotlb"}
    assert wanted <= set(met), wanted - set(met)


def test_any_life() -> None:
    made_up = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.integers(0, 1 << 32), st.randoms(use_true_random=False), st.integers(1, 40))
    def one(seed: int, random: Random, length: int) -> None:
        # The opening is long and not worth shrinking; what happens then is.
        nonlocal made_up
        made_up += live(Random(seed), random, length).pair.events

    one()
    print(made_up, "operations in", EXAMPLES, "lives made up by Hypothesis")
    assert made_up >= EXAMPLES * 40


def test_register_maps_have_the_same_size() -> None:
    pair = VtdPair(UnitConfig(0x22 << 24, 0x0F << 8))
    assert set(register_map(0x22 << 24, 0x0F << 8)) == set(pair.model.registers.map)
    pair.compare()


def test_both_stop_at_the_page_budget() -> None:
    config = UnitConfig(0x22 << 24, 0x0F << 8, page_budget=3)
    for unit in (VtdUnit(config), NativeUnit(config)):
        for page in range(3):
            unit.store(page * PAGE, 8, 1)
        unit.store(8, 8, 1)
        with pytest.raises(MemoryBudgetError, match="more than 3 pages"):
            unit.store(1 << 50, 8, 1)
        with pytest.raises(MemoryBudgetError, match="more than 3 pages"):
            unit.snapshot(7 * PAGE, b"\1")
        assert unit.load(1 << 50, 8) == bytes(8)
