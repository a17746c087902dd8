"""Check the fields of page requests, their answers, and messages to device TLBs.

These are read as harness.trace.codec says; PCIe (10.4) bounds what a message can carry.
"""

from __future__ import annotations

from decoders.events import (
    DeviceTlbMessage,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
)
from harness.trace import checks
from harness.trace.checks import PAGE, U16, U20, U64, FieldError

GROUP_LIMIT = 0x1FF
"""The largest index of a page request group."""
CODE_LIMIT = 15
"""The largest response code."""
RECORD_SIZE = 32
"""Bytes of an entry of the page request queue, which is aligned to them."""
RECORD_WORDS = RECORD_SIZE // 8
FLAGS_LIMIT = int(~PageRequestFlag(0))


def page_request(
    sid: object, pasid: object, address: object, flags: object, group: object
) -> PageRequest:
    """Return a page request of checked fields."""
    return PageRequest(
        checks.number(sid, U16, "sid"),
        _pasid(pasid),
        checks.page(address),
        PageRequestFlag(checks.number(flags, FLAGS_LIMIT, "flags")),
        checks.number(group, GROUP_LIMIT, "group"),
    )


def page_request_record(address: object, words: object) -> PageRequestRecord:
    """Return a page request record of checked fields."""
    start = checks.number(address, U64, "address")
    if start % RECORD_SIZE:
        raise FieldError("address", f"{start:#x} is not one of {RECORD_SIZE} bytes")
    if type(words) not in (list, tuple):
        raise FieldError("words", f"is {checks.describe(words)}, not an array")
    assert isinstance(words, list | tuple)
    if len(words) != RECORD_WORDS:
        raise FieldError("words", f"has {len(words)} words, not {RECORD_WORDS}")
    numbers = [checks.number(word, U64, f"words[{index}]") for index, word in enumerate(words)]
    return PageRequestRecord(start, tuple(numbers))


def page_response(sid: object, pasid: object, group: object, code: object) -> PageResponse:
    """Return a page response of checked fields."""
    return PageResponse(
        checks.number(sid, U16, "sid"),
        _pasid(pasid),
        checks.number(group, GROUP_LIMIT, "group"),
        checks.number(code, CODE_LIMIT, "code"),
    )


def device_tlb_message(
    sid: object, pasid: object, address: object, mask: object, every_pasid: object
) -> DeviceTlbMessage:
    """Return a message to a device TLB of checked fields."""
    start, size = checks.number(address, U64, "address"), checks.number(mask, U64, "mask") + 1
    if size & (size - 1) or size < PAGE:
        raise FieldError("mask", f"{size - 1:#x} is not the size of pages, less 1")
    if start % size:
        raise FieldError("address", f"{start:#x} is not one of {size:#x} bytes")
    found, every = _pasid(pasid), bool(checks.number(every_pasid, 1, "every_pasid"))
    if every and found is not None:
        raise FieldError("pasid", f"{found:#x} is given, and every one")
    return DeviceTlbMessage(checks.number(sid, U16, "sid"), found, start, size - 1, every)


def _pasid(value: object) -> int | None:
    return None if value is None else checks.number(value, U20, "pasid")
