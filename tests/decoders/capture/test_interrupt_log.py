"""Interrupt requests in QEMU's log: a request's line and what became of it are one event."""

from __future__ import annotations

from decoders.capture.interrupt_log import HELD_LIMIT
from decoders.capture.qemu_log import QemuLogDecoder
from decoders.events import (
    Event,
    Fault,
    FaultRecord,
    Gap,
    InterruptRequest,
    Message,
    RegRead,
    RegWrite,
    Store,
)

REQUEST = "vtd_ir_remap_msi_req addr 0xfee000b0 data 0x0\n"
ENTRY = "vtd_ir_irte_get index 5 low 0x40018 high 0x20000310001\n"
REMAPPED = "vtd_ir_remap_msi (addr 0xfee000b0, data 0x0) -> (addr 0xfee02000, data 0x4031)\n"
STORE = "dmr st 1000 8 1\n"
WRITE = "vtd_reg_write addr 0x20 size 0x8 value 0x1000\n"


def record(reason: int, sid: int) -> str:
    """Return the line of a fault record."""
    return f"vtd_frr_new index 0 high {reason << 32 | sid:#x} low 0x5000000000000\n"


def decode(text: str) -> list[Event]:
    """Decode a whole log."""
    decoder = QemuLogDecoder()
    events = [*decoder.feed(text.encode()), *decoder.finish()]
    assert decoder.unknown == {}
    return events


def request(outcome: Message | Fault | None, sid: int | None = None) -> InterruptRequest:
    """Return the event of REQUEST."""
    return InterruptRequest(sid, 0xFEE000B0, 0, outcome)


DELIVERED = request(Message(0xFEE02000, 0x4031))


def test_a_message_that_goes_on() -> None:
    assert decode(REQUEST + ENTRY + REMAPPED) == [DELIVERED]


def test_a_fault_record_tells_reason_and_source() -> None:
    assert decode(REQUEST + ENTRY + record(0x26, 0x18) + WRITE) == [
        request(Fault(0x26), 0x18),
        FaultRecord(0, 5 << 48, 0x26 << 32 | 0x18),
        RegWrite(0x20, 8, 0x1000),
    ]


def test_a_record_may_have_no_source() -> None:
    assert decode(REQUEST + record(0x22, 0xFFFF))[0] == request(Fault(0x22))


def test_a_refusal_without_a_record_has_no_reason() -> None:
    assert decode(REQUEST + ENTRY + REQUEST + REMAPPED) == [request(Fault(0)), DELIVERED]
    assert decode(REQUEST + WRITE) == [request(Fault(0)), RegWrite(0x20, 8, 0x1000)]


def test_a_record_of_dma_is_not_the_request_s() -> None:
    found = decode(REQUEST + record(0x06, 0x18))
    assert found == [request(Fault(0)), FaultRecord(0, 5 << 48, 0x06 << 32 | 0x18)]


def test_a_request_stands_where_its_line_stood() -> None:
    assert decode(REQUEST + STORE + REMAPPED) == [DELIVERED, Store(0x1000, 8, 1)]
    assert decode(REQUEST + STORE + record(0x22, 0x18))[1:] == [
        FaultRecord(0, 5 << 48, 0x22 << 32 | 0x18),
        Store(0x1000, 8, 1),
    ]


def test_few_events_wait_behind_a_request() -> None:
    events = decode(REQUEST + STORE * (HELD_LIMIT + 1) + REMAPPED)
    assert events == [request(Fault(0)), *[Store(0x1000, 8, 1)] * (HELD_LIMIT + 1), DELIVERED]


def test_the_end_leaves_the_outcome_open() -> None:
    assert decode(REQUEST + STORE) == [request(None), Store(0x1000, 8, 1)]


def test_a_lost_line_leaves_the_outcome_open() -> None:
    for lost in ("vtd_frr_new index\n", "dmr lost ring full\n"):
        gap, found, _ = decode(REQUEST + lost + WRITE)
        assert (type(gap), found) == (Gap, request(None))
        assert decode(REQUEST + lost + REMAPPED)[1] == DELIVERED


def test_a_read_still_gets_its_value() -> None:
    read = "vtd_reg_read addr 0x1c size 0x4\n"
    found = decode("dmr begin 1\n" + read + REQUEST + REMAPPED + "dmr rd 1c 4 80000000\n")
    assert found == [DELIVERED, RegRead(0x1C, 4, 0x80000000)]
