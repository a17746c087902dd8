"""A finding in words says what was recorded, what is permitted, the walk, the cause, the remedy."""

from __future__ import annotations

import pytest

from decoders.events import Fault, FaultRecord, Interrupt, StatusWrite, Translation
from harness.explain import answer
from tests.harness.replay.scripts import (
    FAULTING,
    FLUSH,
    INVALIDATION,
    OTHER_PAGE,
    REMAP,
    STORY,
    USE,
    USE_AGAIN,
    script,
)
from tests.writers.replays import Script, replay_text


def explained(story: Script, target: str) -> list[str]:
    """Return the lines of the only finding, their spaces made single."""
    result = replay_text(str(story), target)
    (finding,) = result.findings
    return [" ".join(line.split()) for line in result.explain(finding).splitlines()]


def test_stale_use(target: str) -> None:
    story = script(USE, REMAP, OTHER_PAGE, USE)
    use, remap, again = story.number(USE), story.number(REMAP), story.number(USE, 1)
    assert explained(story, target) == [
        f"stale-use: event {again}: {USE}",
        "the unit used an entry that software has changed and not invalidated",
        "recorded translation to 0x10000, page mask 0xfff",
        "permitted translation to 0x12000, page mask 0xfff",
        "permitted translation to 0x10000, page mask 0xfff",
        "walk root at 0x1000: 0x2001 0x0 [p=0x1 ctp=0x2000]",
        "walk context at 0x2180: 0x3001 0x502 [p=0x1 ssptptr=0x3000 aw=0x2 did=0x5]",
        "walk second stage level 4 at 0x3000: 0x4003 [r=0x1 w=0x1 addr=0x4000]",
        "walk second stage level 3 at 0x4000: 0x5003 [r=0x1 w=0x1 addr=0x5000]",
        "walk second stage level 2 at 0x5000: 0x6003 [r=0x1 w=0x1 addr=0x6000]",
        "walk second stage level 1 at 0x6008: 0x12003 [r=0x1 w=0x1 addr=0x12000]",
        "cache iotlb, domain 0x5",
        f"filled by event {use}: {USE}",
        f"changed by event {remap}: {REMAP}",
        "missing IOTLB invalidation, domain 0x5, page 0x1000",
    ]


def test_unflushed(target: str) -> None:
    lines = explained(script(USE, REMAP, OTHER_PAGE, USE_AGAIN), target)
    assert "recorded translation to 0x12000, page mask 0xfff" in lines
    assert "permitted translation to 0x10000, page mask 0xfff" in lines
    assert "missing IOTLB invalidation, domain 0x5, page 0x1000" in lines


def test_stale_after_invalidation(target: str) -> None:
    story = script(USE, REMAP, FLUSH, USE)
    bell = story.number("reg.write 0x088 8 0x20")
    lines = explained(story, target)
    assert lines[1] == "the unit used an entry after its invalidation"
    assert f"covered by event {bell}: reg.write 0x088 8 0x20" in lines
    assert not any(line.startswith("missing") for line in lines)


def test_page_reuse(target: str) -> None:
    unlink, reuse = "store 0x5000 8 0x0", "store 0x6ff8 8 0x1"
    story = script(USE, unlink, reuse)
    lines = explained(story, target)
    assert lines[0] == f"page-reuse: event {story.number(reuse)}: {reuse}"
    assert f"changed by event {story.number(unlink)}: {unlink}" in lines
    assert "walk second stage level 2 at 0x5000: 0x6003 [r=0x1 w=0x1 addr=0x6000]" in lines
    assert not any(line.startswith(("recorded", "permitted")) for line in lines)


def test_a_missing_context_invalidation(target: str) -> None:
    # The device moves to domain 6, whose tables at 0xa000 are empty.
    lines = explained(script(USE, "store 0x2180 8 0xa001", "store 0x2188 8 0x602", USE), target)
    assert "cache context, domain 0x5" in lines
    assert any("a context-cache invalidation of the device" in line for line in lines)


def test_a_missing_table_invalidation(target: str) -> None:
    hinted = FLUSH.replace(" 0x1000\n", " 0x1040\n")
    move = "snapshot 0xb000 second-stage 1 1=0x12003", "store 0x5000 8 0xb003"
    lines = explained(script(USE, *move, hinted, USE), target)
    assert "cache paging-structure, domain 0x5" in lines
    assert any("without the leaf-only hint (IH = 0)" in line for line in lines)


def test_faults_have_their_names(target: str) -> None:
    bad = FAULTING.replace("! 0x06", "= 0x3000 0xfff")
    lines = explained(script(bad), target)
    assert "permitted fault 0x06 (LGN.3 no read permission)" in lines


def test_a_missing_observation(target: str) -> None:
    lines = explained(STORY.without(INVALIDATION), target)
    assert "recorded nothing" in lines
    assert "permitted IotlbInvalidation type=0x2 g=0x3 did=0x5 addr=0x1000" in lines


def test_an_observation_too_many(target: str) -> None:
    lines = explained(script(USE).after(USE, "status 0x9100 0x7"), target)
    assert "recorded status write of 0x7 to 0x9100" in lines
    assert "permitted nothing" in lines


def test_a_scalable_walk(target: str) -> None:
    story = Script(
        [
            *STORY.lines[:2],
            "snapshot 0x1000 root 0 0=0x2001",
            "snapshot 0x2000 scalable-context 0 60=0x3001",
            "snapshot 0x3000 pasid-directory 0 0=0x4001",
            "snapshot 0x4000 pasid-table 0 0=0x41 1=0x5 2=0x5000",
            "snapshot 0x5000 first-stage 4 0=0x6007",
            "reg.write 0x020 8 0x1400",
            "reg.write 0x018 4 0x40000000",
            "reg.write 0x018 4 0x80000000",
            "access 00:03.0 - 0x1000 read = 0x1000 0xfff",
        ]
    )
    lines = explained(story, target)
    assert "walk root at 0x1000: 0x2001 0x0 [lp=0x1 lctp=0x2000]" in lines
    assert any(
        line.startswith("walk scalable context at 0x2300: 0x3001 0x0 0x0 0x0") for line in lines
    )
    assert "walk pasid directory at 0x3000: 0x4001 [p=0x1 smptblptr=0x4000]" in lines
    assert any(line.endswith("[p=0x1 pgtt=0x1 did=0x5 fsptptr=0x5000]") for line in lines)
    assert "permitted fault 0x71 (SFS.2 first-stage entry not present)" in lines


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (None, "nothing"),
        (Translation(0x1000, 0xFFF), "translation to 0x1000, page mask 0xfff"),
        (Fault(0x71), "fault 0x71 (SFS.2 first-stage entry not present)"),
        (Fault(0xEE), "fault 0xee"),
        (StatusWrite(0x9000, 1), "status write of 0x1 to 0x9000"),
        (Interrupt(0xFEE00000, 0x21), "interrupt 0xfee00000 data 0x21"),
        (FaultRecord(2, 0x1000, 0x18), "fault record 2: 0x0000000000000018 0x0000000000001000"),
        (7, "0x7"),
    ],
)
def test_answers_in_words(outcome: Translation | Fault | int | None, words: str) -> None:
    assert answer(outcome) == words
