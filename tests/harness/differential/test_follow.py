"""Model and native follow a real unit in step: what they say of its recording is compared."""

from __future__ import annotations

import json

import pytest

from decoders.events import Event, RegRead, RegWrite
from decoders.vtd import registers as vtd
from harness.cli import main
from harness.differential.follow import Followers
from harness.model.caches import Caches
from harness.native import available
from tests.harness.differential.test_pair import LIFE, VTD

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")


def test_events_are_taken_in_as_they_come() -> None:
    followers, events = Followers(VTD), list[Event]()
    for event in LIFE:
        events.append(event)
        assert followers.apart(events) is None
    assert followers.apart(events, ended=True) is None


def test_where_they_part_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.model.registers.RegisterFile.read", lambda *_: 5)
    followers = Followers(VTD)
    events: list[Event] = [*LIFE[:7], RegWrite(vtd.FECTL.offset, 4, 0), RegRead(0x38, 4, None)]
    found = followers.apart(events)
    assert found is not None
    finding, facts = found
    assert finding.event == 8 and facts.subject == "disagreement"
    assert facts.notes == {"model: 5", "native: 0"}
    assert followers.apart(events, ended=True) is None


@pytest.mark.qemu
def test_both_follow_a_real_unit(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--json", "diff", "--unit", "vtd", "--targets", "model,native,qemu", "--seed", "1"]
    assert main([*command, "--machine", "second-stage", "--steps", "400"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["steps"] >= 400 and summary["divergences"] == 0


@pytest.mark.qemu
def test_a_core_that_differs_is_found_beside_a_real_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop = Caches.drop_second_stage

    def hinted(self: Caches, event: int, domain: int, address: int, mask: int, _: bool) -> None:
        drop(self, event, domain, address, mask, True)

    monkeypatch.setattr(Caches, "drop_second_stage", hinted)
    command = ["--json", "diff", "--unit", "vtd", "--targets", "model,native,qemu", "--seed", "1"]
    assert main([*command, "--machine", "legacy", "--steps", "1600"]) == 1
    found = map(json.loads, capsys.readouterr().out.splitlines())
    assert any(one["type"] == "divergence" and one["judge"] == "native" for one in found)
