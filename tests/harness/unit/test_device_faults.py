"""Faults of requests that devices with TLBs make: which are recorded (VT-d 7.1.2, 7.1.3)."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, Attribute, Fault, FaultRecord
from decoders.layout import layout
from decoders.vtd.faults import FaultRecordRegister, Reason
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import READ, WRITE, Platform, fault, page

RECORD = layout(FaultRecordRegister)
IOVA, PAGE_AT = 0x40_1000, 0x50_1000
ATS, TRANSLATED = Attribute.TRANSLATION_REQUEST, Attribute.TRANSLATED


def records(platform: Platform) -> list[FaultRecord]:
    return [seen for seen in platform.observed() if isinstance(seen, FaultRecord)]


def asked(platform: Platform, kind: AccessKind = READ) -> list[FaultRecord]:
    """Return the records of a translation request that faults."""
    verdict = platform.request(IOVA, kind, attributes=ATS)
    assert isinstance(verdict.taken, Fault), verdict.taken
    return records(platform)


@pytest.mark.parametrize(("kind", "right"), [(WRITE, "w"), (READ, "r")])
def test_a_device_finds_itself_that_a_right_is_missing(
    platform: Platform, kind: AccessKind, right: str
) -> None:
    platform.legacy(tt=1).map(IOVA, PAGE_AT, **{right: 0})
    assert asked(platform, kind) == []
    platform.request(IOVA, kind)
    assert len(records(platform)) == 1, "DMA without the right is recorded"


def test_a_device_finds_itself_that_a_page_is_not_present(platform: Platform) -> None:
    platform.scalable_context(dte=1)
    platform.first_stage()
    assert asked(platform) == []


@pytest.mark.parametrize("reserved", [False, True])
def test_what_ends_in_an_abort_is_recorded(platform: Platform, reserved: bool) -> None:
    space = platform.legacy(tt=int(reserved))
    space.map(IOVA, PAGE_AT | 1 << 50 if reserved else PAGE_AT)
    (record,) = asked(platform)
    words = (record.low, record.high)
    reason = Reason.SECOND_STAGE_RESERVED if reserved else Reason.REQUEST_TYPE_BLOCKED
    assert RECORD["fr"].get(words) == reason
    assert RECORD["at"].get(words) == 1, "the address type is that of a translation request"


def test_a_device_of_qemu_is_not_told_from_others(make_platform: MakePlatform) -> None:
    platform = make_platform(dialect="qemu")
    space = platform.legacy(tt=0)
    space.map(IOVA, PAGE_AT)
    assert platform.request(IOVA, attributes=ATS).taken == page(PAGE_AT)
    space.unmap(IOVA)
    (record,) = asked(platform)
    assert RECORD["at"].get((record.low, record.high)) == 0
    taken = platform.request(PAGE_AT, attributes=TRANSLATED).taken
    assert taken != fault(Reason.REQUEST_TYPE_BLOCKED)
