"""Fault recording registers, fault status and the fault event (VT-d 7.2 to 7.4)."""

from __future__ import annotations

import pytest

from decoders.events import AccessKind, FaultRecord, Interrupt
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.faults import FaultRecordRegister, Reason
from decoders.vtd.registers import FaultStatus, fault_record_offset
from tests.harness.unit.conftest import MakePlatform
from tests.writers.platform import DEVICE, EXECUTE, READ, WRITE, Platform, fault

RECORD = layout(FaultRecordRegister)
FSTS = layout(FaultStatus)
F = RECORD["f"].mask
IM, IP = 1 << 31, 1 << 30
MESSAGE = Interrupt(0x1_FEE0_1000, 0x4021)


@pytest.fixture
def faulty(platform: Platform) -> Platform:
    """Nothing is mapped for functions 0 to 7 of the device; the fault event is unmasked."""
    for sid in range(DEVICE, DEVICE + 8):
        platform.context(sid, did=sid)
    platform.program(vtd.FEDATA, MESSAGE.data)
    platform.program(vtd.FEADDR, MESSAGE.address & 0xFFFFFFFF)
    platform.program(vtd.FEUADDR, MESSAGE.address >> 32)
    platform.program(vtd.FECTL, 0)
    return platform


def records(platform: Platform) -> list[FaultRecord]:
    return [seen for seen in platform.observed() if isinstance(seen, FaultRecord)]


def interrupts(platform: Platform) -> int:
    seen = [seen for seen in platform.observed() if isinstance(seen, Interrupt)]
    assert all(message == MESSAGE for message in seen)
    return len(seen)


def pending(platform: Platform) -> list[int]:
    """Return the indices of the records whose F is set."""
    return [index for index in range(4) if platform.field(vtd.FRCD_HIGH, "f", index)]


def clear(platform: Platform, index: int) -> None:
    platform.program(vtd.FRCD_HIGH, F, index)


# -- what a record says --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "t1", "exe"), [(READ, 1, 0), (WRITE, 0, 0), (EXECUTE, 1, 1)])
def test_a_record_says_who_what_and_where(
    faulty: Platform, kind: AccessKind, t1: int, exe: int
) -> None:
    faulty.request(0x1234567, kind)
    (seen,) = records(faulty)
    words = (seen.low, seen.high)
    assert seen.index == 0
    assert RECORD["fi"].address(words) == 0x1234000
    assert RECORD["sid"].get(words) == DEVICE
    assert RECORD["fr"].get(words) == (Reason.NO_WRITE if kind == WRITE else Reason.NO_READ)
    assert (RECORD["t1"].get(words), RECORD["exe"].get(words)) == (t1, exe)
    assert (RECORD["pp"].get(words), RECORD["pv"].get(words)) == (0, 0)
    assert (RECORD["t2"].get(words), RECORD["at"].get(words)) == (0, 0)


def test_a_record_says_the_pasid(platform: Platform) -> None:
    platform.first_stage(pasid=0x54321)
    platform.read(0x1000, pasid=0x54321)
    (seen,) = records(platform)
    words = (seen.low, seen.high)
    assert (RECORD["pp"].get(words), RECORD["pv"].get(words)) == (1, 0x54321)
    assert RECORD["fr"].get(words) == Reason.FS_NOT_PRESENT


def test_the_registers_show_the_record(faulty: Platform) -> None:
    faulty.write_to(0x1234567)
    (seen,) = records(faulty)
    assert faulty.register(vtd.FRCD_LOW) == seen.low
    assert faulty.register(vtd.FRCD_HIGH) == seen.high | F
    assert not seen.high & F


def test_the_capability_places_the_records(make_platform: MakePlatform) -> None:
    platform = make_platform(fro=0x123, nfr=7)
    platform.context()
    platform.read(0x1000)
    offset = fault_record_offset(platform.config.capability, 0)
    assert offset == 0x1230
    assert platform.unit.read_register(offset + 8, 8) & F


def test_a_translation_records_nothing(faulty: Platform) -> None:
    faulty.legacy().map(0x1000, 0x7000)
    faulty.read(0x1000)
    assert faulty.observed() == []
    assert faulty.register(vtd.FSTS) == 0


# -- several records -----------------------------------------------------------------------------


def test_records_fill_one_after_the_other(faulty: Platform) -> None:
    for sid in range(DEVICE, DEVICE + 4):
        faulty.read(0x1000, sid=sid)
    assert [seen.index for seen in records(faulty)] == [0, 1, 2, 3]
    assert pending(faulty) == [0, 1, 2, 3]
    assert [faulty.field(vtd.FRCD_HIGH, "sid", index) for index in range(4)] == [
        DEVICE, DEVICE + 1, DEVICE + 2, DEVICE + 3,
    ]  # fmt: skip


def test_faults_of_one_source_are_collapsed(faulty: Platform) -> None:
    faulty.read(0x1000)
    faulty.write_to(0x5000)
    assert len(records(faulty)) == 1
    clear(faulty, 0)
    faulty.write_to(0x5000)
    assert [seen.index for seen in records(faulty)] == [1]


def test_overflow(faulty: Platform) -> None:
    for sid in range(DEVICE, DEVICE + 5):
        faulty.read(0x1000, sid=sid)
    assert len(records(faulty)) == 4
    assert faulty.field(vtd.FSTS, "pfo") == 1
    clear(faulty, 0)
    faulty.read(0x1000, sid=DEVICE + 5)
    assert records(faulty) == []
    faulty.program(vtd.FSTS, FSTS["pfo"].mask)
    assert faulty.field(vtd.FSTS, "pfo") == 0
    faulty.read(0x1000, sid=DEVICE + 5)
    assert [seen.index for seen in records(faulty)] == [0]


def test_a_unit_with_one_record(make_platform: MakePlatform) -> None:
    platform = make_platform(nfr=0)
    platform.context(DEVICE)
    platform.context(DEVICE + 1)
    platform.read(0x1000)
    assert platform.field(vtd.FSTS, "pfo") == 0
    platform.read(0x1000, sid=DEVICE + 1)
    assert platform.field(vtd.FSTS, "pfo") == 1
    assert len(records(platform)) == 1


def test_the_index_of_the_first_pending_record(faulty: Platform) -> None:
    faulty.read(0x1000, sid=DEVICE)
    assert (faulty.field(vtd.FSTS, "ppf"), faulty.field(vtd.FSTS, "fri")) == (1, 0)
    faulty.read(0x1000, sid=DEVICE + 1)
    assert faulty.field(vtd.FSTS, "fri") == 0
    clear(faulty, 0)
    clear(faulty, 1)
    assert faulty.field(vtd.FSTS, "ppf") == 0
    faulty.read(0x1000, sid=DEVICE + 2)
    assert (faulty.field(vtd.FSTS, "ppf"), faulty.field(vtd.FSTS, "fri")) == (1, 2)


def test_pending_is_the_sum_of_the_records(faulty: Platform) -> None:
    for sid in (DEVICE, DEVICE + 1):
        faulty.read(0x1000, sid=sid)
    clear(faulty, 1)
    assert (faulty.field(vtd.FSTS, "ppf"), pending(faulty)) == (1, [0])
    clear(faulty, 0)
    assert (faulty.field(vtd.FSTS, "ppf"), pending(faulty)) == (0, [])


def test_software_cannot_clear_pending_itself(faulty: Platform) -> None:
    faulty.read(0x1000)
    faulty.program(vtd.FSTS, 0xFFFFFFFF)
    assert faulty.field(vtd.FSTS, "ppf") == 1
    assert pending(faulty) == [0]


def test_writing_zero_clears_no_record(faulty: Platform) -> None:
    faulty.read(0x1000)
    before = faulty.register(vtd.FRCD_HIGH)
    faulty.program(vtd.FRCD_HIGH, before & ~F)
    faulty.program(vtd.FRCD_LOW, 0)
    assert faulty.register(vtd.FRCD_HIGH) == before
    assert faulty.register(vtd.FRCD_LOW) == 0x1000


def test_a_record_is_cleared_through_its_last_four_bytes(faulty: Platform) -> None:
    faulty.read(0x1000)
    faulty.unit.write_register(faulty.place(vtd.FRCD_HIGH) + 4, 4, F >> 32)
    assert pending(faulty) == []
    assert faulty.field(vtd.FSTS, "ppf") == 0


def test_disabling_translation_starts_with_the_first_record_again(faulty: Platform) -> None:
    faulty.read(0x1000)
    clear(faulty, 0)
    faulty.command(te=0)
    faulty.command(te=1)
    faulty.observed()
    faulty.read(0x1000)
    assert [seen.index for seen in records(faulty)] == [0]


# -- the event -----------------------------------------------------------------------------------


def test_a_fault_raises_the_event_after_its_record(faulty: Platform) -> None:
    faulty.read(0x1000)
    seen = faulty.observed()
    assert [type(one) for one in seen] == [FaultRecord, Interrupt]
    assert seen[1] == MESSAGE
    assert faulty.field(vtd.FECTL, "ip") == 0


def test_only_the_first_pending_fault_raises_the_event(faulty: Platform) -> None:
    for sid in range(DEVICE, DEVICE + 5):
        faulty.read(0x1000, sid=sid)
    assert interrupts(faulty) == 1


def test_the_event_is_raised_again_once_everything_was_cleared(faulty: Platform) -> None:
    faulty.read(0x1000)
    clear(faulty, 0)
    faulty.read(0x1000)
    assert interrupts(faulty) == 2


def test_overflow_left_uncleared_keeps_the_event_away(faulty: Platform) -> None:
    for sid in range(DEVICE, DEVICE + 5):
        faulty.read(0x1000, sid=sid)
    for index in range(4):
        clear(faulty, index)
    faulty.observed()
    assert faulty.field(vtd.FSTS, "ppf") == 0
    faulty.read(0x1000)
    assert faulty.observed() == []


def test_a_masked_event_stays_pending_until_it_is_unmasked(faulty: Platform) -> None:
    faulty.program(vtd.FECTL, IM)
    faulty.read(0x1000)
    assert interrupts(faulty) == 0
    assert faulty.register(vtd.FECTL) == IM | IP
    faulty.program(vtd.FECTL, 0)
    assert interrupts(faulty) == 1
    assert faulty.register(vtd.FECTL) == 0
    faulty.program(vtd.FECTL, 0)
    assert interrupts(faulty) == 0


def test_software_cannot_set_pending(faulty: Platform) -> None:
    faulty.program(vtd.FECTL, IP)
    assert faulty.register(vtd.FECTL) == 0
    assert interrupts(faulty) == 0


def test_a_pending_event_is_withdrawn_with_its_cause(faulty: Platform) -> None:
    faulty.program(vtd.FECTL, IM)
    faulty.read(0x1000)
    faulty.program(vtd.FSTS, 0xFFFFFFFF)
    assert faulty.register(vtd.FECTL) == IM | IP
    clear(faulty, 0)
    faulty.program(vtd.FSTS, 0xFFFFFFFF)
    assert faulty.register(vtd.FECTL) == IM
    faulty.program(vtd.FECTL, 0)
    assert interrupts(faulty) == 0


def test_the_event_is_masked_after_reset(platform: Platform) -> None:
    platform.context()
    assert platform.register(vtd.FECTL) == IM
    platform.read(0x1000)
    assert platform.register(vtd.FECTL) == IM | IP
    platform.unit.reset()
    assert platform.register(vtd.FECTL) == IM


def test_a_reset_clears_the_records(faulty: Platform) -> None:
    for sid in range(DEVICE, DEVICE + 5):
        faulty.read(0x1000, sid=sid)
    faulty.unit.reset()
    assert (faulty.register(vtd.FSTS), pending(faulty)) == (0, [])


# -- a recording's own records -------------------------------------------------------------------


def test_a_record_taken_over_is_shown(faulty: Platform) -> None:
    faulty.unit.adopt(FaultRecord(2, 0x5000, DEVICE | Reason.NO_READ << 32))
    assert pending(faulty) == [2]
    assert faulty.field(vtd.FSTS, "ppf") == 1
    assert faulty.read(0x1000, sid=DEVICE + 1) == fault(Reason.NO_READ)
    assert [seen.index for seen in records(faulty)] == [3]


def test_a_record_taken_over_raises_the_event_once(faulty: Platform) -> None:
    faulty.unit.adopt(FaultRecord(1, 0x5000, DEVICE | Reason.NO_READ << 32))
    assert faulty.field(vtd.FSTS, "fri") == 1
    assert interrupts(faulty) == 1
    faulty.unit.adopt(FaultRecord(2, 0x6000, DEVICE + 1 | Reason.NO_READ << 32))
    assert faulty.field(vtd.FSTS, "fri") == 1
    assert interrupts(faulty) == 0


def test_a_record_taken_over_leaves_a_masked_event_pending(faulty: Platform) -> None:
    faulty.program(vtd.FECTL, IM)
    faulty.unit.adopt(FaultRecord(0, 0x5000, DEVICE | Reason.NO_READ << 32))
    assert faulty.register(vtd.FECTL) == IM | IP


def test_a_record_beyond_the_last_is_not_taken_over(faulty: Platform) -> None:
    faulty.unit.adopt(FaultRecord(4, 0x5000, DEVICE))
    assert (pending(faulty), faulty.register(vtd.FSTS)) == ([], 0)
