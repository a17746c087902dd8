"""Each known deviation of QEMU's virtio-iommu is really there: without it the model objects.

That is so of the rows that the dialect of the version has; what else it does is as specified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from decoders.events import AccessKind, DeviceReset, Event, RegWrite, Request
from decoders.virtio_iommu.config import BYPASS_OFFSET
from harness.deviations import CRASHES, DEVIATIONS, Deviation, known_crash
from harness.differential.engine import MODEL, Differential, Judge
from harness.differential.real import Qemu
from harness.findings import BROKEN
from harness.generate.virtio import DmaChoice, Step, Stimulus
from harness.qemu.process import EndedError
from harness.qemu.unit import POOL_START, Dma, QemuUnit
from tests.writers import virtio_iommu as write

pytestmark = pytest.mark.qemu

RTL8139, I82559 = 0, 1
DEVICE, OTHER = 0x20, 0x28
BEHIND_PORT = 4
NEAR = 0x8000_0000
WRITE, READ = AccessKind.WRITE, AccessKind.READ
HARMLESS = DmaChoice(RTL8139, WRITE, POOL_START)


def asked(data: bytes, room: int = write.TAIL) -> Request:
    return Request(data, room, None)


def attach(domain: int, endpoint: int = DEVICE, flags: int = 0, reserved: int = 0) -> Request:
    return asked(write.attach(domain, endpoint, flags, reserved))


def detach(domain: int, endpoint: int = DEVICE) -> Request:
    return asked(write.detach(domain, endpoint))


def mapped(start: int, end: int, to: int = POOL_START, domain: int = 1) -> Request:
    return asked(write.map_(domain, start, end, to))


def unmapped(start: int, end: int, domain: int = 1) -> Request:
    return asked(write.unmap(domain, start, end))


SCENARIOS: dict[str, list[Stimulus | tuple[Stimulus, DmaChoice]]] = {
    "unknown-type": [asked(b"\x09" + bytes(19))],
    "short-request": [asked(attach(1).data[:12])],
    "probe-room": [asked(write.probe(DEVICE), 40)],
    "breaks": [asked(attach(1).data, 0), attach(1), DeviceReset(), attach(1)],
    "endpoint-ids-wrap": [attach(1, DEVICE | 0x1_0000)],
    "attach-reserved": [attach(1, reserved=1)],
    "attach-detaches-first": [
        attach(2, OTHER, flags=1),
        attach(1),
        attach(2),
        detach(1),
    ],
    "endpoint-forgotten": [detach(1)],
    "map-alignment": [attach(1), mapped(NEAR, NEAR + 0x7FF)],
    "map-input-range": [attach(1), mapped(1 << 63, (1 << 63) + 0xFFF)],
    "map-reserved-region": [attach(1), mapped(0xFEE0_0000, 0xFEE0_0FFF)],
    "inverted-range": [attach(1), mapped(NEAR + 0x1000, NEAR + 0xFFF)],
    "unmap-removes-before-split": [
        attach(1),
        mapped(NEAR, NEAR + 0xFFF),
        mapped(NEAR + 0x1000, NEAR + 0x2FFF, POOL_START + 0x1000),
        (unmapped(NEAR, NEAR + 0x1FFF), DmaChoice(RTL8139, WRITE, NEAR)),
    ],
    "next-byte": [
        attach(1),
        (mapped(NEAR + 0x1000, NEAR + 0x1FFF), DmaChoice(RTL8139, READ, NEAR + 0xFFF)),
    ],
    "whole-granules": [
        attach(1),
        (mapped(NEAR + 0x800, NEAR + 0xFFF), DmaChoice(RTL8139, WRITE, NEAR + 0x800)),
    ],
    "reset-keeps-domains": [attach(1), mapped(NEAR, NEAR + 0xFFF), DeviceReset(), detach(1)],
    "reserved-region-first": [
        RegWrite(BYPASS_OFFSET, 1, 0),
        attach(2, DEVICE, flags=1),
        attach(1, OTHER),
        (attach(2, OTHER), DmaChoice(I82559, WRITE, 0xFEE0_0000)),
    ],
}


@pytest.fixture(scope="module")
def qemu() -> Iterator[Qemu]:
    with QemuUnit() as unit:
        yield Qemu(unit)


def run(qemu: Qemu, scenario: list[Stimulus | tuple[Stimulus, DmaChoice]]) -> list[Event]:
    differential = Differential(qemu, [MODEL], 1)
    guide = Judge(differential.config(qemu.dialect), qemu)
    events = qemu.begin()
    for event in events:
        guide.apply(event)
    for item in scenario:
        stimulus, dma = item if isinstance(item, tuple) else (item, HARMLESS)
        events += qemu.step(Step(stimulus, dma), guide)
    return events


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.id)
def test_deviation(qemu: Qemu, deviation: Deviation) -> None:
    events = run(qemu, SCENARIOS[deviation.id])
    judged = Differential(qemu, [MODEL], 1).judged
    assert judged(MODEL, qemu.dialect, events) == [], "QEMU does not do what its dialect says"
    specified = deviation.without(qemu.dialect)
    if specified == qemu.dialect:
        return  # its dialect says that this version does not deviate, and it does not
    assert judged(MODEL, specified, events), "QEMU does as specified"


def test_the_known_crash(qemu: Qemu) -> None:
    """Id 0 has a domain when one behind a port, which is id 0 during the reset, leaves its own."""
    (crash,) = CRASHES
    unit = qemu.unit
    unit.reset()
    behind = unit.endpoint(BEHIND_PORT)
    assert unit.request(attach(2, 0).data, 4).answer == bytes(4)
    assert unit.request(attach(1, behind).data, 4).answer == bytes(4)
    unit.reset()
    if unit.version[: len(crash.last)] <= crash.last:
        with pytest.raises(EndedError) as caught:
            unit.access(Dma(BEHIND_PORT, READ, POOL_START))
        assert known_crash(str(caught.value), unit.version) is crash
        assert known_crash(str(caught.value), (99, 0, 0)) is None
        assert known_crash("something else", unit.version) is None
        unit.restart()
    else:
        unit.access(Dma(BEHIND_PORT, READ, POOL_START))
    assert unit.request(attach(1).data, 4).answer == bytes(4)


def test_a_bypass_that_there_is_not_breaks_the_device(qemu: Qemu) -> None:
    """It answers nothing more; the specification's model does not know why."""
    events = run(qemu, [RegWrite(BYPASS_OFFSET, 1, 9), attach(1), mapped(NEAR, NEAR + 0xFFF)])
    assert [event.answer for event in events if isinstance(event, Request)] == [None, None]
    assert qemu.needs_reset()
    judged = Differential(qemu, [MODEL], 1).judged
    assert judged(MODEL, qemu.dialect, events) == []
    unaware = replace(qemu.dialect, breaks=False)
    assert [finding.subject for finding in judged(MODEL, unaware, events)] == [BROKEN, BROKEN]
    run(qemu, [attach(1)])
    assert not qemu.needs_reset()
