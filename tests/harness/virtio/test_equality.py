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
from decoders.virtio_iommu.constants import Status
from harness.differential.pair_virtio import VirtioPair
from harness.findings import FindingKind
from harness.model.virtio.config import MappingBudgetError, VirtioConfig
from harness.native import available
from tests.harness.virtio.lives import Life, Operation

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

OPERATIONS = int(os.environ.get("DMAREWIND_EQUALITY_OPERATIONS", "100000"))
"""Operations compared by the seeded run; every one compares answers, findings and reports."""
EXAMPLES = 1250 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 100
"""Lives that Hypothesis makes up."""
LIFE = 300
"""Operations in one life, after the opening."""


class Watched:
    """A pair, and what it met."""

    def __init__(self, config: VirtioConfig) -> None:
        self.pair = VirtioPair(config)
        self.met: Counter[str] = Counter()

    def apply(self, operation: Operation) -> Any:
        """Apply an operation to both and compare all that can be seen at once."""
        name, arguments = operation
        answer = self.pair.operate(name, *arguments)
        self.met.update(finding.kind for finding in self.pair.findings)
        self.met.update(f"subject {finding.subject}" for finding in self.pair.findings)
        self.met.update(f"reason {report.reason}" for report in self.pair.emitted)
        if name == "request":
            self.met.update(f"status {one[-4]}" if one else "unwritten" for one in answer[:1])
        if name == "access":
            self.met["fault" if isinstance(answer[0], Fault) else "translation"] += 1
        return answer


def live(random: Random, length: int) -> Watched:
    """Lead both units through one life; one that uses up its budget ends early."""
    life = Life(random)
    watched = Watched(life.config)
    pair = watched.pair
    operations = life.opening()
    try:
        while pair.events < length:
            for operation in operations:
                answer = watched.apply(operation)
                if operation[0] == "access":
                    watched.apply(life.recorded(operation, answer))
            if pair.events % 8 == 0:
                pair.compare()
            operations = [life.step()]
    except MappingBudgetError as error:
        watched.met[str(error)] += 1
        return watched
    pair.compare()
    return watched


def test_many_lives() -> None:
    done, seed, met = 0, 0, Counter[str]()
    while done < OPERATIONS:
        try:
            watched = live(Random(seed), LIFE)
        except BaseException:
            print(f"Random({seed})")
            raise
        done += watched.pair.events
        seed += 1
        met += watched.met
    print(done, "operations in", seed, "lives:", dict(met))
    # A comparison of units that never get anywhere proves nothing.
    kinds = {FindingKind.DIVERGENCE, FindingKind.STALE_AFTER_INVALIDATION}
    statuses = {Status.OK, Status.UNSUPP, Status.DEVERR, Status.INVAL, Status.RANGE, Status.NOENT}
    wanted = {"translation", "fault", "unwritten", *kinds}
    wanted |= {f"status {status}" for status in statuses} | {f"reason {n}" for n in range(3)}
    wanted |= {"subject request", "subject access", "subject config"}
    assert wanted <= set(met), wanted - set(met)
    assert any("--mapping-budget" in text for text in met)


def test_any_life() -> None:
    made_up = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.randoms(use_true_random=False), st.integers(1, 60))
    def one(random: Random, length: int) -> None:
        nonlocal made_up
        made_up += live(random, length).pair.events

    one()
    print(made_up, "operations in", EXAMPLES, "lives made up by Hypothesis")
    assert made_up >= EXAMPLES
