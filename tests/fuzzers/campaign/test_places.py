"""What a slice has found is in its place, whatever happens to the slice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fuzzers.campaign.handing import Courier
from fuzzers.campaign.places import Place, left_places, name_of, remove, working_place
from fuzzers.campaign.slices import CHECK, FUZZ, MERGE, Result, salvage
from fuzzers.findings import Findings
from fuzzers.target import target_named
from tests.fuzzers.campaign.chores import TARGET, signature

REPORT = """\
==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1
    #0 0x2 in dmarewind::planted planted.cpp:17
SUMMARY: AddressSanitizer: heap-buffer-overflow planted.cpp:17 in dmarewind::planted
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place with something in it, at which nobody is at work any more."""
    with working_place(tmp_path) as made:
        made.fill(FUZZ, TARGET, (b"given",))
        (made.corpus / name_of(b"found")).write_bytes(b"found")
        (made.corpus / name_of(b"cut off")).write_bytes(b"cut")
        assert list(left_places(tmp_path)) == [], "somebody is at work there"
    (left,) = left_places(tmp_path)
    return left


def crash(place: Place, report: str, data: bytes = b"DMRo", size: int | None = None) -> Path:
    """Let libFuzzer have written what ended it."""
    scratch = place.path / "job"
    scratch.mkdir()
    (scratch / "log").write_text(report)
    artifact = scratch / f"crash-{name_of(data)}"
    artifact.write_bytes(data[:size])
    return artifact


def find(folder: Path, number: int, data: bytes) -> None:
    Findings(folder).add(target_named(TARGET), data, signature(number), "it said no")


def test_inputs_are_taken_in_but_not_what_was_cut_off(place: Place) -> None:
    taken = salvage(place)
    assert (taken.kind, taken.target) == (CHECK, TARGET)
    assert (taken.inputs, taken.findings) == ((b"found",), ())


def test_a_place_without_a_record_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    taken = salvage(Place(tmp_path / "place"))
    assert (taken.target, taken.inputs) == ("", ())


def test_a_crash_that_nobody_looked_at_is_a_finding(place: Place) -> None:
    artifact = crash(place, REPORT)
    (one,) = salvage(place).findings
    assert one.data == b"DMRo"
    assert one.signature.outcome == "heap-buffer-overflow"
    assert not artifact.exists()
    assert len(salvage(place).findings) == 1, "it was taken in, but that was not committed"


@pytest.mark.parametrize("report", ["", REPORT[:60]])
def test_a_crash_whose_report_was_cut_off_is_run_again(place: Place, report: str) -> None:
    crash(place, report)
    taken = salvage(place)
    assert set(taken.inputs) == {b"found", b"DMRo"}
    assert taken.findings == (), "half a report names another crash"


def test_a_crash_that_was_cut_off_is_nothing(place: Place) -> None:
    crash(place, REPORT, size=2)
    assert (salvage(place).inputs, salvage(place).findings) == ((b"found",), ())


def test_what_rounds_of_shrinking_have_found_is_taken_in(place: Place) -> None:
    find(place.findings, 1, b"one")
    find(place.path / "round0" / "findings", 2, b"two")
    assert {seen.data for seen in salvage(place).findings} == {b"one", b"two"}


def test_an_input_without_a_signature_is_run_again(place: Place) -> None:
    find(place.findings, 1, b"one")
    for claim in (place.findings / "signatures").iterdir():
        claim.unlink()
    assert set(salvage(place).inputs) == {b"found", b"one"}


def test_a_place_is_never_left_before_it_is_begun(tmp_path: Path) -> None:
    taken: list[Path] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            taken.extend(left.path for left in left_places(tmp_path))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            with working_place(tmp_path) as place:
                assert place.path not in taken, "somebody took it for one that was left"
                time.sleep(0.001)
                assert place.path not in taken, "somebody took it for one that was left"
            remove(place.path)
    finally:
        over.set()
        looking.join()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("option", ["-artifact_prefix={}/job/", "-o\0{}/small.txt"])
def test_who_writes_to_a_place_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch, option: str, relative: bool
) -> None:
    here = Path(place.name) if relative else place.path
    idle = "import time; time.sleep(60)"
    mine, other = (
        subprocess.Popen(
            [sys.executable, "-c", idle, *option.format(path).split("\0")], cwd=place.path.parent
        )
        for path in (here, f"{here}0")
    )
    monkeypatch.chdir("/")  # The campaign goes on from elsewhere, or with another name.
    try:
        assert [left.path for left in left_places(place.path.parent)] == [place.path]
        assert mine.wait(30) == -9
        assert other.poll() is None, "it works at another place"
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


# --- handing over --------------------------------------------------------------------------------


class Taker:
    """Take what is handed over, or refuse it."""

    def __init__(self, *, willing: bool) -> None:
        self.willing = willing
        self.sent: list[Result] = []
        self.look = Courier(self._take, every=0)

    def _take(self, result: Result) -> bool:
        self.sent.append(result)
        return self.willing

    def look_soon(self, place: Place) -> None:
        self.look._due = 0
        self.look(place)


def test_what_is_new_is_handed_over_once(place: Place) -> None:
    taker = Taker(willing=True)
    find(place.findings, 1, b"one")
    taker.look_soon(place)
    taker.look_soon(place)
    assert [(one.target, one.inputs) for one in taker.sent] == [(TARGET, (b"found",))]
    assert [seen.data for seen in taker.sent[0].findings] == [b"one"]
    (place.corpus / name_of(b"more")).write_bytes(b"more")
    find(place.findings, 2, b"two")
    taker.look_soon(place)
    assert taker.sent[1].inputs == (b"more",)
    assert [seen.data for seen in taker.sent[1].findings] == [b"two"]


def test_what_was_not_taken_is_handed_over_again(place: Place) -> None:
    taker = Taker(willing=False)
    taker.look_soon(place)
    taker.look(place)
    assert len(taker.sent) == 1, "it does not wait before it tries again"
    taker.look_soon(place)
    assert [one.inputs for one in taker.sent] == [(b"found",), (b"found",)]


def test_of_a_merge_no_inputs_are_handed_over(tmp_path: Path) -> None:
    taker = Taker(willing=True)
    with working_place(tmp_path) as place:
        place.fill(MERGE, TARGET, ())
        (place.corpus / name_of(b"x")).write_bytes(b"x")
        taker.look(place)
    assert taker.sent == []
