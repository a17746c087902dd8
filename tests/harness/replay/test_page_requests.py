"""Traces with page requests, messages to device TLBs and virtual commands, on both targets."""

from __future__ import annotations

import pytest

from decoders.events import PageResponse
from harness.findings import FindingKind
from harness.trace import Header, UnitInfo
from tests.writers.platform import unit_config
from tests.writers.replays import Replayed, replay_text

CONFIG = unit_config(prs=1, vcs=1, virtual_commands=0xE00)
UNIT = UnitInfo(
    version=CONFIG.version,
    capability=CONFIG.capability,
    extended_capability=CONFIG.extended_capability,
    host_address_width=CONFIG.host_address_width,
    virtual_commands=CONFIG.virtual_commands,
)
HEAD = ("dmarewind-text 1", "header " + Header(units=(UNIT,)).to_json())
SETUP = """\
snapshot 0x1000 root 0 0=0x2001
snapshot 0x2000 scalable-context 0 60=0x7011
reg.write 0x020 8 0x1400
reg.write 0x018 4 0x40000000
reg.write 0x018 4 0x80000000
reg.write 0x0d0 8 0x8000
reg.write 0x0e4 4 0x4023
reg.write 0x0e8 4 0xfee01000
reg.write 0x0e0 4 0x0
reg.write 0x090 8 0x9800
reg.write 0x018 4 0x84000000
"""
ASKED = "page-request 00:03.0 0x12 0x7f0000001000 read+last 5"
RECORD = "page-request-record 0x8000 0x1200180101 0x7f000000102d 0x0 0x0"
EVENT = "interrupt 0xfee01000 0x4023"
BELL = """\
store 0x9000 8 0x1200180019
store 0x9008 8 0x28
store 0x9020 8 0x1200180008
store 0x9028 8 0x7f0000001000
reg.write 0x088 8 0x40
"""
RESPOND = "descriptor 0x0000001200180019 0x28 0x0 0x0"
RESPONSE = "page-response 00:03.0 0x12 5 0"
FORGET = "descriptor 0x0000001200180008 0x7f0000001000 0x0 0x0"
MESSAGE = "device-tlb 00:03.0 0x12 0x7f0000001000 0xfff"
STORY = [
    *SETUP.splitlines(), ASKED, RECORD, EVENT, "reg.read 0x0c8 8 0x20", *BELL.splitlines(),
    RESPOND, RESPONSE, FORGET, MESSAGE,
]  # fmt: skip


def replayed(lines: list[str], target: str) -> Replayed:
    return replay_text("\n".join([*HEAD, *lines]) + "\n", target)


def test_nothing_is_wrong_with_the_story(target: str) -> None:
    result = replayed(STORY, target)
    assert result.findings == []
    counters = result.counters
    assert (counters.page_requests, counters.device_messages, counters.agreed) == (1, 3, 7)


@pytest.mark.parametrize(
    ("line", "subject"),
    [(RECORD, "page-request-record"), (RESPONSE, "page-response"), (MESSAGE, "device-tlb")],
)
def test_what_the_recording_lacks(target: str, line: str, subject: str) -> None:
    result = replayed([one for one in STORY if one != line], target)
    assert [(one.kind, one.subject) for one in result.findings] == [
        (FindingKind.DIVERGENCE, subject)
    ]


@pytest.mark.parametrize(
    ("line", "other", "subject"),
    [
        (RECORD, RECORD.replace("0x1200180101", "0x1300180101"), "page-request-record"),
        (RESPONSE, RESPONSE.replace("5 0", "5 15"), "page-response"),
        (MESSAGE, MESSAGE.replace("0x12 ", "- "), "device-tlb"),
    ],
)
def test_what_the_recording_says_otherwise(
    target: str, line: str, other: str, subject: str
) -> None:
    story = [other if one == line else one for one in STORY]
    (found,) = replayed(story, target).findings
    assert (found.kind, found.subject) == (FindingKind.DIVERGENCE, subject)
    assert found.event == story.index(other)
    assert len(found.permitted) == 1


def test_an_answer_that_nobody_gave(target: str) -> None:
    (found,) = replayed([*STORY, RESPONSE], target).findings
    assert (found.observed, found.permitted) == (PageResponse(0x18, 0x12, 5, 0), ())


@pytest.mark.parametrize(("pasid", "agrees"), [(1, True), (2000, True), (0, False)])
def test_a_unit_may_hand_out_any_pasid(target: str, pasid: int, agrees: bool) -> None:
    allocate = "reg.write 0xe10 8 0x1"
    read = f"reg.read 0xe20 8 {pasid << 8:#x}"
    result = replayed([allocate, read], target)
    assert (result.findings == []) == agrees


def test_nothing_is_asked_of_a_unit_behind_a_gap(target: str) -> None:
    result = replayed([*SETUP.splitlines(), "gap lost", ASKED, RECORD], target)
    assert (result.findings, result.counters.unjudged) == ([], 1)
