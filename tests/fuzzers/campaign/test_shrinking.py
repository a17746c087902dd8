"""Inputs get smaller while they show the same finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fuzzers.campaign.places import Seen
from fuzzers.campaign.shrinking import CANDIDATES, candidates, judge_of, shrink, smallest_trace
from fuzzers.instrumented import ROOT
from harness.signature import CRASH, DISAGREEMENT, Signature
from harness.trace import VIRTIO, VTD, Header, UnitInfo
from tests.fuzzers.campaign.chores import seen

BAD = b"DMRo"


def never() -> bool:
    return False


def shows(data: bytes) -> bool:
    return all(byte in data for byte in BAD)


def run(some: Sequence[bytes]) -> Seen | None:
    assert len(some) <= CANDIDATES
    return next((seen(1, one) for one in sorted(some, key=len) if shows(one)), None)


def test_what_is_not_needed_goes() -> None:
    rounds = 0

    def counting(some: Sequence[bytes]) -> Seen | None:
        nonlocal rounds
        rounds += 1
        return run(some)

    found = shrink(bytes(range(1, 200)) * 3, counting, lambda: False)
    assert found is not None
    assert sorted(found.data) == sorted(BAD)
    assert rounds < 60, "each round is a process"


def test_where_nothing_shows_there_is_nothing() -> None:
    assert shrink(b"harmless", run, lambda: False) is None


def test_it_ends_when_time_is_over() -> None:
    data = BAD * 100
    found = shrink(data, run, lambda: True)
    assert found is not None
    assert found.data == data


def test_candidates_are_never_larger_nor_repeated() -> None:
    data = b"\1\2\3\0\0\0\7" * 4
    made = list(candidates(data))
    assert len(made) == len(set(made))
    assert data not in made
    assert all(len(one) <= len(data) for one in made)
    assert b"" in made


@pytest.mark.parametrize(
    ("kind", "against", "unit", "judge"),
    [
        (DISAGREEMENT, "model", VTD, ("pair",)),
        (CRASH, "model", VTD, ()),
        ("divergence", "qemu", VTD, ("diff",)),
        ("divergence", "qemu-bare", VTD, ("diff", "--no-deviations")),
        ("divergence", "qemu-bare", VIRTIO, ("qemu",)),
    ],
)
def test_traces_are_judged_where_somebody_sees_the_finding(
    kind: str, against: str, unit: str, judge: tuple[str, ...]
) -> None:
    header = Header(units=(UnitInfo(kind=unit),))
    assert judge_of(Signature(kind), against, header) == judge


def test_why_a_trace_is_not_smaller_stands_in_it(tmp_path: Path) -> None:
    kept = ROOT / "corpora" / "deviations" / "dirty-bit-lost.txt"
    whole = "".join(kept.read_text().splitlines(keepends=True)[:2])
    empty = "dmarewind-text 1\nheader {}\n"
    for kind, against, head, why in (
        (DISAGREEMENT, "model", whole, "error: "),
        (DISAGREEMENT, "model", empty, "text.header"),
        (CRASH, "model", whole, "no judge of"),
        (CRASH, "none", whole, "no judge of"),
    ):
        one = Seen(Signature(kind), b"", f"it said no\n\nas a trace:\n\n{head}reset\n")
        found = smallest_trace(one, against, tmp_path, 60, {"PYTHONPATH": str(ROOT)}, never)
        assert found.startswith(f"{head}# not minimised: {why}")
        assert found.endswith("reset\n")


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("outcome", "remark"),
    [
        ("taken -> refused", "# The unit does otherwise than it should: divergence, Descriptor"),
        ("refused -> taken", "# not minimised: error: diff: no signature begins with"),
    ],
)
def test_a_trace_is_about_its_finding(tmp_path: Path, outcome: str, remark: str) -> None:
    trace = (ROOT / "corpora" / "deviations" / "empty-wait.txt").read_text()
    wanted = Signature("divergence", "Descriptor", "InvalidationWait", outcome)
    one = Seen(wanted, b"", f"it said no\n\nas a trace:\n\n{trace}")
    found = smallest_trace(one, "qemu-bare", tmp_path, 60, {"PYTHONPATH": str(ROOT)}, never)
    assert remark in found
    assert (len(found.splitlines()) < len(trace.splitlines())) == (remark[2] == "T")


def test_minimising_ends_when_the_slice_is_over(tmp_path: Path) -> None:
    trace = (ROOT / "corpora" / "deviations" / "dirty-bit-lost.txt").read_text()
    one = Seen(Signature(DISAGREEMENT), b"", f"it said no\n\nas a trace:\n\n{trace}")
    found = smallest_trace(one, "model", tmp_path, 60, {"PYTHONPATH": str(ROOT)}, lambda: True)
    assert "# not minimised: stopped\n" in found


def test_what_has_no_trace_gets_none(tmp_path: Path) -> None:
    one = Seen(Signature(DISAGREEMENT), b"", "it said no\n")
    assert smallest_trace(one, "model", tmp_path, 60, {}, never) == ""
