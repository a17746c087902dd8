"""What a recording lost is not held against the unit."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness import replay
from harness.trace import TraceWriter, parse_text
from harness.trace.codec import Encoder
from tests.harness.replay.scripts import BELL, INTERRUPT, SETUP, STORY, TABLES, USE
from tests.writers.replays import Script, replay_text
from tests.writers.trace import block, preamble

GAP = "gap a line was torn"
WRONG = "access 00:03.0 - 0x1000 read = 0x77000 0xfff"


def run(path: Path, target: str) -> int:
    """Run the verb as the command line would."""
    parser = argparse.ArgumentParser()
    replay.add_arguments(parser)
    args = parser.parse_args(["--target", target, str(path)])
    args.quiet, args.json = True, False
    return replay.run(args)


def test_nothing_is_judged_behind_a_gap(target: str) -> None:
    story = STORY.after(USE, GAP, WRONG)
    counters = replay_text(str(story), target).counters
    assert counters.divergences == 0
    assert counters.agreed == 2, "a register read and the use before the gap"
    assert counters.translations == 4, "they are counted all the same"
    assert counters.unjudged == 11


def test_a_gap_takes_back_what_was_still_expected(target: str) -> None:
    story = Script(STORY.lines[: STORY.find(BELL) + 1]).append(GAP)
    assert replay_text(str(story), target).findings == []


def test_a_reset_ends_the_doubt(target: str) -> None:
    again = [line for line in (TABLES + SETUP).splitlines() if line]
    story = STORY.after(USE, GAP, WRONG, "reset", *again, WRONG)
    findings = replay_text(str(story), target).findings
    assert [finding.event for finding in findings] == [story.number(WRONG, 1)]


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Write a trace up to the command whose answers are missing, and no index."""
    header, events = parse_text(str(Script(STORY.lines[: STORY.find(BELL) + 1])))
    whole, path = tmp_path / "whole.trace", tmp_path / "cut.trace"
    with TraceWriter.create(whole, header) as writer:
        for event in events:
            writer.append(event)
    content = whole.read_bytes()
    path.write_bytes(content[: content.index(b"DMIX")])
    return path


def test_the_end_of_a_killed_recording_is_no_finding(cut: Path, target: str) -> None:
    assert run(cut, target) == 0


def test_the_end_of_a_finished_recording_is_one(cut: Path, target: str) -> None:
    TraceWriter.append_to(cut).close()
    assert run(cut, target) == 1


def test_a_block_that_holds_less_than_it_claims(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, events = parse_text(str(STORY))
    encoder = Encoder()
    raw = b"".join(encoder.encode(event) for event in events)
    path = tmp_path / "short.trace"
    path.write_bytes(preamble() + block(raw, 0, len(events) + 5))
    assert run(path, target) == 2
    expected = f"{len(events) + 5} claimed, the block holds {len(events)}"
    assert expected in capsys.readouterr().err


def test_each_target_gets_what_precedes_damage_in_a_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, events = parse_text(str(STORY))
    encoder = Encoder()
    raw = b"".join(encoder.encode(event) for event in events[:4]) + b"\x91\xc1"
    path = tmp_path / "damaged.trace"
    path.write_bytes(preamble() + block(raw, 0, 5))
    for target in ("model", "native"):
        assert run(path, target) == 2
        output = capsys.readouterr()
        assert "replayed 4 events" in output.out
        assert "trace.block[0].event[4]" in output.err


def test_a_bad_file_does_not_keep_others_from_replay(
    tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text(str(STORY))
    bad.write_text("nothing of the kind\n")
    parser = argparse.ArgumentParser()
    replay.add_arguments(parser)
    args = parser.parse_args(["--target", target, str(bad), str(good)])
    args.quiet, args.json = True, False
    assert replay.run(args) == 2
    output = capsys.readouterr()
    assert f"replayed {len(parse_text(str(STORY))[1])} events" in output.out
    assert str(bad) in output.err


def test_a_record_over_the_head_of_the_queue_stops_it(target: str) -> None:
    """CAP.FRO may place the fault records over the queue's registers; it must not run wild."""
    config = parse_text(str(STORY))[0].units[0]
    capability = config.capability & ~(0x3FF << 24) | 8 << 24
    head = STORY.lines[1].replace(str(config.capability), str(capability))
    story = STORY.replace(STORY.lines[1], head)
    told = Script(story.lines[: story.find(BELL)]).append("fault-record 0 0xf 0x0", INTERRUPT, BELL)
    assert len(replay_text(str(told), target).findings) == 1
