"""Faults that are not repeated: what they leave is not compared, what comes later is."""

from __future__ import annotations

import pytest

from decoders.events import Access, Event, Fault, Interrupt, InterruptRequest, RegRead, RegWrite
from decoders.vtd import registers as vtd
from decoders.vtd.faults import Reason
from harness.targets.qemu_runner import QemuRunner
from tests.harness.qemu.vtd_story import (
    CAPABILITY,
    DEVICE,
    READ_ONLY,
    SETUP,
    WRITE,
    command,
    record,
    replay,
)

pytestmark = pytest.mark.qemu

FRCD = vtd.fault_record_offset(CAPABILITY, 0)
PFO, PPF, IM, IP, F = 1, 2, 1 << 31, 1 << 30, 1 << 31

REFUSED = InterruptRequest(DEVICE, 0xFEE0_0000, 1, Fault(Reason.REMAP_NOT_PRESENT))
SEEN = record(DEVICE, 0, Reason.REMAP_NOT_PRESENT)
CLEARED = RegWrite(FRCD + 12, 4, F)
"""What clears F, and PPF with it."""
ALL_WRITTEN = RegWrite(vtd.FSTS.offset, 4, PFO | PPF)
EVENT_OPEN, EVENT_MASKED = (RegWrite(vtd.FECTL.offset, 4, value) for value in (0, IM))
RAISED = Interrupt(0xFEE0_1004, 0x4021)
MESSAGE = [
    RegWrite(vtd.FEDATA.offset, 4, RAISED.data),
    RegWrite(vtd.FEADDR.offset, 4, RAISED.address),
]
NO_WRITE: list[Event] = [
    Access(DEVICE, None, READ_ONLY, WRITE, Fault(Reason.NO_WRITE)),
    record(DEVICE, READ_ONLY, Reason.NO_WRITE),
]
"""A fault that is repeated."""


def status(value: int) -> RegRead:
    return RegRead(vtd.FSTS.offset, 4, value)


def status_written(value: int) -> RegWrite:
    return RegWrite(vtd.FSTS.offset, 4, value)


def control(value: int) -> RegRead:
    return RegRead(vtd.FECTL.offset, 4, value)


RECORD_READ = RegRead(FRCD + 8, 8, SEEN.high | F << 32)
RECORD_LEFT = RegRead(FRCD + 8, 8, SEEN.high)
"""The record while it is pending, and later."""


@pytest.mark.parametrize(
    ("events", "unjudged"),
    [
        pytest.param([status(PPF), CLEARED, status(0)], 1, id="F alone"),
        pytest.param([status(PPF), status_written(PPF), CLEARED, status(0)], 1, id="FSTS, F"),
        pytest.param([status(PPF), CLEARED, status_written(PPF), status(0)], 1, id="F, FSTS"),
        pytest.param([status_written(PPF), status(PPF)], 1, id="PPF is read-only"),
        pytest.param([status_written(0), status(PPF)], 1, id="FSTS gets 0"),
        pytest.param([ALL_WRITTEN, RECORD_READ], 1, id="FSTS, record"),
        pytest.param([RegWrite(FRCD + 12, 4, 0), status(PPF)], 1, id="F gets 0"),
        pytest.param([RegWrite(FRCD + 8, 8, F << 32), status(0)], 0, id="upper half"),
        pytest.param([RegWrite(FRCD + 8, 4, F), status(PPF)], 1, id="SID gets bits"),
        pytest.param([CLEARED, RECORD_LEFT], 1, id="what a record leaves"),
        pytest.param([CLEARED, control(IM | IP)], 1, id="IP stays"),
        pytest.param([CLEARED, ALL_WRITTEN, control(IM)], 0, id="IP is gone"),
        pytest.param([NO_WRITE[0], CLEARED, status(PFO)], 1, id="compressed, or an overflow"),
        pytest.param([NO_WRITE[0], CLEARED, ALL_WRITTEN, status(0)], 0, id="overflow is gone"),
        pytest.param([NO_WRITE[0], status(PPF), CLEARED, status(0)], 1, id="no overflow"),
        pytest.param([CLEARED, *NO_WRITE, status(PPF)], 0, id="the next fault"),
    ],
)
def test_a_refused_interrupt_is_compared_no_longer_than_needed(
    runner: QemuRunner, events: list[Event], unjudged: int
) -> None:
    """Beside the request and its record, only what cannot be the same is left out."""
    counters, findings = replay(runner, *SETUP, REFUSED, SEEN, *events)
    assert findings == []
    assert counters.unjudged == 2 + unjudged


@pytest.mark.parametrize(
    "events",
    [
        [CLEARED, status(PPF)],
        [CLEARED, status_written(PPF), status(PFO)],
        [status_written(PPF), CLEARED, status(PPF)],
        [CLEARED, ALL_WRITTEN, control(IM | IP)],
        [CLEARED, *NO_WRITE, RECORD_READ],
    ],
)
def test_lies_behind_it_are_found(runner: QemuRunner, events: list[Event]) -> None:
    (finding,) = replay(runner, *SETUP, REFUSED, SEEN, *events)[1]
    assert (finding.subject, finding.observed) == ("register", getattr(events[-1], "value", None))


def test_a_refusal_without_a_record_may_have_overflowed(runner: QemuRunner) -> None:
    """So PFO is compared once software has cleared it, and the request alone is left out."""
    counters, findings = replay(runner, *SETUP, REFUSED, CLEARED, status(PFO))
    assert (findings, counters.unjudged) == ([], 2)
    counters, findings = replay(runner, *SETUP, REFUSED, CLEARED, ALL_WRITTEN, status(0))
    assert (findings, counters.unjudged) == ([], 1)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([EVENT_OPEN, REFUSED, SEEN, RAISED], id="open"),
        pytest.param([REFUSED, SEEN, EVENT_OPEN, RAISED], id="opened"),
        pytest.param([REFUSED, SEEN, CLEARED, EVENT_OPEN, RAISED], id="opened, and F is gone"),
        pytest.param([EVENT_OPEN, REFUSED, SEEN, RAISED, *NO_WRITE[:1]], id="one for two"),
    ],
)
def test_its_interrupt_is_not_compared(runner: QemuRunner, events: list[Event]) -> None:
    later = [CLEARED, ALL_WRITTEN, EVENT_OPEN, *NO_WRITE]
    assert replay(runner, *SETUP, *MESSAGE, *events, *later, RAISED)[1] == []
    _, (missing,) = replay(runner, *SETUP, *MESSAGE, *events, *later, command(qie=1, te=1))
    assert (missing.subject, missing.permitted) == ("interrupt", (RAISED,))
    _, (extra,) = replay(runner, *SETUP, *MESSAGE, *events, *later[:3], EVENT_MASKED, RAISED)
    assert (extra.subject, extra.observed) == ("interrupt", RAISED)
