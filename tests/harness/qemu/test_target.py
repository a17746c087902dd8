"""The target qemu: what a trace says is compared with what a real unit does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from decoders.bytewise import packed
from decoders.events import (
    Access,
    AccessKind,
    ConfigSpace,
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
from decoders.virtio_iommu.structures import Attach, Map
from harness.errors import HarnessError
from harness.findings import Finding
from harness.model.config import UnitConfig
from harness.model.virtio.config import DEFAULT_CONFIG, VirtioConfig
from harness.qemu.unit import DEVICES, ENDPOINTS, POOL_START, QemuUnit, devices_for
from harness.targets import Counters, target_named
from harness.trace import Block, TraceReader
from harness.trace.codec import Encoder

CORPUS = Path(__file__).parents[3] / "corpora/traces"
DEVICE = 0x10
IOVA = 0x4_0000_0000
OK, NOENT = bytes(4), b"\x06\0\0\0"
WRITE, READ = AccessKind.WRITE, AccessKind.READ

ATTACH = Request(packed(Attach).pack(1, bytes(3), 1, DEVICE, 0, bytes(4)), 4, OK)
MAP = Request(packed(Map).pack(3, bytes(3), 1, IOVA, IOVA + 0xFFF, POOL_START, 3), 4, OK)
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
    target = target_named("qemu", VirtioConfig())
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


def test_another_kind_of_unit_is_refused() -> None:
    with pytest.raises(HarnessError, match="virtio-iommu only"):
        target_named("qemu", UnitConfig(capability=1, extended_capability=1))


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
        target = target_named("qemu", VirtioConfig())
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
