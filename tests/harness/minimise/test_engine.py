"""Whole runs: traces with something wrong in them become as small as they can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decoders.events import Access, Event, Fault, RegWrite, StatusWrite, Store, Translation
from decoders.vtd import registers as vtd
from harness.differential.pair import Disagreement
from harness.errors import HarnessError
from harness.findings import Finding, FindingKind
from harness.minimise import judges
from harness.minimise.engine import Options, Result, minimise
from harness.minimise.explanation import paragraph
from harness.minimise.judges import DisagreementJudge, ReplayJudge, Shown
from harness.minimise.trace import Trace
from harness.signature import of_finding
from tools.bench.reproducers import (
    UNITS,
    lost,
    refused,
    shipped,
    stale_use,
    virtio_answer,
    virtio_status,
    wrong_answer,
    wrong_status,
)

QUEUES = {"refused": refused, "wrong status": wrong_status, "lost": lost}


def result_of(trace: Trace, which: int = -1) -> Result:
    judge = ReplayJudge("native")
    wanted = judge(trace)[which].signature.key
    result = minimise(trace, judge, Options(wanted=wanted))
    assert result.complete
    assert result.last.shown == 1
    assert result.target in {one.signature for one in judge(result.trace)}
    return result


@pytest.mark.parametrize("wide", [False, True], ids=["128 bits", "256 bits"])
@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_of_hundreds_of_descriptors_becomes_one(name: str, wide: bool) -> None:
    result = result_of(QUEUES[name](300, 5, wide), 0)
    assert len(result.trace.events) <= 7
    assert result.runs <= 50


@pytest.mark.parametrize("name", UNITS)
def test_a_wrong_answer_needs_its_tables_only(name: str) -> None:
    result = result_of(wrong_answer(name, 0, 60))
    assert len(result.trace.events) <= 14
    assert result.runs <= 60
    # Nothing can be left out any more.
    for n in range(len(result.trace.events)):
        less = Trace(result.trace.header, result.trace.events[:n] + result.trace.events[n + 1 :])
        shown = {one.signature for one in ReplayJudge("native")(less)}
        allowed = {one.signature for one in ReplayJudge("native")(result.before)}
        assert result.target not in shown or not shown <= allowed


def test_values_become_canonical() -> None:
    result = result_of(shipped("legacy-strict", 3000))
    access = result.trace.events[-1]
    assert isinstance(access, Access)
    assert access.iova < 4096
    pages = {e.address >> 12 for e in result.trace.events if isinstance(e, Store)}
    assert pages == set(range(1, 7))  # root, context, four levels
    roots = [e for e in result.trace.events
             if isinstance(e, RegWrite) and e.offset == vtd.RTADDR.offset]  # fmt: skip
    assert [e.value for e in roots] == [0x1000]
    assert all(e.size == 8 for e in result.trace.events if isinstance(e, Store))


def test_domains_are_counted_from_one() -> None:
    events = result_of(shipped("legacy-strict", 3000)).trace.events
    context = next(e for e in events if isinstance(e, Store) and e.address & 0xF008 == 0x2008)
    assert context.value >> 8 & 0xFFFF == 1


def test_a_stale_use_keeps_what_changed_the_entry() -> None:
    result = result_of(stale_use("legacy", 20, 300))
    finding = result.shown.finding
    assert finding is not None
    assert isinstance(result.trace.events[finding.changed_by], Store)
    assert len(result.trace.events) <= 14
    said = paragraph(result.shown, result.trace)
    assert f"event {finding.changed_by} (store of" in said
    assert "Missing between them: " in said
    assert "VT-d 6.5" in said


@pytest.mark.parametrize("make", [virtio_answer, virtio_status], ids=["answer", "status"])
def test_a_virtio_iommu_keeps_the_requests_that_matter(make: type) -> None:
    result = result_of(make(1, 400))
    assert len(result.trace.events) <= 2
    assert result.runs - result.value_runs <= 4
    assert "virtio 1.4" in paragraph(result.shown, result.trace)


def test_an_attach_that_was_refused_is_not_taken_for_what_is_needed() -> None:
    result = result_of(virtio_status(0, 60))
    assert result.runs - result.value_runs <= 4
    assert len(result.trace.events) == 2


class Blind(ReplayJudge):
    """A judge that says of a finding no more than a script does."""

    def __call__(self, trace: Trace) -> list[Shown]:
        return [Shown(one.signature) for one in super().__call__(trace)]


@pytest.mark.parametrize(
    ("trace", "runs"),
    [
        (shipped("legacy-strict", 3000), 30),
        (stale_use("legacy", 20, 300), 30),
        (virtio_status(1, 400), 6),
        (wrong_status(300, 1, False), 40),
    ],
    ids=["answer", "stale", "virtio", "queue"],
)
def test_a_judge_that_names_nothing_costs_little_more(trace: Trace, runs: int) -> None:
    judge = Blind("native")
    wanted = judge(trace)[-1].signature.key
    told = minimise(trace, ReplayJudge("native"), Options(wanted=wanted))
    result = minimise(trace, judge, Options(wanted=wanted))
    assert len(result.trace.events) <= len(told.trace.events)
    assert result.runs - result.value_runs <= runs


def test_runs_for_values_are_counted_apart() -> None:
    trace = shipped("legacy-strict", 3000)
    result = result_of(trace)
    assert 0 < result.value_runs < result.runs
    again = minimise(result.trace, ReplayJudge("native"), Options(wanted=result.target.key))
    assert len(again.trace.events) == len(result.trace.events)


def test_a_trace_without_findings_is_refused() -> None:
    trace = shipped("legacy-strict", 3000)
    sound = Trace(trace.header, trace.events[:-1])
    with pytest.raises(HarnessError, match="shows nothing"):
        minimise(sound, ReplayJudge("native"), Options())


def test_a_signature_that_is_not_there_is_refused_with_those_that_are() -> None:
    trace = shipped("legacy-strict", 3000)
    with pytest.raises(HarnessError, match=r"there are .*divergence, Access"):
        minimise(trace, ReplayJudge("native"), Options(wanted="nothing"))


def test_it_does_not_slip_to_another_finding() -> None:
    trace = shipped("legacy-strict", 3000)
    # Nearer to the end, and easier to keep: an observation that nothing caused.
    events = (*trace.events, StatusWrite(0x1000, 1))
    result = result_of(Trace(trace.header, events), 0)
    assert result.target.event == "Access"
    assert not any(isinstance(e, StatusWrite) for e in result.trace.events)


def test_what_model_and_native_say_alike_is_no_disagreement() -> None:
    assert DisagreementJudge()(shipped("legacy-strict", 3000)) == []


class Slanted:
    """A judge that finds any translation to the upper half of some megabytes."""

    name = "slanted"
    identity = ("slanted",)
    repeatable = True

    def __call__(self, trace: Trace) -> list:  # type: ignore[type-arg]
        from harness.minimise.judges import INTERESTING, Shown

        def high(event: Event) -> bool:
            outcome = event.outcome if isinstance(event, Access) else None
            return isinstance(outcome, Translation) and bool(outcome.address & 1 << 24)

        return [Shown(INTERESTING)] if any(map(high, trace.events)) else []


def test_any_judge_will_do() -> None:
    trace = wrong_answer("legacy", 0, 60)
    last = trace.events[-1]
    assert isinstance(last, Access)
    outcome = replace(last, outcome=Translation(1 << 24, 0xFFF))
    result = minimise(Trace(trace.header, (*trace.events[:-1], outcome)), Slanted(), Options())
    assert len(result.trace.events) == 1


def test_where_model_and_native_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them part at each write of the root table's address, and see only that remain."""

    def planted(_: object, events: tuple[Event, ...]) -> Disagreement | None:
        for number, event in enumerate(events):
            if isinstance(event, RegWrite) and event.offset == vtd.RTADDR.offset:
                return Disagreement(number, f"register at {number:#x}", Fault(5), None)
        return None

    monkeypatch.setattr(judges, "compare", planted)
    trace = wrong_answer("legacy", 0, 60)
    result = minimise(trace, DisagreementJudge(), Options())
    assert [type(event) for event in result.trace.events] == [RegWrite]
    assert result.target.as_json() | {"key": ""} == {
        "kind": "disagreement", "event": "RegWrite", "subject": "register at N",
        "outcome": "fault 0x05 -> nothing", "step": "", "key": "",
    }  # fmt: skip
    assert "The model and the native core part at a RegWrite" in paragraph(
        result.shown, result.trace
    )


def test_what_did_not_show_is_not_called_forbidden() -> None:
    trace = wrong_answer("legacy", 0, 60)
    number, access = next((n, e) for n, e in enumerate(trace.events) if isinstance(e, Access))
    found = Finding(number, FindingKind.DIVERGENCE, "access", access.outcome, ())
    said = paragraph(Shown(of_finding(found, access), found), trace)
    assert "did not show" in said
    assert "nothing is permitted" not in said
