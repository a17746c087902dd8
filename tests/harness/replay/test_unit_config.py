"""A header tells a replay what the unit was that the trace is of."""

from __future__ import annotations

from random import Random

import pytest

from harness.differential.in_step import header
from harness.errors import HarnessError
from harness.generate.vtd_machines import MACHINES, simulated
from harness.model.config import Updates
from harness.model.dialects import SPECIFICATION, SWITCHES, switched, switches_of
from harness.replay import unit_config
from harness.trace import VIRTIO, Header, UnitInfo

SEEDS = 40


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_survives_its_header(name: str) -> None:
    for seed in range(SEEDS):
        config = simulated(name, Random(seed)).config
        told = header(config)
        assert Header.from_json(told.to_json()) == Header.from_msgpack(told.to_msgpack()) == told
        assert unit_config(Header.from_json(told.to_json())) == config, f"seed {seed}"


def test_what_is_tested_varies() -> None:
    configs = [simulated(name, Random(seed)).config for name in MACHINES for seed in range(SEEDS)]
    assert {config.updates for config in configs} == set(Updates)
    mixed = [simulated("mixture", Random(seed)).config.dialect for seed in range(SEEDS)]
    assert set().union(*map(switches_of, mixed)) == SWITCHES


def test_a_switch_is_set() -> None:
    told = Header(units=(UnitInfo(capability=1),), switches={"honours_rid_pasid": True})
    assert unit_config(told).dialect == switched("spec", {"honours_rid_pasid": True})
    assert switches_of(SPECIFICATION) == {}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (Header(units=(UnitInfo(capability=1),), switches={"abacus": True}), "'abacus'"),
        (Header(units=(UnitInfo(capability=1),), switches={"name": True}), "'name'"),
        (Header(units=(UnitInfo(capability=1, updates="odd"),)), "odd is none of done, not-sn"),
        (Header(units=(UnitInfo(VIRTIO),), switches={"breaks": True}), "a virtio-iommu has none"),
    ],
)
def test_what_no_unit_has_is_refused(told: Header, said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        unit_config(told)
