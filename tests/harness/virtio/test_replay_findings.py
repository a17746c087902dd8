"""One edit of a small trace gives exactly one finding, at the event it is about."""

from __future__ import annotations

import pytest

from decoders.events import Fault, FaultReport, Translation
from harness.findings import FindingKind
from harness.trace import Header, UnitInfo
from tests.writers.replays import Replayed, Script, replay_text
from tests.writers.virtio_iommu import (
    FEATURES,
    INVAL,
    NOENT,
    OK,
    attach,
    config,
    detach,
    map_,
    tail,
    unmap,
)

DIVERGENCE = FindingKind.DIVERGENCE
NIC, DISK = 0x18, 0x19


def request(data: bytes, status: int | None = OK) -> str:
    """Write a request and its status."""
    return f"request {data.hex()} 4 " + ("?" if status is None else f"= {tail(status).hex()}")


def head(dialect: str) -> tuple[str, str]:
    """Write the first two lines of a trace whose device begins without bypass."""
    unit = UnitInfo("virtio-iommu", base=0, capability=FEATURES, config=config(0))
    header = Header(units=(unit,), dialect=dialect)
    return "dmarewind-text 1", "header " + header.to_json()


ATTACH, MAP, READ_ONLY = (
    request(attach(1, NIC)),
    request(map_(1, 0x1000, 0x2FFF, 0x80000)),
    request(map_(1, 0x8000, 0x8FFF, 0x90000, 1)),
)
UNMAP, REFUSED = request(unmap(1, 0x1000, 0x2FFF)), request(unmap(1, 0x8000, 0x80FF), 5)
SPACE = "reg.read 0x020 4 0x40"
USE = "access 00:03.0 - 0x1234 read = 0x80234 0x0"
FAULTING = "access 00:03.0 - 0x8010 write ! 0x02"
REPORT = "fault-report 2 0x102 00:03.0 0x8010"
GONE = "access 00:03.0 - 0x1234 read ! 0x02"
GONE_REPORT = "fault-report 2 0x100 00:03.0 0x1234"
STRANGER = "access 01:00.0 - 0x40 read ! 0x00"
STRANGER_REPORT = "fault-report 0 0x100 01:00.0 0x40"
GAP, RESET = "gap a line was torn", "reset"


def script(dialect: str = "qemu") -> Script:
    """Tell everything in its order, with nothing wrong."""
    return Script(
        [
            *head(dialect),
            f"features {FEATURES:#x} {FEATURES:#x}",
            f"config {config(0).hex()}",
            "endpoint 00:03.0",
            SPACE,
            ATTACH,
            MAP,
            READ_ONLY,
            USE,
            "clock 5",
            FAULTING,
            REPORT,
            REFUSED,
            UNMAP,
            GONE,
            GONE_REPORT,
            STRANGER,
            STRANGER_REPORT,
        ]
    )


STORY = script()


def only(story: Script, target: str, kind: FindingKind, subject: str, number: int) -> Replayed:
    """Replay and check that there is one finding, of that kind, about that event."""
    result = replay_text(str(story), target)
    found = [(finding.kind, finding.subject, finding.event) for finding in result.findings]
    assert found == [(kind, subject, number)]
    assert result.counters.divergences == 1
    return result


@pytest.mark.parametrize("dialect", ["qemu", "spec"])
def test_nothing_is_wrong_with_the_story(target: str, dialect: str) -> None:
    result = replay_text(str(script(dialect)), target)
    assert result.findings == []
    counters = result.counters.as_dict()
    assert {name: count for name, count in counters.items() if count} == {
        "events": len(result.events),
        "translations": 1,
        "faults": 3,
        "requests": 5,
        "fault_records": 3,
        "register_reads": 1,
        "agreed": 13,
    }


# --- requests -------------------------------------------------------------------------------------


def test_a_wrong_status(target: str) -> None:
    bad = REFUSED.replace("= 05", "= 04")
    story = STORY.replace(REFUSED, bad)
    finding = only(story, target, DIVERGENCE, "request", story.number(bad)).findings[0]
    assert (finding.observed, finding.permitted) == (tail(INVAL), (tail(5),))


def test_a_request_that_failed_changes_nothing(target: str) -> None:
    bad = request(map_(1, 0x1000, 0x2FFF, 0x80000), INVAL)
    story = STORY.replace(MAP, bad).replace(USE, GONE).after(GONE, GONE_REPORT)
    only(story, target, DIVERGENCE, "request", story.number(bad))


def test_a_request_that_is_not_in_the_story_shows_at_the_access(target: str) -> None:
    story = STORY.without(MAP)
    only(story, target, DIVERGENCE, "access", story.number(USE))


def test_a_request_that_was_not_answered(target: str) -> None:
    bad = MAP.replace("= 00000000", "= -")
    story = STORY.replace(MAP, bad)
    result = replay_text(str(story), target)
    assert [one.event for one in result.findings] == [story.number(bad), story.number(USE)]
    assert result.findings[0].observed == b""


def test_an_answer_nobody_saw_is_taken_for_the_expected_one(target: str) -> None:
    story = STORY.replace(MAP, request(map_(1, 0x1000, 0x2FFF, 0x80000), None))
    result = replay_text(str(story), target)
    assert result.findings == []
    assert result.counters.agreed == 12


# --- accesses -------------------------------------------------------------------------------------


def test_a_wrong_landing(target: str) -> None:
    bad = USE.replace("0x80234", "0x81234")
    story = STORY.replace(USE, bad)
    finding = only(story, target, DIVERGENCE, "access", story.number(bad)).findings[0]
    assert finding.observed == Translation(0x81234, 0)
    assert finding.permitted == (Translation(0x80000, 0xFFF),)
    assert (finding.domain, finding.filled_by) == (1, story.number(MAP))


def test_a_translation_of_a_mapping_that_has_ended(target: str) -> None:
    story = STORY.without(GONE_REPORT).replace(GONE, USE)
    kind = FindingKind.STALE_AFTER_INVALIDATION
    number = story.number(USE, 1)
    finding = only(story, target, kind, "access", number).findings[0]
    assert finding.permitted == (Fault(2),)
    assert (finding.filled_by, finding.covered_by) == (story.number(MAP), story.number(UNMAP))


def test_a_fault_instead_of_a_translation(target: str) -> None:
    """Its report is a consequence and not held against the unit."""
    story = STORY.replace(USE, GONE).after(GONE, GONE_REPORT)
    only(story, target, DIVERGENCE, "access", story.number(GONE))


def test_a_translation_instead_of_a_fault(target: str) -> None:
    bad = "access 00:03.0 - 0x8010 write = 0x90010 0x0"
    story = STORY.replace(FAULTING, bad).without(REPORT)
    only(story, target, DIVERGENCE, "access", story.number(bad))


def test_another_reason(target: str) -> None:
    bad = FAULTING.replace("0x02", "0x01")
    story = STORY.replace(FAULTING, bad).replace(REPORT, REPORT.replace(" 2 ", " 1 "))
    only(story, target, DIVERGENCE, "access", story.number(bad))


def test_an_endpoint_nobody_declared_is_judged_as_any(target: str) -> None:
    bad = "access 01:00.0 - 0x40 read = 0x40 0x0"
    story = STORY.replace(STRANGER, bad).without(STRANGER_REPORT)
    only(story, target, DIVERGENCE, "access", story.number(bad))


def test_an_endpoint_nobody_declared_may_be_attached_or_not(target: str) -> None:
    for status in (OK, NOENT):
        story = STORY.append(request(attach(1, 0x100), status))
        assert replay_text(str(story), target).findings == []
    story = STORY.append(request(attach(1, DISK), NOENT))
    assert replay_text(str(story), target).findings == []  # on a bus where others are


def test_a_wide_endpoint_id(target: str) -> None:
    wide = "access 0x10018 - 0x40 read ! 0x00"
    story = STORY.append(wide, "fault-report 0 0x100 0x10018 0x40")
    assert replay_text(str(story), target).findings == []


# --- fault reports --------------------------------------------------------------------------------


def test_a_missing_report_is_about_the_access(target: str) -> None:
    story = STORY.without(REPORT)
    number = story.number(FAULTING)
    finding = only(story, target, DIVERGENCE, "fault-report", number).findings[0]
    assert finding.observed is None
    assert finding.permitted == (FaultReport(2, 0x102, NIC, 0x8010),)


def test_a_report_that_is_missing_at_the_end(target: str) -> None:
    story = STORY.without(STRANGER_REPORT)
    only(story, target, DIVERGENCE, "fault-report", story.number(STRANGER))


@pytest.mark.parametrize("place", [USE, REPORT, UNMAP])
def test_a_superfluous_report(target: str, place: str) -> None:
    extra = "fault-report 2 0x101 00:03.0 0x7777"
    story = STORY.after(place, extra)
    finding = only(story, target, DIVERGENCE, "fault-report", story.number(extra)).findings[0]
    assert finding.permitted == ()


@pytest.mark.parametrize(
    "other",
    [
        "fault-report 1 0x102 00:03.0 0x8010",
        "fault-report 2 0x102 00:03.1 0x8010",
        "fault-report 2 0x102 00:03.0 0x8018",
        "fault-report 2 0x100 00:03.0 0x8010",
        "fault-report 2 0x103 00:03.0 0x8010",
    ],
)
def test_a_report_with_other_content(target: str, other: str) -> None:
    story = STORY.replace(REPORT, other)
    finding = only(story, target, DIVERGENCE, "fault-report", story.number(other)).findings[0]
    assert finding.permitted == (FaultReport(2, 0x102, NIC, 0x8010),)


@pytest.mark.parametrize(
    "other", ["fault-report 2 0x100 00:03.0 0x8010", "fault-report 2 0x0 00:03.0 0x0"]
)
def test_the_specification_leaves_flags_and_address_open(target: str, other: str) -> None:
    assert replay_text(str(script("spec").replace(REPORT, other)), target).findings == []


def test_an_access_of_which_nobody_saw_the_outcome_may_have_a_report(target: str) -> None:
    story = STORY.replace(FAULTING, "access 00:03.0 - 0x8010 unknown ?")
    assert replay_text(str(story), target).findings == []
    assert replay_text(str(story.without(REPORT)), target).findings == []
    only(story.after(REPORT, REPORT), target, DIVERGENCE, "fault-report", story.number(REPORT) + 1)


# --- config space ---------------------------------------------------------------------------------


def test_a_field_that_was_read_with_another_value(target: str) -> None:
    bad = "reg.read 0x020 4 0x41"
    story = STORY.replace(SPACE, bad)
    finding = only(story, target, DIVERGENCE, "config", story.number(bad)).findings[0]
    assert (finding.observed, finding.permitted) == (0x41, (0x40,))


def test_bypass_that_nobody_wrote(target: str) -> None:
    bad = f"config {config(1).hex()}"
    story = STORY.after(SPACE, bad).without(STRANGER, STRANGER_REPORT)
    only(story, target, DIVERGENCE, "config", story.number(bad))
    story = story.replace(bad, "reg.write 0x024 1 0x1").after("reg.write 0x024 1 0x1", bad)
    assert replay_text(str(story), target).findings == []


# --- gaps and resets ------------------------------------------------------------------------------

WRONG = USE.replace("0x80234", "0x81234")


def test_nothing_is_judged_behind_a_gap(target: str) -> None:
    story = STORY.after(MAP, GAP, WRONG, "reg.read 0x020 4 0x99")
    result = replay_text(str(story), target)
    assert result.findings == []
    assert result.counters.agreed == 3, "a field and two requests before the gap"
    # The others of the story, and two more.
    assert result.counters.unjudged == 12


def test_a_gap_takes_back_what_was_expected(target: str) -> None:
    story = STORY.without(REPORT).after(FAULTING, GAP)
    assert replay_text(str(story), target).findings == []


def test_a_reset_ends_the_doubt(target: str) -> None:
    story = STORY.after(MAP, GAP, WRONG, RESET, ATTACH, MAP, WRONG)
    only(story, target, DIVERGENCE, "access", story.number(WRONG, 1))


@pytest.mark.parametrize("reset", [RESET, "device-reset"])
def test_a_reset_ends_domains(target: str, reset: str) -> None:
    story = STORY.append(reset, request(map_(1, 0, 0xFFF, 0), NOENT))
    assert replay_text(str(story), target).findings == []
    story = STORY.append(reset, request(map_(1, 0, 0xFFF, 0)))
    only(story, target, DIVERGENCE, "request", story.number(story.lines[-1]))


def test_a_reset_does_not_excuse_a_missing_report(target: str) -> None:
    story = STORY.without(STRANGER_REPORT).append(RESET)
    only(story, target, DIVERGENCE, "fault-report", story.number(STRANGER))


def test_events_of_other_units_are_passed_over(target: str) -> None:
    others = (
        "store 0x1000 8 0x1",
        "descriptor 0x0000000000010012 0x0",
        "fault-record 0 0x1000 0x0",
        "status 0x1000 0x1",
        "interrupt 0xfee00000 0x1",
        "release 0x1000",
    )
    story = STORY.after(FAULTING, *others)
    assert replay_text(str(story), target).findings == []


def test_a_story_told_again_without_its_end(target: str) -> None:
    """Whatever a trace ends with, only what the unit should have reported is missed."""
    for length in range(2, len(STORY.lines)):
        story = Script(STORY.lines[: length + 1])
        expected = int(story.lines[-1] in (FAULTING, GONE, STRANGER))
        assert len(replay_text(str(story), target).findings) == expected


def test_leaving_a_domain_ends_its_mappings_for_the_endpoint(target: str) -> None:
    leave = request(detach(1, NIC))
    fault = "fault-report 0 0x100 00:03.0 0x8010"
    story = STORY.append(leave, "access 00:03.0 - 0x8010 write ! 0x00", fault)
    assert replay_text(str(story), target).findings == []
    late = "access 00:03.0 - 0x8010 read = 0x90010 0x0"
    story = STORY.append(leave, late)
    kind = FindingKind.STALE_AFTER_INVALIDATION
    only(story, target, kind, "access", story.number(late))
