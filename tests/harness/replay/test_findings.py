"""One edit of a small trace gives exactly one finding, at the event it is about."""

from __future__ import annotations

import pytest

from decoders.events import Descriptor, Fault, FaultRecord, Interrupt, StatusWrite, Translation
from harness.findings import FINDINGS_KEPT, FindingKind
from tests.harness.replay.scripts import (
    BELL,
    FAULT,
    FAULTING,
    FLUSH,
    INTERRUPT,
    INVALIDATION,
    OTHER_PAGE,
    RECORD,
    REMAP,
    STATUS,
    STORY,
    USE,
    USE_AGAIN,
    WAIT,
    script,
)
from tests.writers.replays import Replayed, Script, replay_text

DIVERGENCE = FindingKind.DIVERGENCE


def replayed(story: Script, target: str) -> Replayed:
    return replay_text(str(story), target)


def only(story: Script, target: str, kind: FindingKind, subject: str, number: int) -> Replayed:
    """Replay and check that there is one finding, of that kind, about that event."""
    result = replayed(story, target)
    found = [(finding.kind, finding.subject, finding.event) for finding in result.findings]
    assert found == [(kind, subject, number)]
    assert result.counters.divergences == 1
    return result


def test_nothing_is_wrong_with_the_story(target: str) -> None:
    result = replayed(STORY, target)
    assert result.findings == []
    assert result.counters.as_dict() == {
        "events": len(result.events),
        "translations": 3,
        "faults": 1,
        "requests": 0,
        "interrupt_requests": 0,
        "descriptors": 2,
        "fault_records": 1,
        "status_writes": 1,
        "page_requests": 0,
        "device_messages": 0,
        "interrupts": 1,
        "register_reads": 3,
        "unjudged": 0,
        "agreed": 12,
        "divergences": 0,
    }


# -- accesses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "access 00:03.0 - 0x2abc write = 0x13000 0xfff",
        "access 00:03.0 - 0x2abc write = 0x11000 0x1fff",
        "access 00:03.0 - 0x2abc write = 0x0 0x1fffff",
    ],
)
def test_a_translation_that_is_not_permitted(target: str, other: str) -> None:
    story = STORY.replace(OTHER_PAGE, other)
    result = only(story, target, DIVERGENCE, "access", story.number(other))
    assert result.findings[0].permitted == (Translation(0x11000, 0xFFF),)


def test_a_fault_instead_of_a_translation(target: str) -> None:
    bad = "access 00:03.0 - 0x1000 read ! 0x0c"
    record = "fault-record 0 0x1000 0x4000000c00000018"
    story = script(USE).replace(USE, bad).append(record, INTERRUPT)
    result = only(story, target, DIVERGENCE, "access", story.number(bad))
    assert result.findings[0].observed == Fault(0x0C)


def test_a_translation_instead_of_a_fault(target: str) -> None:
    bad = "access 00:03.0 - 0x3000 read = 0x3000 0xfff"
    story = script(bad, OTHER_PAGE)
    result = only(story, target, DIVERGENCE, "access", story.number(bad))
    assert result.findings[0].permitted == (Fault(0x06),)


def test_another_fault_reason(target: str) -> None:
    bad, record = FAULTING.replace("0x06", "0x0c"), RECORD.replace("0x40000006", "0x4000000c")
    story = STORY.replace(FAULTING, bad).replace(RECORD, record)
    only(story, target, DIVERGENCE, "access", story.number(bad))


def test_a_changed_table_entry_is_found_where_it_is_used(target: str) -> None:
    story = STORY.replace(REMAP, "store 0x6008 8 0x13003")
    only(story, target, DIVERGENCE, "access", story.number(USE_AGAIN))


def test_a_missing_store_is_found_where_it_is_used(target: str) -> None:
    story = STORY.without(REMAP)
    only(story, target, DIVERGENCE, "access", story.number(USE_AGAIN))


def test_stale_use(target: str) -> None:
    story = script(USE, REMAP, OTHER_PAGE, USE)
    result = only(story, target, FindingKind.STALE_USE, "access", story.number(USE, 1))
    finding = result.findings[0]
    assert finding.changed_by == story.number(REMAP)
    assert finding.filled_by == story.number(USE)
    assert finding.permitted == (Translation(0x12000, 0xFFF), Translation(0x10000, 0xFFF))


def test_unflushed(target: str) -> None:
    story = script(USE, REMAP, OTHER_PAGE, USE_AGAIN)
    result = only(story, target, FindingKind.UNFLUSHED, "access", story.number(USE_AGAIN))
    assert result.findings[0].changed_by == story.number(REMAP)


def test_stale_after_invalidation(target: str) -> None:
    story = script(USE, REMAP, FLUSH, USE)
    kind = FindingKind.STALE_AFTER_INVALIDATION
    result = only(story, target, kind, "access", story.number(USE, 1))
    assert result.findings[0].covered_by == story.number(BELL)


def test_page_reuse(target: str) -> None:
    reuse = "store 0x6ff8 8 0x1"
    story = script(USE, "store 0x5000 8 0x0", reuse)
    result = only(story, target, FindingKind.PAGE_REUSE, "table-page", story.number(reuse))
    assert result.findings[0].changed_by == story.number("store 0x5000 8 0x0")


def test_page_reuse_by_a_snapshot(target: str) -> None:
    reuse = "snapshot 0x6000 second-stage 1 0=0x1"
    story = script(USE, "store 0x5000 8 0x0", reuse)
    only(story, target, FindingKind.PAGE_REUSE, "table-page", story.number(reuse))


def test_an_access_without_an_outcome_is_not_judged(target: str) -> None:
    silent = "access 00:03.0 - 0x1000 unknown ?"
    story = script(silent, REMAP, silent, USE_AGAIN)
    only(story, target, FindingKind.UNFLUSHED, "access", story.number(USE_AGAIN))


# -- registers -----------------------------------------------------------------------------------


def test_a_register_that_reads_otherwise(target: str) -> None:
    read = "reg.read 0x034 4 0x2"
    story = STORY.replace(read, "reg.read 0x034 4 0x3")
    number = story.number("reg.read 0x034 4 0x3")
    result = only(story, target, DIVERGENCE, "register", number)
    assert (result.findings[0].observed, result.findings[0].permitted) == (3, (2,))


def test_a_register_whose_value_was_not_captured(target: str) -> None:
    story = STORY.replace("reg.read 0x034 4 0x2", "reg.read 0x034 4 -")
    assert replayed(story, target).findings == []


# -- observations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "cause", "subject"),
    [
        (INVALIDATION, BELL, "descriptor"),
        (WAIT, BELL, "descriptor"),
        (STATUS, BELL, "status-write"),
        (RECORD, FAULTING, "fault-record"),
        (INTERRUPT, FAULTING, "interrupt"),
    ],
)
def test_a_missing_observation_is_found_at_its_cause(
    target: str, line: str, cause: str, subject: str
) -> None:
    story = STORY.without(line)
    result = only(story, target, DIVERGENCE, subject, story.number(cause))
    assert result.findings[0].observed is None
    assert len(result.findings[0].permitted) == 1


@pytest.mark.parametrize(
    ("line", "other", "subject"),
    [
        (INVALIDATION, "descriptor 0x0000000000050032 0x2000", "descriptor"),
        (STATUS, "status 0x9000 0x2", "status-write"),
        (STATUS, "status 0x9004 0x1", "status-write"),
        (RECORD, "fault-record 0 0x3000 0x4000000600000019", "fault-record"),
        (RECORD, "fault-record 0 0x4000 0x4000000600000018", "fault-record"),
        (INTERRUPT, "interrupt 0xfee01004 0x4022", "interrupt"),
    ],
)
def test_a_changed_observation(target: str, line: str, other: str, subject: str) -> None:
    story = STORY.replace(line, other)
    result = only(story, target, DIVERGENCE, subject, story.number(other))
    assert result.findings[0].observed is not None
    assert len(result.findings[0].permitted) == 1


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        ("descriptor 0x0000000000000014 0x0", "descriptor"),
        ("status 0x9100 0x7", "status-write"),
        ("fault-record 3 0x3000 0x4000000600000020\n" + INTERRUPT, "fault-record"),
        ("interrupt 0xfee01004 0x4022", "interrupt"),
    ],
)
def test_an_observation_too_many(target: str, line: str, subject: str) -> None:
    line, *consequences = line.splitlines()
    story = script(USE, OTHER_PAGE).after(USE, line, *consequences)
    result = only(story, target, DIVERGENCE, subject, story.number(line))
    assert result.findings[0].permitted == ()


def test_the_highest_bit_of_a_fault_record_may_be_set(target: str) -> None:
    """A recording may show the record as written (F set) or as composed (F clear)."""
    story = STORY.replace(RECORD, "fault-record 0 0x3000 0xc000000600000018")
    assert replayed(story, target).findings == []


def test_a_narrow_record_of_a_wide_descriptor(target: str) -> None:
    """A recording of a 256-bit queue may carry only the lower half of each descriptor."""
    wide = script(
        "reg.write 0x018 4 0x80000000",
        "reg.write 0x090 8 0x8800",
        "reg.write 0x018 4 0x84000000",
        "store 0x8000 8 0x12",
        "reg.write 0x088 8 0x20",
        "descriptor 0x0000000000000012 0x0",
    )
    assert replayed(wide, target).findings == []


def test_observations_of_one_cause_may_come_between_stores(target: str) -> None:
    story = STORY.after(BELL, "store 0x6ff8 8 0x0").after(INVALIDATION, "store 0x6ff0 8 0x0")
    assert replayed(story, target).findings == []


# -- going on after a finding --------------------------------------------------------------------


def test_a_descriptor_too_many_is_executed(target: str) -> None:
    story = script(USE, REMAP, USE_AGAIN).after(REMAP, INVALIDATION)
    only(story, target, DIVERGENCE, "descriptor", story.number(INVALIDATION))


def test_a_descriptor_that_is_missing_was_executed(target: str) -> None:
    story = STORY.without(INVALIDATION)
    only(story, target, DIVERGENCE, "descriptor", story.number(BELL))


def test_a_status_too_many_is_written(target: str) -> None:
    """The status write goes to a table entry: what follows walks through it."""
    status = "status 0x6008 0x12003"
    story = script(status, USE_AGAIN)
    only(story, target, DIVERGENCE, "status-write", story.number(status))


def test_a_fault_record_too_many_occupies_its_register(target: str) -> None:
    record = "fault-record 0 0x3000 0x4000000600000020"
    story = script(record, INTERRUPT, FAULTING, "fault-record 1 0x3000 0x4000000600000018")
    only(story, target, DIVERGENCE, "fault-record", story.number(record))


def test_a_queue_error_the_recorded_unit_did_not_have(target: str) -> None:
    story = STORY.replace("store 0x8000 8 0x50032", "store 0x8000 8 0x5003f")
    only(story, target, DIVERGENCE, "descriptor", story.number(INVALIDATION))


def test_a_translation_that_diverged_is_not_kept(target: str) -> None:
    bad = "access 00:03.0 - 0x2abc write = 0x13000 0xfff"
    story = script(bad, "store 0x6010 8 0x14003", "access 00:03.0 - 0x2abc write = 0x14000 0xfff")
    only(story, target, DIVERGENCE, "access", story.number(bad))


def test_each_mistake_is_reported(target: str) -> None:
    story = STORY.replace(OTHER_PAGE, "access 00:03.0 - 0x2abc write = 0x13000 0xfff")
    story = story.without(INVALIDATION).replace(STATUS, "status 0x9000 0x2")
    result = replayed(story, target)
    assert [(finding.subject, finding.event) for finding in result.findings] == [
        ("descriptor", story.number(BELL)),
        ("status-write", story.number("status 0x9000 0x2")),
        ("access", story.number("access 00:03.0 - 0x2abc write = 0x13000 0xfff")),
    ]


# -- what is not compared ------------------------------------------------------------------------


def test_clocks_and_releases_say_nothing(target: str) -> None:
    story = STORY
    for line in (USE, BELL, INVALIDATION, FAULTING):
        story = story.after(line, "clock 5", "release 0x7000")
    assert replayed(story, target).findings == []


def test_a_reset_forgets_everything_but_memory(target: str) -> None:
    again = script(USE_AGAIN).lines[2:]
    story = script(USE, REMAP, "reset").append(*(line for line in again if "snapshot" not in line))
    assert replayed(story, target).findings == []


def test_a_trace_that_ends_early_lacks_what_is_expected(target: str) -> None:
    story = Script(STORY.lines[: STORY.find(WAIT)])
    result = replayed(story, target)
    assert [(finding.event, finding.observed) for finding in result.findings] == [
        (story.number(BELL), None),
        (story.number(BELL), None),
    ]
    expected = [type(finding.permitted[0]) for finding in result.findings]
    assert expected == [Descriptor, StatusWrite]


def test_findings_are_counted_beyond_those_that_are_kept(target: str) -> None:
    story = STORY.append(*["reg.read 0x000 4 0x11"] * (FINDINGS_KEPT + 5))
    result = replayed(story, target)
    assert len(result.findings) == FINDINGS_KEPT
    assert result.counters.divergences == FINDINGS_KEPT + 5


def test_the_kinds_of_what_is_compared(target: str) -> None:
    story = STORY.without(INVALIDATION, STATUS, RECORD, INTERRUPT)
    missing = [type(finding.permitted[0]) for finding in replayed(story, target).findings]
    assert missing == [Descriptor, StatusWrite, FaultRecord, Interrupt]


def test_the_fault_story_alone(target: str) -> None:
    result = replayed(script(FAULT), target)
    assert (result.findings, result.counters.agreed) == ([], 6)
