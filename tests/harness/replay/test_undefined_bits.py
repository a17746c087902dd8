"""A read of a fault record is compared without the bits that the recorded unit leaves open."""

from __future__ import annotations

import dataclasses

import pytest

from harness.trace import Header
from tests.harness.replay.scripts import INTERRUPT, STORY
from tests.writers.replays import Script, replay_text

HIGH_READ = "reg.read 0x22c 4 {:#x}"
RIGHT = 0xC0000006
STRAY_PASID = 0x00FFFF00
STRAY_SOURCE_TYPE = 1 << 28


def story(value: int, dialect: str) -> Script:
    """Read the upper half of the record after the fault, as a unit of a dialect."""
    plain = Header.from_json(STORY.lines[1].removeprefix("header "))
    header = dataclasses.replace(plain, dialect=dialect)
    told = STORY.replace(STORY.lines[1], "header " + header.to_json())
    return told.after(INTERRUPT, HIGH_READ.format(value))


@pytest.mark.parametrize(
    ("value", "dialect", "agrees"),
    [
        (RIGHT, "spec", True),
        (RIGHT | STRAY_PASID, "spec", False),
        (RIGHT, "qemu-10.0", True),
        (RIGHT | STRAY_PASID, "qemu-10.0", True),
        (RIGHT ^ STRAY_SOURCE_TYPE, "qemu-10.0", False),
    ],
)
def test_reading_a_fault_record(target: str, value: int, dialect: str, agrees: bool) -> None:
    told = story(value, dialect)
    findings = replay_text(str(told), target).findings
    expected = [] if agrees else [("register", told.number(HIGH_READ.format(value)))]
    assert [(finding.subject, finding.event) for finding in findings] == expected
