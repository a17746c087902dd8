"""The bench knows which bugs a version has, and tells which of them a finding is."""

from __future__ import annotations

import pytest

from fuzzers.rediscovery import Finding
from harness.differential.bare import Bare, Life
from harness.differential.evidence import reproducer
from harness.generate.vtd_steps import Step
from harness.generate.vtd_tables import QUEUE
from harness.qemu.vtd import VtdQemu
from tests.fuzzers.test_rediscovery import UNUSUAL_WAIT
from tools.bench.rediscover import attributed, expected, public

FIXED = {
    "record-has-pasid": "dde3f966f0fe",
    "rid-pasid-honoured": "c629b030a2",
    "fence-only-wait": "57ac646a2e",
    "pasid-cache-ignored": "c9cf33075a, 43b8c43397",
    "wide-register-write": "a35c5755d942",
    "wait-write-and-interrupt": "e8145dcd31",
}


def test_bugs_that_were_fixed_are_known_by_their_commits() -> None:
    assert public() == FIXED
    assert set(expected((10, 0, 2))) == set(FIXED)
    assert expected((11, 1, 3)) == []


@pytest.mark.qemu
def test_a_finding_is_put_down_to_a_row() -> None:
    with VtdQemu("legacy") as machine:
        bare = Bare(machine, 24)
        for flags, row in ((0x5, "empty-wait"), (0x45, "fence-only-wait")):
            life = with_descriptor(flags)
            shown = bare.run(life.steps, life.slot)
            if not shown:
                assert row not in expected(machine.version), f"{row} does not show"
                continue
            made = reproducer(bare, shown[0], [])
            found = Finding(
                shown[0].signature, bare, shown[0], life, shown[0].events, made, 0, 0.0, 1, 1
            )
            assert attributed(found) == row


def with_descriptor(word: int) -> Life:
    (store,) = UNUSUAL_WAIT.stores
    assert store.address == QUEUE
    step = Step("given", (type(store)(QUEUE, 8, word),), UNUSUAL_WAIT.writes)
    return Life([step], 16, [])
