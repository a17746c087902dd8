"""The target qemu: what a trace says is compared with what a real unit does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
    DeviceReset,
    Endpoint,
    Event,
    Fault,
    FaultReport,
    Gap,
    RegRead,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from harness.cli import main
from harness.errors import HarnessError
from harness.explain import explain
from harness.findings import BROKEN, Finding
from harness.model.virtio.config import DEFAULT_CONFIG, DEFAULT_FEATURES, VirtioConfig
from harness.qemu.pc import PROGRAM
from harness.qemu.unit import DEVICES, ENDPOINTS, POOL_START, QemuUnit, devices_for
from harness.targets import Counters, Machine, real_target_named
from harness.targets.qemu import endpoints_of
from harness.trace import Block, Header, TraceReader, TraceWriter, UnitInfo, write_text
from harness.trace.codec import Encoder
from tests.writers.virtio_iommu import asked, attach, map_

NOWHERE = Machine((), "no-such-qemu")
CORPUS = Path(__file__).parents[3] / "corpora/traces"
DEVICE = 0x10
IOVA = 0x4_0000_0000
OK, NOENT = bytes(4), b"\x06\0\0\0"
WRITE, READ = AccessKind.WRITE, AccessKind.READ

ATTACH = asked(attach(1, DEVICE))
MAP = asked(map_(1, IOVA, IOVA + 0xFFF, POOL_START))
BEHIND = IOVA + 0x1000
STORY: list[Event] = [
    Reset(),
    ConfigSpace(DEFAULT_CONFIG),
    Endpoint(DEVICE, ()),
    RegRead(36, 1, 1),
    RegWrite(36, 1, 0),
    RegRead(36, 1, 0),
    Access(DEVICE, None, POOL_START, WRITE, Fault(0)),
    FaultReport(0, 0x100, DEVICE, POOL_START),
    ATTACH,
    MAP,
    Access(DEVICE, None, IOVA + 0x48, WRITE, Translation(POOL_START, 0xFFF)),
    Access(DEVICE, None, IOVA, READ, Translation(POOL_START, 0xFFF)),
    Access(DEVICE, None, BEHIND, WRITE, Fault(2)),
    FaultReport(2, 0x100, DEVICE, BEHIND),
]


def replay(events: list[Event]) -> tuple[Counters, list[Finding]]:
    target = real_target_named("qemu", VirtioConfig(), Machine(endpoints_of(events), PROGRAM))
    encoder = Encoder()
    target.feed(Block(0, len(events), b"".join(map(encoder.encode, events))))
    target.finish()
    return target.counters(), target.findings()


@pytest.mark.qemu
def test_a_true_story() -> None:
    counters, findings = replay(STORY)
    assert findings == []
    assert counters == Counters(
        events=14,
        translations=2,
        faults=2,
        requests=2,
        fault_records=2,
        register_reads=2,
        unjudged=1,  # where the read led to
        agreed=10,
    )


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("number", "event", "subject", "answered"),
    [
        (5, RegRead(36, 1, 1), "config", (0,)),
        (6, Access(DEVICE, None, POOL_START, WRITE, Fault(1)), "access", (Fault(0),)),
        (7, FaultReport(0, 0x101, DEVICE, POOL_START), "fault-report", (STORY[7],)),
        (8, replace(ATTACH, answer=NOENT), "request", (OK,)),
        (
            10,
            Access(DEVICE, None, IOVA + 0x48, WRITE, Translation(POOL_START + 0x3000, 0xFFF)),
            "access",
            (),
        ),
        (11, Access(DEVICE, None, IOVA, READ, Fault(2)), "access", ()),
        (
            12,
            Access(DEVICE, None, BEHIND, WRITE, Translation(POOL_START, 0xFFF)),
            "access",
            (Fault(2),),
        ),
    ],
)  # fmt: skip
def test_a_lie_is_found(number: int, event: Event, subject: str, answered: tuple[object]) -> None:
    counters, (finding,) = replay([*STORY[:number], event, *STORY[number + 1 :]])
    assert (finding.event, finding.subject, finding.permitted) == (number, subject, answered)
    assert counters.divergences == 1


@pytest.mark.qemu
def test_behind_a_gap_nothing_is_judged() -> None:
    lie = replace(ATTACH, answer=NOENT)
    counters, findings = replay([*STORY, Gap("full disk"), lie, *STORY])
    assert findings == []
    assert counters.unjudged == 3


@pytest.mark.qemu
def test_where_no_device_is_nothing_is_judged() -> None:
    foreign = Access(0xF8, None, IOVA, WRITE, Fault(2))
    counters, findings = replay([*STORY, foreign])
    assert findings == []
    assert counters.unjudged == 2


@pytest.mark.qemu
def test_requests_that_are_not_given_back() -> None:
    """QEMU gives nothing back once its device is broken, however much is asked."""
    broken: list[Event] = [RegWrite(36, 1, 9), *(ATTACH for _ in range(40))]
    counters, findings = replay([*STORY[:5], *broken, DeviceReset(), ATTACH])
    assert {(finding.subject, finding.observed) for finding in findings} == {(BROKEN, OK)}
    assert [finding.event for finding in findings] == list(range(6, 46))
    text = explain(findings[0], lambda _: ATTACH, "virtio-iommu")
    assert "NEEDS_RESET" in text
    assert "permitted" not in text
    assert counters.requests == 41


@pytest.mark.qemu
@pytest.mark.parametrize("room", [4, 1024, 1025, 60_000, (1 << 32) - 1])
def test_long_requests_are_split(room: int) -> None:
    long = replace(ATTACH, data=ATTACH.data + bytes(4096 - len(ATTACH.data)), room=room)
    assert replay([*STORY[:5], long])[1] == []
    (finding,) = replay([*STORY[:5], replace(long, answer=NOENT)])[1]
    assert finding.permitted == (OK,)


@pytest.mark.qemu
def test_a_request_that_no_queue_can_hold_is_not_judged() -> None:
    counters, findings = replay([*STORY[:5], Request(b"", 0, b"")])
    assert (findings, counters.unjudged) == ([], 1)


def test_the_machine_follows_the_endpoints() -> None:
    assert devices_for({0x20, 0x300}) == DEVICES
    assert devices_for({0x10, 0x1A}) == [
        "virtio-iommu-pci,addr=0x1e",
        "rtl8139,addr=0x2.0,multifunction=on",
        "rtl8139,addr=0x3.0,multifunction=on",
        "rtl8139,addr=0x3.2,multifunction=on",
    ]
    with pytest.raises(HarnessError, match="endpoint 0x510 is on bus 0x5"):
        devices_for({0x510})
    with pytest.raises(HarnessError, match="none is left"):
        devices_for({slot << 3 for slot in range(1, 0x1F)})


@pytest.mark.qemu
def test_the_standard_machine_has_the_endpoints_that_are_listed() -> None:
    with QemuUnit() as unit:
        assert {endpoint for endpoint, _ in unit.endpoints()} == ENDPOINTS


@pytest.mark.qemu
def test_a_recorded_guest() -> None:
    """Linux on another QEMU: what its driver asked, and where its devices wrote, holds here."""
    with TraceReader(CORPUS / "virtio-iommu-lazy.trace") as source:
        machine = Machine(endpoints_of(source.events()), PROGRAM)
        target = real_target_named("qemu", VirtioConfig(), machine)
        for block in source.blocks():
            target.feed(block)
        requests = target.counters().requests
    target.finish()
    assert target.findings() == []
    counters = target.counters()
    assert requests > 1000
    # All requests, and every write: a read shows only that it did not fail.
    assert counters.agreed > requests + 1000
    assert counters.agreed + counters.unjudged >= requests + counters.translations


@pytest.mark.qemu
def test_endpoints_may_be_declared_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine has those of the second block, too."""
    path = tmp_path / "two-blocks.trace"
    other, far = 0x18, IOVA + 0x4000
    unit = UnitInfo("virtio-iommu", capability=DEFAULT_FEATURES, config=DEFAULT_CONFIG)
    header = Header(units=(unit,), source={"qemu": "1.2.3"})
    with TraceWriter.create(path, header) as writer:
        for event in STORY:
            writer.append(event)
        writer.flush()
        for event in (
            Endpoint(other, ()),
            asked(attach(1, other)),
            asked(map_(1, far, far + 0xFFF, POOL_START)),
            Access(other, None, far, WRITE, Translation(POOL_START, 0xFFF)),
        ):
            writer.append(event)
    with TraceReader(path) as source:
        assert len(list(source.blocks())) == 2
    assert main(["replay", "-q", "--target", "qemu", "--json", str(path)]) == 0
    said = capsys.readouterr()
    result, _ = map(json.loads, said.out.splitlines())
    assert (result["divergences"], result["unjudged"]) == (0, 1)
    assert f"recorded with QEMU 1.2.3, replayed on QEMU {result['qemu']}" in said.err


def test_the_qemu_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "story.txt"
    write_text(path, Header(units=(UnitInfo("virtio-iommu"),)), STORY)
    assert main(["replay", "--target", "qemu", "--program", "no-such-qemu", str(path)]) == 2
    assert "cannot run no-such-qemu" in capsys.readouterr().err


def test_endpoints_without_number_are_refused() -> None:
    with pytest.raises(HarnessError, match="65536 endpoints"):
        endpoints_of(Endpoint(number, ()) for number in range(1 << 32))
