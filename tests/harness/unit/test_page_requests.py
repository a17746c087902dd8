"""Page requests: the queue, its overflow and event, refusals, and answers (VT-d 7.4 to 7.7)."""

from __future__ import annotations

import pytest

from decoders.events import FaultRecord, Interrupt, PageRequestFlag, PageRequestRecord, PageResponse
from decoders.fields import Structure
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import InvalidationWait, PageGroupResponse
from decoders.vtd.faults import FaultRecordRegister, QueueError, Reason
from decoders.vtd.register_fields import RootTableAddress
from tests.harness.unit.conftest import MakePlatform
from tests.writers.page_requests import (
    ADDRESS,
    ALONE,
    GROUP,
    LAST,
    PASID,
    READ,
    SIZE,
    WRITE,
    Pages,
    messages,
)
from tests.writers.platform import DEVICE, OUTSIDE, Platform, descriptor, quadword

RECORD = layout(FaultRecordRegister)
IM, IP = 1 << 31, 1 << 30
MESSAGE = Interrupt(0x1_FEE0_1000, 0x4023)
SUCCESS, INVALID, FAILURE = 0, 1, 15


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    """Make a platform whose unit takes page requests."""
    return make_platform(prs=1, pds=1)


@pytest.fixture
def pages(platform: Platform) -> Pages:
    """Make a page request queue of one page."""
    return Pages(platform)


def unmask(platform: Platform) -> None:
    """Program the page request event and let it through."""
    platform.program(vtd.PEDATA, MESSAGE.data)
    platform.program(vtd.PEADDR, MESSAGE.address & 0xFFFF_FFFF)
    platform.program(vtd.PEUADDR, MESSAGE.address >> 32)
    platform.program(vtd.PECTL, 0)


def the_fault(platform: Platform, seen: list[object]) -> dict[str, int]:
    """Return the fields of the one fault record among what was seen."""
    (record,) = [one for one in seen if isinstance(one, FaultRecord)]
    return {name: field.get((record.low, record.high)) for name, field in RECORD.fields.items()}


# -- registers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (vtd.PQH, 0), (vtd.PQT, 0), (vtd.PQA, 0), (vtd.PRS, 0), (vtd.PECTL, IM),
        (vtd.PEDATA, 0), (vtd.PEADDR, 0), (vtd.PEUADDR, 0),
    ],
    ids=lambda one: getattr(one, "name", None),
)  # fmt: skip
def test_registers_after_a_reset(pages: Pages, register: vtd.Register, value: int) -> None:
    unmask(pages.platform)
    pages.ask()
    pages.read_up_to(1)
    pages.platform.unit.reset()
    assert pages.platform.register(register) == value


@pytest.mark.parametrize("register", [vtd.PQH, vtd.PQT], ids=lambda one: one.name)
def test_head_and_tail_have_14_bits(platform: Platform, register: vtd.Register) -> None:
    platform.program(register, (1 << 64) - 1)
    assert platform.register(register) == 0x7FFE0


# -- the queue -------------------------------------------------------------------------------------


def test_a_request_is_stored_at_the_tail(pages: Pages) -> None:
    assert pages.ask() == [pages.record()]
    assert pages.ask(group=10) == [pages.record(1, prgi=10)]
    stored = [pages.platform.load(pages.queue + 8 * index) for index in range(8)]
    assert tuple(stored) == pages.record().words + pages.record(1, prgi=10).words
    assert pages.platform.register(vtd.PQT) == 2 * SIZE


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        (PageRequestFlag.READ, "rd"),
        (PageRequestFlag.WRITE, "wr"),
        (PageRequestFlag.EXECUTE, "exr"),
        (PageRequestFlag.PRIVILEGED, "pmr"),
        (PageRequestFlag.LAST, "lpig"),
    ],
)
def test_what_is_asked_is_recorded(pages: Pages, flag: PageRequestFlag, field: str) -> None:
    assert pages.ask(flag) == [pages.record(**({"rd": 0, "lpig": 0} | {field: 1}))]


def test_a_request_may_have_no_pasid(pages: Pages) -> None:
    assert pages.ask(pasid=None) == [pages.record(pp=0, pasid=0)]


def test_a_pasid_of_zero_is_one(pages: Pages) -> None:
    assert pages.ask(pasid=0) == [pages.record(pp=1, pasid=0)]


def test_the_largest_numbers_fit(pages: Pages) -> None:
    address = (1 << 64) - 0x1000
    seen = pages.ask(pasid=0xFFFFF, address=address, group=511)
    assert seen == [pages.record(pasid=0xFFFFF, addr=address >> 12, prgi=511)]


def test_a_stop_marker_is_recorded_like_a_request(pages: Pages) -> None:
    assert pages.ask(LAST) == [pages.record(rd=0)]


@pytest.mark.parametrize("pqs", [0, 1, 3])
def test_the_tail_goes_round(platform: Platform, pqs: int) -> None:
    pages = Pages(platform, pqs)
    slots = pages.size // SIZE
    pages.read_up_to(slots - 2)
    platform.program(vtd.PQT, SIZE * (slots - 1))
    assert pages.ask() == [pages.record(slots - 1)]
    assert platform.register(vtd.PQT) == 0
    assert pages.ask() == [pages.record(0)]


def test_what_lies_beyond_the_ring_does_not_count(pages: Pages) -> None:
    pages.platform.program(vtd.PQT, pages.size + SIZE)
    assert pages.ask() == [pages.record(1)]


def test_a_unit_without_page_requests_takes_none(make_platform: MakePlatform) -> None:
    pages = Pages(make_platform(prs=0))
    assert (pages.ask(), pages.status()) == ([], (0, 0))


def test_nobody_is_heard_while_translation_is_disabled(pages: Pages) -> None:
    pages.platform.command(te=0)
    assert pages.ask() == []


# -- overflow --------------------------------------------------------------------------------------


def test_a_full_queue_drops_requests_and_says_so(pages: Pages) -> None:
    pages.fill()
    tail = pages.platform.register(vtd.PQT)
    assert (tail, pages.status()) == (pages.size - SIZE, (1, 0))
    assert pages.ask() == [pages.response(SUCCESS)]
    assert (pages.platform.register(vtd.PQT), pages.status()) == (tail, (1, 1))
    assert pages.platform.load(pages.queue + tail) == 0


def test_nothing_is_queued_until_software_has_seen_the_overflow(pages: Pages) -> None:
    pages.fill()
    pages.ask()
    pages.read_up_to(10)
    assert pages.ask() == [pages.response(SUCCESS)]
    pages.clear(ppr=1)
    assert pages.ask() == [pages.response(SUCCESS)]
    pages.clear(pro=1)
    assert pages.ask() == [pages.record(pages.size // SIZE - 1)]


@pytest.mark.parametrize(
    ("flags", "answered"),
    [(READ, False), (WRITE, False), (READ | LAST, True), (WRITE | LAST, True), (LAST, False)],
)
def test_a_dropped_group_is_answered_at_its_end(
    pages: Pages, flags: PageRequestFlag, answered: bool
) -> None:
    pages.fill()
    assert pages.ask(flags) == ([pages.response(SUCCESS)] if answered else [])


def test_an_answer_names_pasid_and_group(pages: Pages) -> None:
    pages.fill()
    assert pages.ask(pasid=None, group=3) == [PageResponse(DEVICE, None, 3, SUCCESS)]


def test_a_queue_that_is_no_ram_fails_the_group(make_platform: MakePlatform) -> None:
    pages = Pages(make_platform(prs=1, ram=True))
    pages.platform.program(vtd.PQA, OUTSIDE)
    assert pages.ask() == [pages.response(FAILURE)]
    assert (pages.platform.register(vtd.PQT), pages.status()) == (0, (0, 0))


# -- the event -------------------------------------------------------------------------------------


def test_the_first_pending_request_raises_the_event(pages: Pages) -> None:
    unmask(pages.platform)
    assert pages.ask() == [pages.record(), MESSAGE]
    assert pages.ask() == [pages.record(1)]
    pages.clear(ppr=1)
    assert pages.ask() == [pages.record(2), MESSAGE]


def test_an_overflow_raises_the_event_unless_something_is_pending(pages: Pages) -> None:
    pages.fill()
    unmask(pages.platform)
    pages.platform.observed()
    assert MESSAGE not in pages.ask()  # PPR is set
    pages.clear(ppr=1, pro=1)
    assert MESSAGE in pages.ask()
    assert pages.status() == (0, 1)


def test_a_masked_event_waits(pages: Pages) -> None:
    pages.ask()
    assert pages.platform.register(vtd.PECTL) == IM | IP
    unmask(pages.platform)
    assert pages.platform.observed() == [MESSAGE]
    assert pages.platform.register(vtd.PECTL) == 0


@pytest.mark.parametrize(
    ("cleared", "still"), [({"ppr": 1}, IP), ({"pro": 1}, IP), ({"ppr": 1, "pro": 1}, 0)]
)
def test_an_event_without_a_cause_is_withdrawn(
    pages: Pages, cleared: dict[str, int], still: int
) -> None:
    pages.fill()
    pages.ask()
    pages.clear(**cleared)
    assert pages.platform.register(vtd.PECTL) & IP == still


# -- refusals --------------------------------------------------------------------------------------


def test_legacy_mode_refuses_page_requests(platform: Platform) -> None:
    platform.legacy()
    pages = Pages.__new__(Pages)
    pages.platform = platform
    seen = pages.ask()
    found = the_fault(platform, list(seen))
    assert (found["fr"], found["sid"]) == (Reason.LEGACY_MODE_PAGE_REQUEST, DEVICE)
    assert seen[-1] == PageResponse(DEVICE, PASID, GROUP, INVALID)


def test_a_device_that_may_not_ask_is_refused(pages: Pages) -> None:
    pages.platform.scalable_context(pre=0)
    seen = pages.ask()
    found = the_fault(pages.platform, list(seen))
    assert found["fr"] == Reason.SM_PAGE_REQUEST_DISABLED
    assert (found["fi"] << 12, found["pp"], found["pv"]) == (ADDRESS, 1, PASID)
    assert seen[-1] == pages.response(INVALID)
    assert pages.status() == (0, 0)


def test_a_record_says_that_it_was_a_page_request(pages: Pages) -> None:
    pages.platform.scalable_context(pre=0)
    found = the_fault(pages.platform, list(pages.ask()))
    assert (found["t1"], found["t2"], found["exe"], found["priv"]) == (0, 1, 0, 0)


def test_a_record_says_what_kind_of_page_was_asked_for(pages: Pages) -> None:
    pages.platform.scalable_context(pre=0)
    flags = PageRequestFlag.EXECUTE | PageRequestFlag.PRIVILEGED
    found = the_fault(pages.platform, list(pages.ask(flags)))
    assert (found["t1"], found["t2"], found["exe"], found["priv"]) == (0, 1, 1, 1)


def test_fpd_keeps_the_record_of_a_refusal_away(pages: Pages) -> None:
    pages.platform.scalable_context(pre=0, fpd=1)
    assert pages.ask() == [pages.response(INVALID)]


def test_a_missing_context_entry_refuses(pages: Pages) -> None:
    pages.platform.scalable_context(p=0)
    seen = pages.ask()
    assert the_fault(pages.platform, list(seen))["fr"] == Reason.SM_CONTEXT_NOT_PRESENT
    assert seen[-1] == pages.response(INVALID)


def test_a_refusal_in_the_middle_of_a_group_is_not_answered(pages: Pages) -> None:
    pages.platform.scalable_context(pre=0, fpd=1)
    assert pages.ask(READ) == []


def test_abort_mode_refuses_without_a_record(make_platform: MakePlatform) -> None:
    pages = Pages(make_platform(prs=1, adms=1))
    pages.platform.program(vtd.RTADDR, quadword(RootTableAddress, ttm=3))
    pages.platform.command(srtp=1)
    assert pages.ask() == [pages.response(INVALID)]


# -- descriptors -----------------------------------------------------------------------------------


def respond(platform: Platform, **fields: int) -> list[object]:
    """Answer a group through the queue; return what devices saw."""
    platform.submit(descriptor(PageGroupResponse, **({"rid": DEVICE} | fields)))
    return list(messages(platform))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("code", [SUCCESS, INVALID, FAILURE])
def test_software_answers_a_group(platform: Platform, wide: bool, code: int) -> None:
    platform.start_queue(wide=wide)
    seen = respond(platform, pp=1, pasid=PASID, prgi=GROUP, rc=code)
    assert seen == [PageResponse(DEVICE, PASID, GROUP, code)]


def test_an_answer_without_pasid_names_none(platform: Platform) -> None:
    assert respond(platform, pasid=PASID, prgi=511) == [PageResponse(DEVICE, None, 511, SUCCESS)]


@pytest.mark.parametrize("shape", [PageGroupResponse])
def test_a_recording_of_qemu_shows_no_answers(
    make_platform: MakePlatform, shape: type[Structure]
) -> None:
    platform = make_platform(prs=1, dialect="qemu")
    platform.submit(descriptor(shape, rid=DEVICE))
    assert messages(platform) == []


def test_a_wait_may_drain_page_requests(pages: Pages) -> None:
    pages.ask()
    pages.platform.submit(descriptor(InvalidationWait, pd=1, fn=1))
    assert pages.platform.field(vtd.FSTS, "iqe") == 0
    assert pages.platform.register(vtd.PQT) == SIZE


def test_draining_needs_a_unit_that_can(make_platform: MakePlatform) -> None:
    platform = make_platform(prs=1, pds=0)
    platform.submit(descriptor(InvalidationWait, pd=1, fn=1))
    assert platform.field(vtd.FSTS, "iqe") == 1
    assert platform.field(vtd.IQERCD, "iqei") == QueueError.RESERVED


# -- taking over -----------------------------------------------------------------------------------


def test_a_record_that_was_not_expected_is_taken_over(pages: Pages) -> None:
    pages.platform.unit.adopt(pages.record())
    assert pages.platform.load(pages.queue) == pages.record().words[0]
    assert (pages.platform.register(vtd.PQT), pages.status()) == (SIZE, (1, 0))
    assert pages.ask(ALONE) == [pages.record(1)]


def test_a_record_elsewhere_leaves_the_tail(pages: Pages) -> None:
    seen = pages.record(3)
    pages.platform.unit.adopt(PageRequestRecord(seen.address, seen.words))
    assert pages.platform.register(vtd.PQT) == 0
