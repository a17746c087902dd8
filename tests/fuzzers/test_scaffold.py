"""A scaffold's runs do not know of each other, and do what a replay of the same events does."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from fuzzers import judging
from fuzzers.memory_target import MemoryTarget
from fuzzers.scaffold import encoded
from fuzzers.target import Found, target_named
from harness.model.unit import VtdUnit
from harness.native import NativeReplay, available
from harness.trace import Block

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

NAMES = ("descriptors", "pasid", "pagetables", "trace")
RUNS = 150


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> MemoryTarget:
    made = target_named(request.param)
    assert isinstance(made, MemoryTarget)
    return made


def inputs(target: MemoryTarget, count: int) -> list[bytes]:
    random = Random(7)
    seeds = list(target.seeds())
    made = []
    for _ in range(count):
        octets = bytearray(random.choice(seeds))
        for _ in range(random.randrange(4)):
            octets[random.randrange(len(octets))] = random.randrange(256)
        made.append(bytes(octets))
    return made


def test_a_run_is_as_the_first_one(target: MemoryTarget) -> None:
    used = target.scaffolds.native()
    for data in inputs(target, RUNS):
        fresh = target.scaffolds.native()
        fresh.run(data)
        used.run(data)
        assert used.counters() == fresh.counters(), data.hex()
        assert used.findings() == fresh.findings(), data.hex()


def test_a_run_is_a_replay_of_its_events(target: MemoryTarget) -> None:
    native = target.scaffolds.native()
    met = 0
    for data in inputs(target, RUNS // 3):
        native.run(data)
        scaffold, inner = target.scaffolds.split(data)
        events = [*scaffold.memory, *scaffold.before, *scaffold.inner(inner), *scaffold.after]
        replay = NativeReplay(scaffold.config)
        replay.feed(Block(0, len(events), encoded(events)))
        counted = native.counters()
        if counted["events"] < len(events):
            continue  # a budget was used up
        met += 1
        assert counted["events"] == replay.counters().events == len(events)
        if not scaffold.pieces:
            replay.finish()
            assert counted == replay.counters().as_dict(), data.hex()
    assert met > RUNS // 6


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_named("pagetables")
    assert isinstance(target, MemoryTarget)
    seed = next(iter(target.seeds()))
    scaffold, inner = target.scaffolds.split(seed)
    judging.compare(scaffold, scaffold.events(inner))

    access = VtdUnit.access

    def wrong(self: VtdUnit, *arguments: Any) -> Any:
        verdict = access(self, *arguments)
        return replace(verdict, permitted=verdict.permitted * 2)

    monkeypatch.setattr(VtdUnit, "access", wrong)
    with pytest.raises(Found, match="permitted outcomes") as caught:
        judging.compare(scaffold, scaffold.events(inner))
    assert caught.value.signature.kind == "disagreement"
