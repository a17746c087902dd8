"""The native core is the model, faster: whatever happens to both, nobody can tell them apart."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders.events import Fault
from decoders.virtio_iommu.constants import Status
from harness.findings import FindingKind
from harness.model.virtio.config import MappingBudgetError, VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from harness.native import NativeVirtioUnit, available
from tests.harness.virtio.lives import Life, Operation

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

OPERATIONS = int(os.environ.get("DMAREWIND_EQUALITY_OPERATIONS", "100000"))
"""Operations compared by the seeded run; every one compares answers, findings and reports."""
EXAMPLES = 1250 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 100
"""Lives that Hypothesis makes up."""
LIFE = 300
"""Operations in one life, after the opening."""


class Pair:
    """The two units, and the operations both have been through."""

    def __init__(self, config: VirtioConfig) -> None:
        self.model, self.native = VirtioUnit(config), NativeVirtioUnit(config)
        self.done: list[Operation] = []
        self.met: Counter[str] = Counter()

    def apply(self, operation: Operation) -> Any:
        """Apply an operation to both and compare all that can be seen at once."""
        name, arguments = operation
        number = len(self.done)
        self.done.append(operation)
        answers: list[Any] = []
        for unit in (self.model, self.native):
            unit.event = number
            try:
                answer = getattr(unit, name)(*arguments)
            except MappingBudgetError as error:
                answers.append(str(error))
                continue
            answers.append((answer, unit.findings(), unit.emitted()))
        assert answers[0] == answers[1], (number, operation)
        if isinstance(answers[0], str):
            raise MappingBudgetError(answers[0])
        answer, findings, emitted = answers[0]
        self.met.update(finding.kind for finding in findings)
        self.met.update(f"subject {finding.subject}" for finding in findings)
        self.met.update(f"reason {report.reason}" for report in emitted)
        for report in emitted:
            for flags in (0, 1, 2, 4, 0x100, 0x101, 0x102, 0x104, 0x200):
                seen = replace(report, flags=flags)
                same = self.model.same_report(report, seen)
                assert self.native.same_report(report, seen) == same, (number, operation, seen)
        if name == "request":
            self.met.update(f"status {one[-4]}" if one else "unwritten" for one in answer[:1])
        if name == "access":
            self.met["fault" if isinstance(answer[0], Fault) else "translation"] += 1
        return answer

    def compare(self) -> None:
        """Compare what only a look inside shows."""
        assert self.native.domains() == self.model.domains()
        for offset in range(0, 44, 4):
            assert self.native.read_register(offset, 4) == self.model.read_register(offset, 4)


def live(random: Random, length: int) -> Pair:
    """Lead both units through one life; one that uses up its budget ends early."""
    life = Life(random)
    pair = Pair(life.config)
    operations = life.opening()
    try:
        while len(pair.done) < length:
            for operation in operations:
                answer = pair.apply(operation)
                if operation[0] == "access":
                    pair.apply(life.recorded(operation, answer))
            if len(pair.done) % 8 == 0:
                pair.compare()
            operations = [life.step()]
    except MappingBudgetError as error:
        pair.met[str(error)] += 1
        return pair
    pair.compare()
    return pair


def test_many_lives() -> None:
    done, seed, met = 0, 0, Counter[str]()
    while done < OPERATIONS:
        try:
            pair = live(Random(seed), LIFE)
        except BaseException:
            print(f"Random({seed})")
            raise
        done += len(pair.done)
        seed += 1
        met += pair.met
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
        made_up += len(live(random, length).done)

    one()
    print(made_up, "operations in", EXAMPLES, "lives made up by Hypothesis")
    assert made_up >= EXAMPLES
