"""A campaign touches files of its own only, and is not held up by what is no file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from fuzzers.campaign.files import Files
from fuzzers.campaign.places import name_of
from fuzzers.campaign.state import KNOWN_FILE, State
from tests.fuzzers.campaign.chores import TARGET, seen, signature

DRAFT = f".{name_of(b'x')}.0123abcd.tmp"


def test_drafts_are_removed_where_a_campaign_writes_them(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.add_inputs(TARGET, (b"one",))
    files.add_finding(TARGET, seen(1), "none")
    folders = ("", f"corpus/{TARGET}", f"findings/{TARGET}", "records", "reports")
    drafts = [tmp_path / folder / DRAFT for folder in folders[1:]]
    drafts.append(tmp_path / ".status.html.0123abcd.tmp")
    foreign = [tmp_path / folder / ".mine.tmp" for folder in (*folders, "notes", "notes/deep")]
    foreign += [tmp_path / "notes" / DRAFT, tmp_path / DRAFT]
    (tmp_path / "notes/deep").mkdir(parents=True)
    for path in drafts + foreign:
        path.touch()
    (folder := tmp_path / "records/.folder.0123abcd.tmp").mkdir()
    files.tidy()
    assert [path for path in drafts if path.exists()] == []
    assert [path for path in foreign if not path.exists()] == []
    assert folder.is_dir()


def test_pipes_are_not_read(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.files.add_finding(TARGET, seen(1), "none")
    state.files.add_inputs(TARGET, (b"one",))
    state.reconcile()
    (finding := tmp_path / "findings" / TARGET / name_of(seen(1).data)).unlink()
    state.close()
    pipes = [tmp_path / "records/a.json", tmp_path / "corpus" / TARGET / name_of(b"two"), finding]
    for path in (*pipes, tmp_path / KNOWN_FILE):
        os.mkfifo(path)
    done: list[dict[str, int]] = []

    def begin() -> None:
        again = State(tmp_path)
        done.append(again.reconcile())
        again.apply_known()
        again.close()

    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for who writes a pipe"
    assert done == [{"taken": 0, "lost": 1}]


@pytest.mark.parametrize("target", ["..", "", "../..", "/", "corpus/.."])
def test_a_record_leads_nowhere_else(tmp_path: Path, target: str) -> None:
    state = State(tmp_path)
    try:
        plain = {"target": target, "input": "x", "signature": signature(1).as_json()}
        (tmp_path / "records/a.json").write_text(json.dumps(plain))
        (tmp_path / "records/b.json").write_text("[" * 100_000)
        assert list(state.files.all_records()) == []
        assert list(state.files.all_inputs(target)) == []
        assert (tmp_path / "state.db").exists(), "a file beside a corpus was put aside"
    finally:
        state.close()
