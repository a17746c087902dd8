"""The target qemu for VT-d: a recording is repeated on a real unit, and lies are found."""

from __future__ import annotations

from collections.abc import Iterator
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
    FaultRecord,
    Gap,
    Interrupt,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Release,
    Reset,
    Role,
    Snapshot,
    StatusWrite,
    Store,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    InvalidationWait,
    IotlbInvalidation,
)
from decoders.vtd.faults import FaultRecordRegister, Reason
from decoders.vtd.paging import SecondStageEntry
from decoders.vtd.registers import GlobalCommand
from decoders.vtd.tables import ContextEntry
from harness.cli import main
from harness.deviations_vtd import known_crash
from harness.errors import HarnessError
from harness.explain import explain
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.model.dialects import dialect_named
from harness.qemu.pc import ram_address, ram_offset, ram_ranges, ram_size_for
from harness.qemu.process import EndedError
from harness.qemu.vtd_copy import Wanted, placed
from harness.qemu.vtd_options import options_for
from harness.replay import unit_config
from harness.targets import Counters
from harness.targets.qemu_runner import QemuRunner
from harness.trace import Header, UnitInfo, open_events, write_text
from tests.writers.platform import descriptor, quadword

pytestmark = pytest.mark.qemu

CORPUS = Path(__file__).parents[3] / "corpora/traces"
CAPABILITY, EXTENDED = 0xD2_008C_222F_0686, 0xF0_0F4A
"""Of an intel-iommu with caching mode and interrupt remapping, up to 10.0 at least."""
READ, WRITE, UNKNOWN = AccessKind.READ, AccessKind.WRITE, AccessKind.UNKNOWN

DEVICE, BEHIND_PORT, NOWHERE = 0x18, 0x100, 0xFA
ROOT, CONTEXTS, OTHER_CONTEXTS, LEVEL_3, LEVEL_2, LEVEL_1, QUEUE, STATUS = (
    0x10_0000 + index * 0x1000 for index in range(8)
)
HIGH = 1 << 32
DATA, MORE_DATA, HIGH_DATA = 0x50_0000, 0x60_0000, HIGH + 0x70_0000
IOVA, READ_ONLY, UNMAPPED = 0x4000, 0x5000, 0x6000
HIGH_IOVA = 0x7000
DOMAIN = 5
RW = quadword(SecondStageEntry, r=1, w=1)
CONFIG = UnitConfig(
    CAPABILITY,
    EXTENDED,
    host_address_width=48,
    memory=((0, 0x8000_0000), (HIGH, 0x1000_0000)),
    dialect=dialect_named("qemu-10.0"),
)

FLUSH_CONTEXTS = descriptor(ContextCacheInvalidation, g=1)
FLUSH = descriptor(IotlbInvalidation, g=1)


def wait(number: int) -> tuple[int, ...]:
    return descriptor(InvalidationWait, sw=1, stdata=number, staddr=STATUS >> 2)


def context(table: int) -> list[int]:
    fields = {"p": 1, "ssptptr": table >> 12, "aw": 1, "did": DOMAIN}
    return [quadword(ContextEntry, index, **fields) for index in (0, 1)]


def command(**bits: int) -> RegWrite:
    return RegWrite(vtd.GCMD.offset, 4, quadword(GlobalCommand, **bits))


def queued(at: int, *words: tuple[int, ...]) -> list[Event]:
    """Queue descriptors behind one another, and say that they were taken."""
    stores: list[Event] = []
    for index, each in enumerate(words):
        for half in (0, 1):
            stores.append(Store(QUEUE + (at + index) * 16 + half * 8, 8, each[half]))
    tail = RegWrite(vtd.IQT.offset, 4, (at + len(words)) * 16)
    return [*stores, tail, *(Descriptor(each) for each in words)]


def page(*entries: tuple[int, int]) -> bytes:
    data = bytearray(4096)
    for index, value in entries:
        data[index * 8 : index * 8 + 8] = value.to_bytes(8, "little")
    return bytes(data)


def table(address: int, level: int, *entries: tuple[int, int]) -> Snapshot:
    return Snapshot(address, Role.SECOND_STAGE, level, page(*entries))


def record(source: int, iova: int, reason: int) -> FaultRecord:
    words = [quadword(FaultRecordRegister, n, sid=source, fr=reason) for n in (0, 1)]
    return FaultRecord(0, words[0] | iova, words[1])


LOW_ENTRY, HIGH_ENTRY = context(LEVEL_3)
SETUP: list[Event] = [
    Reset(),
    RegRead(vtd.CAP.offset, 8, CAPABILITY),
    Snapshot(ROOT, Role.ROOT, 0, page((0, CONTEXTS | 1), (2, OTHER_CONTEXTS | 1))),
    Snapshot(CONTEXTS, Role.CONTEXT, 0, page((0x30, LOW_ENTRY), (0x31, HIGH_ENTRY))),
    Snapshot(OTHER_CONTEXTS, Role.CONTEXT, 0, page((0, LOW_ENTRY), (1, HIGH_ENTRY))),
    table(LEVEL_3, 3, (0, LEVEL_2 | RW)),
    table(LEVEL_2, 2, (0, LEVEL_1 | RW)),
    table(
        LEVEL_1, 1, (4, DATA | RW), (5, DATA | 1), (7, HIGH_DATA | RW),
    ),
    RegWrite(vtd.FECTL.offset, 4, 1 << 31),
    RegWrite(vtd.RTADDR.offset, 8, ROOT),
    command(srtp=1),
    RegWrite(vtd.IQT.offset, 4, 0),
    RegWrite(vtd.IQA.offset, 8, QUEUE),
    command(qie=1),
    *queued(0, FLUSH_CONTEXTS, FLUSH, wait(1)),
    StatusWrite(STATUS, 1),
    command(qie=1, te=1),
]  # fmt: skip
STORY: list[Event] = [
    *SETUP,
    Access(DEVICE, None, IOVA, UNKNOWN, Translation(DATA, 0xFFF)),
    Access(DEVICE, None, IOVA + 0x84, WRITE, Translation(DATA, 0xFFF)),
    Access(BEHIND_PORT, None, READ_ONLY, READ, Translation(DATA, 0xFFF)),
    Access(DEVICE, None, HIGH_IOVA, READ, Translation(HIGH_DATA, 0xFFF)),
    Store(LEVEL_1 + 4 * 8, 8, MORE_DATA | RW),
    *queued(3, FLUSH, wait(2)),
    StatusWrite(STATUS, 2),
    Access(DEVICE, None, IOVA, WRITE, Translation(MORE_DATA, 0xFFF)),
    Access(DEVICE, None, READ_ONLY, WRITE, Fault(Reason.NO_WRITE)),
    record(DEVICE, READ_ONLY, Reason.NO_WRITE),
    RegRead(vtd.FSTS.offset, 4, 2),
]
"""Mappings, below and above 4 GiB, an edit with its invalidation, a refusal."""

ACCESS, WRITTEN, MOVED, REFUSED, RECORD, STATUS_READ = (
    STORY.index(event)
    for event in (STORY[len(SETUP)], STORY[len(SETUP) + 1], *STORY[-4:])
)  # fmt: skip
WAITED = STORY.index(StatusWrite(STATUS, 2))
TAKEN = STORY.index(Descriptor(wait(2)))


@pytest.fixture(scope="module")
def runner() -> Iterator[QemuRunner]:
    with QemuRunner() as found:
        yield found


def replay(runner: QemuRunner, *events: Event) -> tuple[Counters, list[Finding]]:
    findings = runner.run(CONFIG, events)
    return runner.counters, findings


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
    assert runner.missing >= ({NOWHERE} if event.__class__ is Access else set())


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


def test_another_fault_in_the_registers_is_not_compared(runner: QemuRunner) -> None:
    """The recorded unit refused an interrupt, which is not repeated."""
    refused = InterruptRequest(DEVICE, 0xFEE0_0000, 1, Fault(0x22))
    seen = record(DEVICE, 0, 0x22)
    clear: list[Event] = [RegRead(vtd.FSTS.offset, 4, 2), RegWrite(vtd.FSTS.offset, 4, 2)]
    true = RegRead(vtd.FSTS.offset, 4, 0)
    counters, findings = replay(runner, *SETUP, refused, seen, *clear, true)
    assert findings == []
    assert counters.unjudged == 3


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
    """Up to 10.0, 8 bytes to FECTL end QEMU (fixed by a35c5755d942)."""
    replay(runner, *STORY)
    starts = runner.starts
    deadly = RegWrite(vtd.FECTL.offset, 8, 0)
    if runner.version > (10, 1):
        pytest.skip("this QEMU does not crash")
    with pytest.raises(EndedError) as error:
        replay(runner, *STORY, deadly)
    assert known_crash(str(error.value), runner.version)
    assert replay(runner, *STORY)[1] == []
    assert runner.starts == starts + 1


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


def test_options_follow_capabilities() -> None:
    assert options_for(CAPABILITY, EXTENDED) == {
        "aw-bits": "48", "caching-mode": "on", "intremap": "on",
    }  # fmt: skip
    assert options_for(0x1D2_008C_222F_0606, 0x8800_00F0_0F4A) == {
        "aw-bits": "48", "intremap": "on", "scalable": "on", "first-stage": "on",
    }  # fmt: skip
    assert options_for(0xD2_008C_2226_0206, 0xF82) == {
        "aw-bits": "39", "intremap": "off", "snoop-control": "on", "pt": "off",
    }  # fmt: skip


def test_devices_stand_where_they_can() -> None:
    place = placed({0x18, 0x1B, 0x100, 0x502, 0x508, 0xFA, 0x00})
    assert place.missing == {0x508, 0xFA, 0x00}
    assert place.buses == {0x08: 1, 0x09: 5}
    assert place.devices == [
        "pcie-root-port,id=port1,chassis=1,addr=0x1.0,multifunction=on",
        "pcie-root-port,id=port5,chassis=5,addr=0x1.1,multifunction=on",
        "rtl8139,addr=0x3.0,multifunction=on",
        "rtl8139,addr=0x3.3,multifunction=on",
        "rtl8139,bus=port1,addr=0x0.0,multifunction=on",
        "rtl8139,bus=port5,addr=0x0.0,multifunction=on",
        "rtl8139,bus=port5,addr=0x0.2,multifunction=on",
    ]
    assert len(placed(range(1 << 16)).devices) <= 2 * 64


def test_ram_is_where_a_q35_has_it() -> None:
    assert ram_size_for(0xFFF) == 1 << 20
    assert ram_size_for(0xC000_0000) is None
    size = ram_size_for(HIGH + 0xFFF)
    assert size is not None
    ranges = ram_ranges(size)
    assert ranges[-1][0] == HIGH
    for start, length in ranges:
        for address in (start, start + length - 1):
            assert ram_address(ram_offset(address), size) == address


def test_machines_are_told_apart() -> None:
    had = Wanted(1, 2, frozenset({3, 4}), 0x5FFF, exact=False)
    assert had.includes(replace(had, sources=frozenset({3}), last_address=0x4FFF))
    for other in (
        replace(had, capability=2),
        replace(had, extended_capability=1),
        replace(had, sources=frozenset({5})),
        replace(had, last_address=0x6FFF),
        replace(had, last_address=0x4FFF, exact=True),
    ):
        assert not had.includes(other), other
