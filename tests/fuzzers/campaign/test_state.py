"""What a campaign keeps: files first, then rows, and each can be made from the other."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzers.campaign.places import Seen, name_of
from fuzzers.campaign.slices import CHECK, FUZZ, HANDED, MERGE, SHRINK, Result, Slice
from fuzzers.campaign.state import KNOWN_FILE, State, alone
from harness.errors import HarnessError
from tests.fuzzers.campaign.chores import TARGET, seen, signature


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    made.begin(TARGET, "none", (b"seed",))
    yield made
    made.close()


def result(kind: str, *inputs: bytes, findings: tuple[Seen, ...] = (), wanted: str = "") -> Result:
    return Result(
        kind, TARGET, "place", "worker", inputs, findings, 2.0, 100, 3, 4, "", wanted, complete=True
    )  # fmt: skip


def states(state: State) -> dict[str, str]:
    return {row["key"]: row["state"] for row in state.findings()}


def test_inputs_are_kept_once(state: State) -> None:
    state.take(result(FUZZ, b"one", b"two"))
    state.take(result(FUZZ, b"two", b"three"))
    assert set(state.corpus(TARGET)) == {b"seed", b"one", b"two", b"three"}
    (row,) = state.targets()
    assert (row["executions"], row["coverage"], row["features"]) == (200, 3, 4)
    assert [sample["corpus"] for sample in state.samples(TARGET)] == [3, 4]


def test_a_signature_is_one_finding_however_often_it_is_seen(state: State) -> None:
    assert state.take(result(FUZZ, findings=(seen(1, b"longer"), seen(2)))) != []
    assert state.take(result(FUZZ, findings=(seen(1, b"short"),))) == []
    rows = {row["key"]: row for row in state.findings(TARGET)}
    assert rows.keys() == {signature(1).key, signature(2).key}
    row = rows[signature(1).key]
    assert (row["times"], row["state"], row["input"]) == (2, "new", name_of(b"short"))
    assert state.files.finding(TARGET, row["input"]) == b"short"


def test_a_finding_that_stays_away_is_gone_and_may_come_back(state: State) -> None:
    state.take(result(FUZZ, findings=(seen(1, b"a"), seen(2, b"b"))))
    check = Slice(CHECK, TARGET, "none", 1, (b"a", b"b"))
    state.take(result(CHECK, findings=(seen(2, b"b"),)), check)
    assert states(state) == {signature(1).key: "gone", signature(2).key: "new"}
    state.take(result(FUZZ, findings=(seen(1, b"c"),)))
    assert states(state)[signature(1).key] == "regressed"


def test_a_check_that_failed_says_nothing(state: State) -> None:
    state.take(result(FUZZ, findings=(seen(1, b"a"),)))
    failed = Result(CHECK, TARGET, "place", "worker", trouble="exit code -9")
    state.take(failed, Slice(CHECK, TARGET, "none", 1, (b"a",)))
    assert states(state) == {signature(1).key: "new"}


def test_a_smaller_input_takes_the_place_of_the_first(state: State) -> None:
    state.take(result(FUZZ, findings=(seen(1, b"quite long"), seen(2, b"unsteady"))))
    for number, found in ((1, (seen(1, b"x"),)), (2, ())):
        state.take(result(SHRINK, findings=found, wanted=signature(number).key))
    assert states(state) == {signature(1).key: "minimised", signature(2).key: "unstable"}
    assert {row["size"] for row in state.findings()} == {1, 8}


def test_known_findings_are_listed_by_key(state: State) -> None:
    state.take(result(FUZZ, findings=(seen(1), seen(2))))
    known = state.files.directory / KNOWN_FILE
    known.write_text(f"# of an upstream issue\n{signature(1).key}  # wontfix\n")
    state.apply_known()
    assert states(state) == {signature(1).key: "known", signature(2).key: "new"}
    known.write_text("")
    state.apply_known()
    assert set(states(state).values()) == {"new"}


def test_a_merge_covers_what_it_was_given_only(state: State) -> None:
    state.take(result(FUZZ, b"one", b"two"))
    task = Slice(MERGE, TARGET, "none", 1, state.corpus(TARGET))
    state.take(result(FUZZ, b"found meanwhile"))
    state.take(result(MERGE, b"two"), task)
    assert set(state.corpus(TARGET)) == {b"two", b"found meanwhile"}
    assert state.files.input(TARGET, name_of(b"one")) == b"one", "a covered input was removed"


def test_a_merge_that_kept_nothing_is_not_believed(state: State) -> None:
    task = Slice(MERGE, TARGET, "none", 1, state.corpus(TARGET))
    state.take(result(MERGE), task)
    assert state.corpus(TARGET) == (b"seed",)


def test_rows_follow_files(state: State, tmp_path: Path) -> None:
    state.take(result(FUZZ, b"one", b"two", findings=(seen(1, b"a"), seen(2, b"b"))))
    (tmp_path / "corpus" / TARGET / name_of(b"one")).unlink()
    (tmp_path / "corpus" / TARGET / name_of(b"new")).write_bytes(b"new")
    (tmp_path / "corpus" / TARGET / name_of(b"torn")).write_bytes(b"to")
    (tmp_path / "findings" / TARGET / name_of(b"a")).unlink()
    assert state.reconcile() == {"taken": 1, "lost": 2}
    assert set(state.corpus(TARGET)) == {b"seed", b"two", b"new"}
    assert {row["key"]: row["lost"] for row in state.findings()} == {
        signature(1).key: 1,
        signature(2).key: 0,
    }
    assert [path.read_bytes() for path in (tmp_path / "damaged").iterdir()] == [b"to"]
    state.take(result(FUZZ, b"one", findings=(seen(1, b"a"),)))
    assert state.reconcile() == {"taken": 0, "lost": 0}
    assert b"one" in state.corpus(TARGET)


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_damaged_database_is_made_again_from_files(
    state: State, tmp_path: Path, content: bytes
) -> None:
    state.take(result(FUZZ, b"one", findings=(seen(1),)))
    state.close()
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    (tmp_path / "state.db").write_bytes(content)
    again = State(tmp_path)
    try:
        again.reconcile()
        assert set(again.corpus(TARGET)) == {b"seed", b"one"}
        assert [row["key"] for row in again.findings()] == [signature(1).key]
    finally:
        again.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE findings SET signature = 'nonsense'",
        "UPDATE findings SET signature = '{}'",
        "UPDATE findings SET signature = CAST(x'ff' AS TEXT)",
        "UPDATE findings SET size = 'large'",
        "UPDATE targets SET clock = x'00'",
        "DROP TABLE findings",
        "ALTER TABLE samples DROP COLUMN corpus",
        "PRAGMA user_version = 0",
    ],
)
def test_what_sqlite_takes_for_sound_is_damaged_too(
    state: State, tmp_path: Path, damage: str
) -> None:
    state.take(result(FUZZ, b"one", findings=(seen(1),)))
    state.database.execute(damage)
    state.close()
    again = State(tmp_path)
    try:
        again.reconcile()
        assert set(again.corpus(TARGET)) == {b"seed", b"one"}
        assert [row["key"] for row in again.findings()] == [signature(1).key]
        assert (tmp_path / "state.db.damaged1").is_file(), "nothing was put aside"
    finally:
        again.close()


def test_a_database_that_is_sound_is_not_put_aside(state: State, tmp_path: Path) -> None:
    state.take(result(FUZZ, b"one", findings=(seen(1),)))
    state.close()
    State(tmp_path).close()
    assert list(tmp_path.glob("*.damaged*")) == []


@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_a_directory_in_place_of_a_database_is_no_full_disk(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(HarnessError, match=f"{name}: not a regular file"):
        State(tmp_path)


def test_a_directory_that_may_not_be_written_is_no_full_disk(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.close()
    # Whoever may do everything is not refused by modes.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(HarnessError, match=f"{tmp_path}: a campaign may not write there"):
        State(tmp_path)


def test_what_cannot_be_written_leaves_no_row(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.files, "add_finding", refuse)
    with pytest.raises(OSError, match="No space"):
        state.take(result(FUZZ, b"one", findings=(seen(1),)))
    assert state.corpus(TARGET) == (b"seed",)
    assert state.findings() == []


def test_a_database_of_another_version_is_refused(state: State, tmp_path: Path) -> None:
    state.close()
    database = sqlite3.connect(tmp_path / "state.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(HarnessError, match="of version 99"):
        State(tmp_path)


def test_a_directory_has_one_campaign(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(HarnessError, match="one is enough"), alone(tmp_path):
        pass


def test_what_a_slice_hands_over_counts_once(state: State) -> None:
    assert state.take(result(HANDED, b"one", findings=(seen(1),))) != []
    assert b"one" in state.corpus(TARGET), "it is kept before the slice ends"
    assert [row["times"] for row in state.findings(TARGET)] == [0]
    assert state.targets()[0]["executions"] == 0
    for _ in range(2):
        state.take(result(FUZZ, b"one", findings=(seen(1),)))
    assert [row["times"] for row in state.findings(TARGET)] == [2]
    news = state.database.execute("SELECT findings FROM runs ORDER BY number").fetchall()
    assert [row["findings"] for row in news] == [1, 0], "the slice that found it gets the credit"


def test_an_input_that_crashes_is_not_handed_out(state: State) -> None:
    state.take(result(CHECK, b"crashes", b"does not"))
    state.take(result(FUZZ, findings=(seen(1, b"crashes"),)))
    assert set(state.corpus(TARGET)) == {b"seed", b"does not"}
