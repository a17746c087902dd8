"""Flags that have no name are compared like the others."""

from __future__ import annotations

import pytest

from decoders.events import FaultReport
from harness.model.virtio.config import VirtioConfig
from harness.model.virtio.unit import VirtioUnit
from tests.writers.virtio_iommu import FEATURES, INVAL, OK, attach, config, map_, tail

UNKNOWN = [1 << 3, 1 << 31]


@pytest.fixture
def unit() -> VirtioUnit:
    return VirtioUnit(VirtioConfig(features=FEATURES, config=config()))


@pytest.mark.parametrize("flag", UNKNOWN, ids=hex)
def test_requests_with_one_are_refused(unit: VirtioUnit, flag: int) -> None:
    answers = unit.request(attach(1, 8, flag), 4)
    assert answers[0] == tail(INVAL)
    assert tail(OK) not in answers
    assert tail(OK) in unit.request(attach(1, 8), 4)
    answers = unit.request(map_(1, 0, 0xFFF, 0, 1 | flag), 4)
    assert answers[0] == tail(INVAL)
    assert tail(OK) not in answers


@pytest.mark.parametrize("flag", UNKNOWN, ids=hex)
def test_a_report_with_one_is_another(unit: VirtioUnit, flag: int) -> None:
    report = FaultReport(2, 0x101, 8, 0x1000)
    assert unit.same_report(report, FaultReport(2, 0x102, 8, 0x1000))
    assert not unit.same_report(report, FaultReport(2, 0x101 | flag, 8, 0x1000))
