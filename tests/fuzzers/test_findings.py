"""A finding is kept once for each signature, with its input, an explanation and a trace."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from pathlib import Path

import pytest

from fuzzers.findings import EXPLANATION, Findings, signature_of
from fuzzers.target import Found, target_named
from fuzzers.worker import keeping
from harness.signature import Signature
from harness.trace import parse_text

SIGNATURE = Signature("divergence", "Access", "access", "fault 0x05 -> translation")


def test_each_signature_is_kept_once(tmp_path: Path) -> None:
    target = target_named("descriptors")
    findings = Findings(tmp_path)
    first, second = list(target.seeds())[:2]
    path = findings.add(target, first, SIGNATURE, "it said no")
    assert path is not None
    assert path.name == f"descriptors-{hashlib.sha1(first).hexdigest()}"
    assert path.read_bytes() == first
    assert findings.add(target, second, SIGNATURE, "it said no again") is None
    other = Signature("divergence", "Access", "access", "translation -> fault 0x05")
    assert findings.add(target, second, other, "it said yes") is not None
    kept = list(Findings(tmp_path))
    assert {one.signature for one in kept} == {SIGNATURE, other}
    assert {one.target for one in kept} == {"descriptors"}


def test_an_explanation_ends_with_the_trace(tmp_path: Path) -> None:
    target = target_named("descriptors")
    data = next(iter(target.seeds()))
    path = Findings(tmp_path).add(target, data, SIGNATURE, "it said no")
    assert path is not None
    text = path.with_name(path.name + EXPLANATION).read_text()
    assert text.startswith(f"descriptors: {SIGNATURE}\nsignature {SIGNATURE.key}\n\nit said no\n")
    _, _, trace = text.partition("as a trace:\n\n")
    assert parse_text(trace.rstrip("\n")) == target.events(data)  # type: ignore[attr-defined]


def test_what_is_taken_over_keeps_its_explanation(tmp_path: Path) -> None:
    target = target_named("descriptors")
    first, second = Findings(tmp_path / "first"), Findings(tmp_path / "second")
    assert first.add(target, b"\0", SIGNATURE, "it said no") is not None
    (kept,) = first
    assert second.adopt(target, b"\0", SIGNATURE, kept.text) is not None
    assert second.adopt(target, b"\0", SIGNATURE, kept.text) is None, "it is there already"
    assert [one.text for one in second] == [kept.text]


def test_what_one_input_shows_is_kept_with_an_explanation_each(tmp_path: Path) -> None:
    target, findings = target_named("stateful"), Findings(tmp_path)
    image, images = target_named("descriptors"), Findings(tmp_path / "images")
    other = Signature("divergence", "Access", "access", "translation -> fault 0x05")

    def raising(data: bytes) -> None:
        del data
        raise Found(SIGNATURE, "the first", None, [Found(other, "the second")])

    for _ in range(2):
        keeping(target, raising, findings)(b"\7")
        # Where bytes are no choices, an input is written in another way instead.
        keeping(image, raising, images)(b"\7")
    kept = {one.signature: one for one in findings}
    assert set(kept) == {SIGNATURE, other}
    assert "the first" in kept[SIGNATURE].text and "the second" in kept[other].text
    assert [kept[one].path.read_bytes() for one in (SIGNATURE, other)] == [b"\7", b"\7\0"]
    inputs = {one.signature: one.path.read_bytes() for one in images}
    assert (inputs[SIGNATURE], len(inputs[other])) == (b"\7", 1)
    assert inputs[other] != b"\7"


def test_what_a_full_disk_refuses_is_kept_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, findings = target_named("descriptors"), Findings(tmp_path)

    def raising(data: bytes) -> None:
        if data == b"\7":
            raise Found(SIGNATURE, "it said no")

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path), len(data))

    monkeypatch.setattr("fuzzers.worker._RETRY", 0.0)
    run = keeping(target, raising, findings)
    with monkeypatch.context() as full:
        full.setattr("fuzzers.findings._write", refuse)
        run(b"\7")
        run(b"another")
    assert list(findings) == []
    run(b"another")
    (one,) = findings
    assert (one.signature, one.path.read_bytes()) == (SIGNATURE, b"\7")


def test_half_written_findings_are_passed_over_and_replaced(tmp_path: Path) -> None:
    findings, target = Findings(tmp_path), target_named("descriptors")
    claim = tmp_path / "signatures" / f"descriptors-{SIGNATURE.key}"
    claim.write_text('{"input": "descr')
    assert list(findings) == []
    assert findings.add(target, b"\7", SIGNATURE, "it said no") is not None
    assert [one.signature for one in findings] == [SIGNATURE]


@pytest.mark.parametrize("writes", range(4))
def test_a_finding_is_whole_or_found_again_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    target, written = target_named("descriptors"), iter(range(writes))

    def killed_at_last(draft: Path, final: Path) -> Path:
        draft.rename(final)
        if next(written, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return final

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(Path, "replace", killed_at_last)
            Findings(tmp_path).add(target, b"\7", SIGNATURE, "it said no")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (writes < 3), "a finding is three files"
    findings = Findings(tmp_path)
    kept = [one.signature for one in findings]
    assert kept == ([SIGNATURE] if writes >= 2 else [])
    assert [*findings.unclaimed()] == ([] if kept else [b"\7"])
    again = findings.add(target, b"\7", SIGNATURE, "it said no")
    assert (again is None) == bool(kept), "its signature was taken, its input was not there"
    (one,) = Findings(tmp_path)
    assert (one.path.read_bytes(), one.signature) == (b"\7", SIGNATURE)
    assert "it said no" in one.text


def test_what_was_raised_is_named() -> None:
    assert signature_of(Found(SIGNATURE, "words"), "") == (SIGNATURE, "words")
    report = (
        "Traceback (most recent call last):\n"
        '  File "/somewhere/reader.py", line 7, in read\n    x = 1 / 0\n'
        "ZeroDivisionError: division by zero\n"
    )
    signature, text = signature_of(ZeroDivisionError(), report)
    assert (signature.kind, signature.outcome) == ("crash", "ZeroDivisionError")
    assert text == report
