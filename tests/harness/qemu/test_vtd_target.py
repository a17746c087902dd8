"""The target qemu for VT-d: a recording is repeated on a real unit, and lies are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from decoders.events import (
    Access,
    AccessKind,
    Attribute,
    Descriptor,
    Event,
    Fault,
    Gap,
    Interrupt,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Release,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.faults import Reason
from harness.cli import main
from harness.deviations_vtd import crashes_of, known_crash
from harness.errors import HarnessError
from harness.explain import explain
from harness.model.config import UnitConfig
from harness.qemu.process import EndedError
from harness.replay import unit_config
from harness.targets import Counters
from harness.targets.qemu_runner import QemuRunner
from harness.trace import Header, UnitInfo, open_events, write_text
from tests.harness.qemu.vtd_story import (
    ACCESS,
    BEHIND_PORT,
    CAPABILITY,
    CONFIG,
    DATA,
    DEVICE,
    EXTENDED,
    HIGH_DATA,
    IOVA,
    LEVEL_1,
    MORE_DATA,
    MOVED,
    NOWHERE,
    READ,
    READ_ONLY,
    RECORD,
    REFUSED,
    RW,
    STATUS,
    STATUS_READ,
    STORY,
    TAKEN,
    UNKNOWN,
    UNMAPPED,
    WAITED,
    WRITE,
    command,
    page,
    record,
    replay,
    wait,
)

pytestmark = pytest.mark.qemu

CORPUS = Path(__file__).parents[3] / "corpora/traces"


def test_a_true_story(runner: QemuRunner) -> None:
    counters, findings = replay(runner, *STORY)
    assert findings == []
    assert counters == Counters(
        events=len(STORY),
        translations=5,
        faults=1,
        descriptors=5,
        fault_records=1,
        status_writes=2,
        register_reads=2,
        agreed=16,
    )


@pytest.mark.parametrize(
    ("number", "event", "subject", "answered"),
    [
        (1, RegRead(vtd.CAP.offset, 8, CAPABILITY ^ 1), "register", None),
        (
            ACCESS,
            Access(DEVICE, None, IOVA, UNKNOWN, Translation(MORE_DATA, 0xFFF)),
            "access",
            (Translation(DATA, 0xFFF),),
        ),
        (
            ACCESS,
            Access(DEVICE, None, IOVA, READ, Fault(Reason.NO_READ)),
            "access",
            (Translation(DATA, 0xFFF),),
        ),
        (
            MOVED,
            Access(DEVICE, None, IOVA, WRITE, Translation(DATA, 0xFFF)),
            "access",
            (Translation(MORE_DATA, 0xFFF),),
        ),
        (
            REFUSED,
            Access(DEVICE, None, READ_ONLY, WRITE, Translation(DATA, 0xFFF)),
            "access",
            (Fault(Reason.NO_WRITE),),
        ),
        (
            REFUSED,
            Access(DEVICE, None, READ_ONLY, WRITE, Fault(Reason.NO_READ)),
            "access",
            (Fault(Reason.NO_WRITE),),
        ),
        (
            RECORD,
            record(BEHIND_PORT, READ_ONLY, Reason.NO_WRITE),
            "fault-record",
            None,
        ),
        (STATUS_READ, RegRead(vtd.FSTS.offset, 4, 0), "register", (2,)),
        (WAITED, StatusWrite(STATUS, 3), "status-write", (StatusWrite(STATUS, 2),)),
        (TAKEN, Descriptor(wait(9)), "descriptor", (Descriptor(wait(2)),)),
    ],
)
def test_a_lie_is_found(
    runner: QemuRunner, number: int, event: Event, subject: str, answered: tuple[object] | None
) -> None:
    counters, findings = replay(runner, *STORY[:number], event, *STORY[number + 1 :])
    first = findings[0]
    assert (first.event, first.subject) == (number, subject)
    assert answered is None or first.permitted == answered
    assert counters.divergences == len(findings)
    assert explain(first, lambda _: event)


@pytest.mark.parametrize(("left_out", "subject"), [(WAITED, "status-write"), (TAKEN, "descriptor")])
def test_what_the_recording_lacks_is_found(runner: QemuRunner, left_out: int, subject: str) -> None:
    _, (finding,) = replay(runner, *STORY[:left_out], *STORY[left_out + 1 :], command(qie=1, te=1))
    assert (finding.subject, finding.observed) == (subject, None)


def test_a_finding_about_an_access_has_its_walk(runner: QemuRunner) -> None:
    lie = Access(DEVICE, None, IOVA, READ, Fault(Reason.NO_READ))
    _, (finding,) = replay(runner, *STORY[:ACCESS], lie)
    assert [Role(step[0]) for step in finding.steps][-1] == Role.SECOND_STAGE
    assert finding.steps[-1][1] == 1


def test_a_stale_use_need_not_be_repeated(runner: QemuRunner) -> None:
    """Without the invalidation both places are permitted, whichever QEMU takes."""
    before = STORY[: STORY.index(Store(LEVEL_1 + 4 * 8, 8, MORE_DATA | RW)) + 1]
    for place in (DATA, MORE_DATA):
        access = Access(DEVICE, None, IOVA, WRITE, Translation(place, 0xFFF))
        assert replay(runner, *before, access)[1] == [], f"{place:#x} is permitted"
    elsewhere = Access(DEVICE, None, IOVA, WRITE, Translation(HIGH_DATA, 0xFFF))
    assert len(replay(runner, *before, elsewhere)[1]) == 1


def test_a_fault_behind_another_of_its_source_does_not_show(runner: QemuRunner) -> None:
    again = Access(DEVICE, None, UNMAPPED, READ, Fault(Reason.NO_READ))
    counters, findings = replay(runner, *STORY, again)
    assert findings == []
    assert counters.unjudged == 1
    landed = replace(again, outcome=Translation(DATA, 0xFFF))
    assert [one.observed for one in replay(runner, *STORY, landed)[1]] == [landed.outcome]


@pytest.mark.parametrize(
    "event",
    [
        Access(NOWHERE, None, IOVA, READ, Translation(DATA, 0xFFF)),
        Access(DEVICE, 7, IOVA, READ, Translation(DATA, 0xFFF)),
        Access(DEVICE, None, IOVA, AccessKind.EXECUTE, Translation(DATA, 0xFFF)),
        Access(DEVICE, None, IOVA, READ, Translation(DATA, 0xFFF), Attribute.TRANSLATED),
        Access(DEVICE, None, 0xFEE0_0000, WRITE, Translation(0xFEE0_0000, 0xFFF)),
        Access(DEVICE, None, IOVA, READ, Translation(LEVEL_1, 0xFFF)),
        Access(DEVICE, None, IOVA, READ, Translation(0xD000_0000, 0xFFF)),
        InterruptRequest(DEVICE, 0xFEE0_0000, 1, Message(0xFEE0_0000, 1)),
    ],
)
def test_what_is_not_done_is_not_judged(runner: QemuRunner, event: Event) -> None:
    counters, findings = replay(runner, *STORY, event)
    assert (findings, counters.unjudged) == ([], 1)
    # Of sources without a device the runner remembers who they are.
    assert not isinstance(event, Access) or event.sid != NOWHERE or NOWHERE in runner.missing


def test_the_unit_raises_interrupts(runner: QemuRunner) -> None:
    """A fault does, unless FECTL.IM masks it."""
    raised = Interrupt(0xFEE0_1004, 0x4021)
    open_: list[Event] = [
        RegWrite(vtd.FEDATA.offset, 4, raised.data),
        RegWrite(vtd.FEADDR.offset, 4, raised.address),
        RegWrite(vtd.FECTL.offset, 4, 0),
    ]
    fault = STORY[REFUSED : RECORD + 1]
    assert replay(runner, *STORY[:REFUSED], *open_, *fault, raised)[1] == []
    for masked, wrong in (([], raised), (open_, replace(raised, data=0x4022))):
        _, (finding,) = replay(runner, *STORY[:REFUSED], *masked, *fault, wrong)
        assert (finding.subject, finding.observed) == ("interrupt", wrong)
    _, (finding,) = replay(runner, *STORY[:REFUSED], *open_, *fault, command(qie=1, te=1))
    assert (finding.observed, finding.permitted) == (None, (raised,))


def test_behind_a_gap_nothing_is_judged(runner: QemuRunner) -> None:
    lie = Access(DEVICE, None, IOVA, READ, Fault(Reason.NO_READ))
    _, findings = replay(runner, *STORY, Gap("full disk"), lie, StatusWrite(STATUS, 9), *STORY[1:])
    assert findings == []
    _, findings = replay(runner, *STORY, Gap("full disk"), lie, *STORY[:ACCESS], lie)
    assert [one.observed for one in findings] == [lie.outcome]


def test_released_pages_take_dma(runner: QemuRunner) -> None:
    """A page that held a table is data later on."""
    used = Snapshot(DATA, Role.SECOND_STAGE, 1, page((0, 1)))
    held, findings = replay(runner, used, *STORY)
    assert (findings, held.unjudged) == ([], 3)
    freed, findings = replay(runner, used, Release(DATA), *STORY)
    assert (findings, freed.unjudged) == ([], 0)


def test_a_crash_is_told_and_the_next_trace_runs(runner: QemuRunner) -> None:
    """8 bytes to FECTL end a QEMU that is known for it; a newer one takes them."""
    deadly = RegWrite(vtd.FECTL.offset, 8, 1 << 31)
    replay(runner, *STORY)
    starts = runner.starts
    crashes = [crash.id for crash in crashes_of(runner.version)]
    if "wide-register-write" in crashes:
        with pytest.raises(EndedError) as error:
            replay(runner, *STORY, deadly)
        known = known_crash(str(error.value), runner.version)
        assert known is not None and known.id == "wide-register-write"
    else:
        assert replay(runner, *STORY, deadly)[1] == []
    assert replay(runner, *STORY)[1] == []
    assert runner.starts == starts + ("wide-register-write" in crashes)


def test_one_machine_serves_many_traces() -> None:
    with QemuRunner() as runner:
        for _ in range(3):
            assert runner.run(CONFIG, STORY) == []
        assert runner.starts == 1
        elsewhere = Access(0x20, None, IOVA, READ, Fault(Reason.CONTEXT_NOT_PRESENT))
        fault = record(0x20, IOVA, Reason.CONTEXT_NOT_PRESENT)
        seen = replace(fault, high=fault.high | 1 << 62)
        assert runner.run(CONFIG, [*STORY[:ACCESS], elsewhere, seen]) == []
        assert runner.run(CONFIG, STORY) == []
        assert runner.starts == 2


def test_what_qemu_cannot_be_is_refused(runner: QemuRunner) -> None:
    with pytest.raises(HarnessError, match=r"CAP.ND 0x7 \(it has 0x6\)"):
        runner.run(replace(CONFIG, capability=CAPABILITY | 1), STORY)
    with pytest.raises(HarnessError, match=r"ECAP.NEST 0x1"):
        runner.run(replace(CONFIG, extended_capability=EXTENDED | 1 << 26), STORY)
    with pytest.raises(HarnessError, match="has RAM at 0xc0000fff and at 0x1"):
        runner.run(replace(CONFIG, memory=((0, 0xC000_1000), *CONFIG.memory[1:])), STORY)
    with pytest.raises(HarnessError, match="64 GiB"):
        runner.run(replace(CONFIG, memory=((0, 1 << 24), (1 << 40, 1 << 20))), STORY)


def test_the_command_repeats_a_recorded_guest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = CORPUS / "passthrough.trace"
    assert main(["replay", "-q", "--target", "qemu", str(path)]) == 0
    assert "153            0" in capsys.readouterr().out
    lie = tmp_path / "lie.txt"
    unit = UnitInfo(capability=CAPABILITY, extended_capability=EXTENDED)
    wrong = Access(DEVICE, None, IOVA, READ, Translation(MORE_DATA, 0xFFF))
    foreign = Access(NOWHERE, None, IOVA, READ, Translation(DATA, 0xFFF))
    write_text(lie, Header(units=(unit,)), [*STORY[:ACCESS], wrong, foreign])
    assert main(["replay", "-q", "--target", "qemu", str(lie)]) == 1
    said = capsys.readouterr()
    assert "no device can be had at 00:1f.2" in said.err
    assert f"translation to {MORE_DATA:#x}" in said.out


@pytest.mark.parametrize(
    "name", ["faults", "legacy-device-tlb", "interrupts", "scalable-first-stage", "reboot"]
)
def test_guests_behave_here_as_they_were_recorded(name: str, runner: QemuRunner) -> None:
    """The first events of each shipped recording: that takes seconds, all of it a minute."""
    with open_events(CORPUS / f"{name}.trace") as source:
        config = unit_config(source.header)
        events = [event for event, _ in zip(source, range(6000), strict=False)]
    # What the last write led to may be cut off.
    while not isinstance(events.pop(), RegWrite):
        pass
    assert isinstance(config, UnitConfig)
    assert runner.run(config, events) == []
    counters = runner.counters
    assert counters.agreed > 1000
    judged = counters.translations + counters.descriptors + counters.status_writes
    assert counters.agreed >= judged
