"""Messages of a device in a real QEMU: what its log says of them is what a processor gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decoders.events import (
    AccessKind,
    Fault,
    FaultRecord,
    Interrupt,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Store,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister, Reason
from decoders.vtd.interrupt import InterruptRemapEntry
from harness.differential.interrupts import deliver, written
from harness.differential.machine import unit_config
from harness.differential.remains import record_of
from harness.differential.teller import Teller
from harness.findings import FindingKind
from harness.generate.vtd_tables import packed
from harness.message import Msi
from harness.model.dialects import SPECIFICATION, dialect_named
from harness.model.interrupts import NO_SOURCE
from harness.qemu.vtd import Dma, Seen, VtdQemu
from harness.targets.model import ModelReplay

pytestmark = pytest.mark.qemu

TABLE = 0x20_0000
ENABLE, SET_TABLE = 1 << 25, 1 << 24
ENTRY = layout(InterruptRemapEntry)
RECORD = layout(FaultRecordRegister)
REMAPPABLE = 0xFEE0_0010
"""A message that names entry 0."""
BEYOND = 0xFEEF_FFF0
"""A message that names an entry behind the table."""
PFO, PPF = 1, 2


@pytest.fixture(scope="module")
def qemu() -> Iterator[VtdQemu]:
    with VtdQemu("remapping") as found:
        yield found


@pytest.fixture
def unit(qemu: VtdQemu) -> VtdQemu:
    qemu.reset()
    return qemu


def start(unit: VtdQemu, **entry: int) -> list[Store | RegWrite]:
    """Switch remapping on with one entry; return what that took."""
    stores = [Store(TABLE + 8 * n, 8, word) for n, word in enumerate(packed(ENTRY, **entry))]
    writes = [
        RegWrite(vtd.IRTA.offset, 8, TABLE | 7),
        RegWrite(vtd.GCMD.offset, 4, SET_TABLE),
        RegWrite(vtd.GCMD.offset, 4, ENABLE),
    ]
    unit.step(stores, writes, (), None)
    return [*stores, *writes]


def send(unit: VtdQemu, address: int, data: int, sender: int = 0) -> Seen:
    return unit.step((), (), (), None, Msi(sender, address, data))


def requested(unit: VtdQemu) -> list[int]:
    """Return the vectors that the first processor has been asked to take."""
    lines = unit.monitor("info lapic 0").splitlines()
    words = next(line for line in lines if line.startswith("IRR")).split()[1:]
    return [int(word.partition("(")[0]) for word in words if word[0].isdigit()]


def test_a_message_goes_on_as_it_is_without_remapping(unit: VtdQemu) -> None:
    seen = send(unit, 0xFEE0_0000, 0x41)
    outcomes = [event.outcome for event in seen.said if isinstance(event, InterruptRequest)]
    assert outcomes == [None, Message(0xFEE0_0000, 0x41)]
    assert requested(unit) == [0x41]


def test_the_vector_of_the_entry_arrives_where_the_log_says_so(unit: VtdQemu) -> None:
    start(unit, p=1, vector=0x63)
    seen = send(unit, REMAPPABLE, 0x41)
    outcome = seen.said[-1]
    assert isinstance(outcome, InterruptRequest) and isinstance(outcome.outcome, Message)
    assert outcome.outcome.data & 0xFF == 0x63, seen.said
    assert requested(unit) == [0x63]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, Reason.REMAP_NOT_PRESENT),
        ({"p": 1, "svt": 1, "sid": 0x1234}, Reason.REMAP_SOURCE),
        ({"p": 1, "svt": 2, "sid": 0x0203}, Reason.REMAP_SOURCE),
    ],
)
def test_what_is_refused_arrives_nowhere_and_is_recorded(
    unit: VtdQemu, entry: dict[str, int], reason: Reason
) -> None:
    start(unit, vector=0x63, **entry)
    seen = send(unit, REMAPPABLE, 0x41)
    assert RECORD["fr"].get(seen.record) == reason
    assert RECORD["sid"].get(seen.record) == unit.senders[0].function.requester
    assert requested(unit) == []


def test_a_migration_changes_nothing_of_interrupt_remapping(unit: VtdQemu) -> None:
    start(unit, p=1, vector=0x63)
    # What IRTA says by now does not count before it is latched.
    unit.step((), (RegWrite(vtd.IRTA.offset, 8, 0x28_0007),), (), None)
    known = [(one.offset, one.size) for one in (vtd.IRTA, vtd.GSTS, vtd.FECTL, vtd.FSTS)]
    before = unit.step((), (), known, None).reads
    assert before[:2] == [0x28_0007, ENABLE | SET_TABLE]
    unit.migrate()
    assert unit.step((), (), known, None).reads == before
    seen = send(unit, REMAPPABLE, 0x41)
    assert requested(unit) == [0x63], seen.said


def test_messages_of_a_device_behind_a_bridge_carry_the_id_of_the_bridge(unit: VtdQemu) -> None:
    bridge = next(s.function for s in unit.senders if s.function.requester != s.function.number)
    number = [sender.function for sender in unit.senders].index(bridge)
    start(unit, p=1, vector=0x63, svt=1, sid=bridge.requester)
    assert requested(unit) == []
    send(unit, REMAPPABLE, 0, number)
    assert requested(unit) == [0x63]


def test_an_unmasked_fault_interrupt_is_sent(unit: VtdQemu) -> None:
    start(unit)
    message = (
        RegWrite(vtd.FEDATA.offset, 4, 0x52),
        RegWrite(vtd.FEADDR.offset, 4, 0xFEE0_0000),
        RegWrite(vtd.FECTL.offset, 4, 0),
    )
    unit.step((), message, (), None)
    seen = send(unit, REMAPPABLE, 0)
    assert Interrupt(0xFEE0_0000, 0x52) in seen.said
    assert requested(unit) == [0x52]


def judged(unit: VtdQemu, done: list[Store | RegWrite], msi: Msi) -> tuple[object, set[object]]:
    """Return what became of a message, and what the specification alone permits if not that."""
    judge = ModelReplay(unit_config(unit, SPECIFICATION))
    teller = Teller([judge], (), 16)
    teller.tell(*done)
    seen = unit.step((), (), (), None, msi)
    sid = unit.senders[msi.sender].function.requester
    deliver(msi, sid, seen.said, None, True, judge, teller)
    found = [one for one in judge.findings() if one.kind is FindingKind.DIVERGENCE]
    (request,) = [event for event in teller.events if isinstance(event, InterruptRequest)]
    return request.outcome, {outcome for one in found for outcome in one.permitted}


def test_the_compatibility_format_passes_though_it_is_blocked(unit: VtdQemu) -> None:
    done = start(unit)
    outcome, permitted = judged(unit, done, Msi(0, 0xFEE0_0000, 0x41))
    assert outcome == Message(0xFEE0_0000, 0x41)
    assert permitted == {Fault(Reason.REMAP_COMPATIBILITY_BLOCKED)}
    assert requested(unit) == [0x41]


def test_an_entry_that_posts_remaps(unit: VtdQemu) -> None:
    done = start(unit, p=1, im=1, vector=0x63)
    outcome, permitted = judged(unit, done, Msi(0, REMAPPABLE, 0))
    assert isinstance(outcome, Message)
    assert permitted == {Fault(Reason.REMAP_RESERVED)}


def test_bits_of_a_destination_beyond_an_xapic_id_are_not_checked(unit: VtdQemu) -> None:
    done = start(unit, p=1, dst=0x8000_0000, vector=0x63)
    outcome, permitted = judged(unit, done, Msi(0, REMAPPABLE, 0))
    assert isinstance(outcome, Message)
    assert permitted == {Fault(Reason.REMAP_RESERVED)}


def test_the_sum_of_handle_and_subhandle_wraps(unit: VtdQemu) -> None:
    done = start(unit, p=1, vector=0x63)
    outcome, permitted = judged(unit, done, Msi(0, 0xFEEF_FFFC, 1))
    assert isinstance(outcome, Message)
    assert permitted == {Fault(Reason.REMAP_INDEX)}


def test_the_source_of_a_message_that_dma_writes_is_not_checked(unit: VtdQemu) -> None:
    start(unit, p=1, vector=0x63, svt=1, sid=0x1234)
    tester = next(n for n, device in enumerate(unit.devices) if device.model == "i82559er")
    seen = unit.step((), (), (), Dma(tester, AccessKind.WRITE, REMAPPABLE))
    first = [event.outcome for event in seen.said if isinstance(event, InterruptRequest)][1]
    assert isinstance(first, Message) and first.data & 0xFF == 0x63
    assert requested(unit) == [0x63]
    # The second doubleword names an entry behind the table.
    assert RECORD["fr"].get(seen.record) == Reason.REMAP_INDEX
    assert RECORD["sid"].get(seen.record) == NO_SOURCE


def test_a_record_belongs_to_the_doubleword_that_it_names(unit: VtdQemu) -> None:
    done = start(unit, fpd=1)
    tester = next(n for n, device in enumerate(unit.devices) if device.model == "i82559er")
    seen = unit.step((), (), (), Dma(tester, AccessKind.WRITE, REMAPPABLE))
    judge = ModelReplay(unit_config(unit, dialect_named("qemu-{}.{}".format(*unit.version))))
    teller = Teller([judge], (), 16)
    teller.tell(*done)
    low, high = seen.record
    record = FaultRecord(0, low, high & ~RECORD["f"].mask)
    written(REMAPPABLE, unit.sid(tester), None, seen.said, (record, False), judge, teller)
    judge.finish()
    reasons = [event.outcome for event in teller.events if isinstance(event, InterruptRequest)]
    assert reasons == [Fault(Reason.REMAP_NOT_PRESENT), Fault(Reason.REMAP_INDEX)]
    assert judge.findings() == []


def test_an_overflow_is_put_down_to_a_fault_that_can_set_it(unit: VtdQemu) -> None:
    """FPD of an entry that may be cached suppresses faults; that of the table does not any more."""
    done = start(unit, p=1, fpd=1, svt=1, sid=0x1234)
    judge = ModelReplay(unit_config(unit, dialect_named("qemu-{}.{}".format(*unit.version))))
    teller = Teller([judge], (), 16)
    teller.tell(*done)
    cleared = [Store(TABLE, 8, 0)]
    steps: list[tuple[list[Store], Msi]] = [
        ([], Msi(0, REMAPPABLE, 0)),
        (cleared, Msi(1, BEYOND, 0)),
        ([], Msi(0, REMAPPABLE, 0)),
    ]
    statuses = []
    for stores, msi in steps:
        teller.tell(*stores)
        seen = unit.step(stores, (), (), None, msi)
        sid = unit.senders[msi.sender].function.requester
        record, hidden = record_of(seen, sid)
        deliver(msi, sid, seen.said, record, hidden, judge, teller)
        teller.tell(RegRead(vtd.FSTS.offset, 4, seen.status))
        statuses.append(seen.status)
    judge.finish()
    assert statuses == [0, PPF, PPF | PFO]
    assert [one for one in judge.findings() if one.kind is FindingKind.DIVERGENCE] == []
